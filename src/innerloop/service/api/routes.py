"""The routes of one kind of job; every kind has the same.

They are coroutines, and one call of a thread waits for the store: a thread costs more than what else they do.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, HTTPException, Path, Query, Response
from fastapi.responses import StreamingResponse
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from innerloop.service.api.archive import archive_of
from innerloop.service.api.events import Cursor
from innerloop.service.api.jobs import Jobs
from innerloop.service.api.queries import only_known
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
from innerloop.service.jobs.job import Job
from innerloop.service.jobs.states import Action, State
from innerloop.service.kinds import KINDS
from innerloop.service.kinds.kind import AnyKind

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


EVENT = {
    "type": "object",
    "description": "One event of the stream, by its fields",
    "properties": {
        "event": {
            "enum": ["job", "metrics", "log", "end"],
            "description": "The job as lists hold it, new values, new lines, or that it is over or deleted",
        },
        "id": {"type": "string", "description": "What to send as Last-Event-ID for what comes after"},
        "data": {"type": "string", "description": "JSON"},
    },
    "required": ["event", "id", "data"],
}


def router_of(kind: AnyKind, jobs: Jobs) -> APIRouter:
    """The routes of a kind.

    Args:
        kind: of job.
        jobs: the service's.
    """
    router = APIRouter(
        prefix=f"/api/training/{kind.kind}",
        tags=[kind.title],
        responses=ALWAYS,
        dependencies=[Depends(only_known)],
    )
    detail = detail_model(kind)

    def view(job: Job) -> JobView:
        return detail_view(job, kind, detail)

    async def found(identifier: Identifier) -> Job:
        return await run_in_threadpool(jobs.find, kind.kind, identifier)

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
    async def create(
        request: Annotated[kind.request, Body(openapi_examples=examples)],  # type: ignore[name-defined]
        response: Response,
        key: Key = None,
    ) -> JobView:
        job = await run_in_threadpool(jobs.create, kind, request, key)
        response.headers["Location"] = f"/api/training/{kind.kind}/{job.id}"
        return view(job)

    @router.get("", response_model=PageView, responses=BAD, operation_id=f"list_{kind.kind}", summary="List")
    async def page(
        skip: Number = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 50,
        state: Annotated[list[State] | None, Query(description="Only jobs in these states")] = None,
    ) -> PageView:
        some = await run_in_threadpool(jobs.store.page, kind.kind, state or (), skip, limit)
        return PageView(items=[job_view(job) for job in some.jobs], total=some.total, skip=skip, limit=limit)

    @router.get(
        "/{identifier}",
        response_model=detail,
        responses={**NOT_FOUND, **BAD},
        operation_id=f"get_{kind.kind}",
        summary="A job",
    )
    async def get(job: Found) -> JobView:
        return view(job)

    @router.delete(
        "/{identifier}",
        status_code=204,
        responses={**NOT_FOUND, **REFUSED, **BAD},
        operation_id=f"delete_{kind.kind}",
        summary="Delete a job and all that it left",
    )
    async def delete(identifier: Identifier) -> None:
        await run_in_threadpool(jobs.delete, kind.kind, identifier)

    def add_action(action: Action) -> None:
        @router.post(
            f"/{{identifier}}/{action}",
            response_model=detail,
            responses={**NOT_FOUND, **REFUSED, **BAD},
            operation_id=f"{action}_{kind.kind}",
            summary=ACTIONS[action],
        )
        async def act(identifier: Identifier) -> JobView:
            return view(await run_in_threadpool(jobs.act, kind.kind, identifier, action))

    for action in Action:
        add_action(action)

    @router.get(
        "/{identifier}/results",
        response_model=results_model(kind),
        responses={**NOT_FOUND, **REFUSED, **BAD},
        operation_id=f"results_{kind.kind}",
        summary="What came of a job that completed",
    )
    async def results(job: Found) -> dict[str, object]:
        if job.results is None:
            raise HTTPException(409, f"the job is {job.state} and has no results yet")
        return {"id": job.id, "state": job.state, "results": job.results}

    @router.get(
        "/{identifier}/progress",
        responses={**NOT_FOUND, **BAD},
        operation_id=f"progress_{kind.kind}",
        summary="How far a job is",
    )
    async def progress(job: Found) -> ProgressView:
        return progress_view(job)

    @router.get(
        "/{identifier}/metrics",
        responses={**NOT_FOUND, **BAD},
        operation_id=f"metrics_{kind.kind}",
        summary="Values of its metrics",
    )
    async def metrics(
        identifier: Identifier,
        name: Annotated[str | None, Query(max_length=200)] = None,
        since_step: Number = 0,
        after: Number = 0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    ) -> MetricsView:
        asked_for = (name, since_step, after, limit)
        values = await run_in_threadpool(jobs.metrics, kind.kind, identifier, *asked_for)
        more = values[-1].number if len(values) == limit else None
        return MetricsView(id=identifier, values=metric_views(values), next=more)

    @router.get(
        "/{identifier}/logs",
        responses={**NOT_FOUND, **BAD},
        operation_id=f"logs_{kind.kind}",
        summary="Lines of its log",
    )
    async def logs(
        identifier: Identifier, after: Number = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 1000
    ) -> LogsView:
        lines = await run_in_threadpool(jobs.lines, kind.kind, identifier, after, limit)
        more = lines[-1].number if len(lines) == limit else None
        return LogsView(id=identifier, lines=line_views(lines), next=more)

    # Of a class that says of no type, the refusals are documented as the JSON that they are.
    @router.get(
        "/{identifier}/events",
        response_class=Response,
        responses={
            200: {"content": {"text/event-stream": {"schema": EVENT}}},
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
        job = await found(identifier)
        return EventSourceResponse(jobs.stream.follow(job, cursor), ping=15)

    @router.get(
        "/{identifier}/model",
        response_class=Response,
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
        return archive_of(jobs.folders.of(job.id).path, job.model_path, f"{job.id}.zip")

    return router


ACTIONS = {
    Action.START: "Put a new job into the queue",
    Action.PAUSE: "Save and halt",
    Action.RESUME: "Go on from the last checkpoint, after a pause or a failure",
    Action.STOP: "End a job and keep what it has learned",
    Action.CANCEL: "End a job and throw away what it has learned",
}


def routers(jobs: Jobs) -> list[APIRouter]:
    """The routes of all kinds."""
    return [router_of(kind, jobs) for kind in KINDS.values()]
