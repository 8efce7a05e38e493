"""The routes of one kind of job; every kind has the same."""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, HTTPException, Path, Query, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from sse_starlette import EventSourceResponse

from innerloop.service.api.archive import archive_of
from innerloop.service.api.events import Cursor, EventStream
from innerloop.service.api.views import (
    ErrorView,
    FieldErrorsView,
    JobView,
    LogsView,
    MetricsView,
    PageView,
    ProgressView,
    detail_model,
    detail_view,
    job_view,
    line_views,
    metric_views,
    progress_view,
    results_model,
)
from innerloop.service.jobs.job import Job, Kind
from innerloop.service.jobs.states import Action, State, allowed, asked
from innerloop.service.jobs.store import IdempotencyKey, JobStore, KeyReused
from innerloop.service.kinds import KINDS
from innerloop.service.kinds.kind import AnyKind, JobRequest
from innerloop.service.work.folder import JobFolders

MOST_LISTED = 200
LARGEST = 2**53
"""The largest whole number that every client of JSON can hold."""

Number = Annotated[int, Query(ge=0, le=LARGEST)]
Identifier = Annotated[str, Path(pattern=r"^[0-9a-f]{24}$", description="A job's id")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key with the same body gives the job that it created before",
    ),
]

Responses = dict[int | str, dict[str, Any]]

NOT_FOUND: Responses = {404: {"model": ErrorView, "description": "There is no such job"}}
REFUSED: Responses = {409: {"model": ErrorView, "description": "The job's state does not allow it"}}
BAD: Responses = {422: {"model": FieldErrorsView, "description": "A field is wrong"}}
ALWAYS: Responses = {
    400: {
        "model": ErrorView,
        "description": "The body is no JSON, or the host is not this service",
    },
    401: {"model": ErrorView, "description": "The token is missing or wrong"},
    403: {"model": ErrorView, "description": "A browser asked for a page of another site"},
    413: {"model": ErrorView, "description": "The body is too large"},
    503: {"model": ErrorView, "description": "The database is not reached; try again"},
}


class Jobs:
    """What the routes need of the service.

    Args:
        store: of jobs.
        folders: of jobs.
        stream: of what happens to them.
    """

    def __init__(self, store: JobStore, folders: JobFolders, stream: EventStream) -> None:
        self.store, self.folders, self.stream = store, folders, stream

    def find(self, kind: Kind, identifier: str) -> Job:
        """A job of a kind.

        Raises:
            HTTPException: 404.
        """
        job = self.store.get(identifier)
        if job is None or job.kind is not kind:
            raise HTTPException(404, f"there is no job {identifier} among {kind}")
        return job

    def act(self, kind: Kind, identifier: str, action: Action) -> Job:
        """Does what a person asks of a job.

        Raises:
            HTTPException: 404; 409 where its state does not allow it.
        """
        while True:
            job = self.find(kind, identifier)
            to = asked(action, job.state)
            if to is None:
                can = ", ".join(allowed(job.state)) or "nothing"
                raise HTTPException(
                    409, f"a job that is {job.state} cannot {action}; what can be asked of it: {can}"
                )
            moved = self.store.move(identifier, job.state, to, keep=action is Action.STOP)
            if moved is not None:
                return moved
            # Somebody else moved it in between: judged again by the state it is in now.


def router_of(kind: AnyKind, jobs: Jobs) -> APIRouter:
    """The routes of a kind.

    Args:
        kind: of job.
        jobs: the service's.
    """
    router = APIRouter(prefix=f"/api/training/{kind.kind}", tags=[kind.title], responses=ALWAYS)
    detail = detail_model(kind)

    def view(job: Job) -> JobView:
        return detail_view(job, kind, detail)

    def found(identifier: Identifier) -> Job:
        return jobs.find(kind.kind, identifier)

    Found = Annotated[Job, Depends(found)]  # noqa: N806 - a type
    examples = {"example": {"value": dict(kind.example)}}

    @router.post(
        "",
        status_code=201,
        response_model=detail,
        responses=BAD,
        summary=f"Create: {kind.summary}",
        operation_id=f"create_{kind.kind}",
    )
    def create(
        request: Annotated[kind.request, Body(openapi_examples=examples)],  # type: ignore[name-defined]
        response: Response,
        key: Key = None,
    ) -> JobView:
        _check_sources(jobs.store, kind, request)
        settings = request.model_dump(mode="json")
        job = Job(
            kind=kind.kind,
            name=request.name,
            description=request.description,
            settings=settings,
            total_episodes=kind.total(request),
        )
        try:
            kept = jobs.store.create(job, None if key is None else _fingerprinted(key, kind.kind, settings))
        except KeyReused as reuse:
            raise _field_error(("header", "Idempotency-Key"), str(reuse)) from reuse
        response.headers["Location"] = f"/api/training/{kind.kind}/{kept.id}"
        return view(kept)

    @router.get("", response_model=PageView, responses=BAD, operation_id=f"list_{kind.kind}", summary="List")
    def page(
        skip: Number = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 50,
        state: Annotated[list[State] | None, Query(description="Only jobs in these states")] = None,
    ) -> PageView:
        some = jobs.store.page(kind.kind, state or (), skip, limit)
        return PageView(items=[job_view(job) for job in some.jobs], total=some.total, skip=skip, limit=limit)

    @router.get(
        "/{identifier}",
        response_model=detail,
        responses={**NOT_FOUND, **BAD},
        operation_id=f"get_{kind.kind}",
        summary="A job",
    )
    def get(job: Found) -> JobView:
        return view(job)

    @router.delete(
        "/{identifier}",
        status_code=204,
        responses={**NOT_FOUND, **REFUSED, **BAD},
        operation_id=f"delete_{kind.kind}",
        summary="Delete a job and all that it left",
    )
    def delete(job: Found) -> None:
        if not jobs.store.delete(job.id):
            # Gone already, or held: the second look tells which.
            state = jobs.find(kind.kind, job.id).state
            raise HTTPException(409, f"a job that is {state} cannot be deleted; cancel it first")
        jobs.folders.drop(job.id)

    def add_action(action: Action) -> None:
        @router.post(
            f"/{{identifier}}/{action}",
            response_model=detail,
            responses={**NOT_FOUND, **REFUSED, **BAD},
            operation_id=f"{action}_{kind.kind}",
            summary=ACTIONS[action],
        )
        def act(identifier: Identifier) -> JobView:
            return view(jobs.act(kind.kind, identifier, action))

    for action in Action:
        add_action(action)

    @router.get(
        "/{identifier}/results",
        response_model=results_model(kind),
        responses={**NOT_FOUND, **REFUSED, **BAD},
        operation_id=f"results_{kind.kind}",
        summary="What came of a job that completed",
    )
    def results(job: Found) -> dict[str, object]:
        if job.results is None:
            raise HTTPException(409, f"the job is {job.state} and has no results yet")
        return {"id": job.id, "state": job.state, "results": job.results}

    @router.get(
        "/{identifier}/progress",
        responses={**NOT_FOUND, **BAD},
        operation_id=f"progress_{kind.kind}",
        summary="How far a job is",
    )
    def progress(job: Found) -> ProgressView:
        return progress_view(job)

    @router.get(
        "/{identifier}/metrics",
        responses={**NOT_FOUND, **BAD},
        operation_id=f"metrics_{kind.kind}",
        summary="Values of its metrics",
    )
    def metrics(
        job: Found,
        name: Annotated[str | None, Query(max_length=200)] = None,
        since_step: Number = 0,
        after: Number = 0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    ) -> MetricsView:
        values = jobs.store.metrics(job.id, name, since_step, after, limit)
        more = values[-1].number if len(values) == limit else None
        return MetricsView(id=job.id, values=metric_views(values), next=more)

    @router.get(
        "/{identifier}/logs",
        responses={**NOT_FOUND, **BAD},
        operation_id=f"logs_{kind.kind}",
        summary="Lines of its log",
    )
    def logs(job: Found, after: Number = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 1000) -> LogsView:
        lines = jobs.store.lines(job.id, after, limit)
        more = lines[-1].number if len(lines) == limit else None
        return LogsView(id=job.id, lines=line_views(lines), next=more)

    @router.get(
        "/{identifier}/events",
        response_class=EventSourceResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **NOT_FOUND,
            **BAD,
        },
        operation_id=f"events_{kind.kind}",
        summary="What happens to a job, as server-sent events",
    )
    async def events(
        identifier: Identifier,
        after_metric: Number = 0,
        after_line: Number = 0,
        last_event_id: Annotated[str | None, Header(max_length=100)] = None,
    ) -> EventSourceResponse:
        cursor = Cursor.read(last_event_id) or Cursor(0, after_metric, after_line)
        job = await jobs.stream.find(kind.kind, identifier)
        if job is None:
            raise HTTPException(404, f"there is no job {identifier} among {kind.kind}")
        return EventSourceResponse(jobs.stream.follow(job, cursor), ping=15)

    @router.get(
        "/{identifier}/model",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
            **NOT_FOUND,
            **REFUSED,
            **BAD,
        },
        operation_id=f"model_{kind.kind}",
        summary="The trained model (of adaptations: the adapter) as a zip file",
    )
    def model(job: Found) -> StreamingResponse:
        if job.model_path is None:
            raise HTTPException(409, f"the job is {job.state} and has no trained model")
        return archive_of(jobs.folders.root / job.model_path, f"{job.id}.zip")

    return router


ACTIONS = {
    Action.START: "Put a new job into the queue",
    Action.PAUSE: "Save and halt",
    Action.RESUME: "Go on from the last checkpoint, after a pause or a failure",
    Action.STOP: "End a job and keep what it has learned",
    Action.CANCEL: "End a job and throw away what it has learned",
}


def _check_sources(store: JobStore, kind: AnyKind, request: JobRequest) -> None:
    """Refuses a request that names jobs which are not there or cannot be started from.

    Raises:
        RequestValidationError: naming the field.
    """
    for field, source in kind.sources(request).items():
        found = store.get(source.identifier)
        if found is None or found.kind not in source.kinds:
            among = " or ".join(source.kinds)
            raise _field_error(("body", field), f"there is no job {source.identifier} among {among}")


def _field_error(place: Sequence[str], message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": tuple(place), "msg": message, "type": "value_error"}])


def _fingerprinted(key: str, kind: Kind, settings: object) -> IdempotencyKey:
    text = json.dumps([kind, settings], sort_keys=True)
    return IdempotencyKey(key, hashlib.sha256(text.encode()).hexdigest())


def routers(jobs: Jobs) -> list[APIRouter]:
    """The routes of all kinds."""
    return [router_of(kind, jobs) for kind in KINDS.values()]
