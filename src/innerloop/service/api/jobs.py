"""What the routes do with the store and the jobs' folders; all of it may wait, so it is for threads."""

import hashlib
import json
import logging
from collections.abc import Sequence

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError

from innerloop.service.api.events import EventStream
from innerloop.service.jobs.job import Job, Kind, LogLine, MetricValue
from innerloop.service.jobs.states import Action, State, allowed, asked
from innerloop.service.jobs.store import IdempotencyKey, JobStore, KeyReused
from innerloop.service.kinds.kind import AnyKind, JobRequest
from innerloop.service.work.folder import JobFolders

logger = logging.getLogger(__name__)


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
                if moved.state is State.CANCELLED and not moved.keep:
                    self._forget_run(identifier)
                return moved
            # Somebody else moved it in between: judged again by the state it is in now.

    def _forget_run(self, identifier: str) -> None:
        """Throws away what a job has learned that no worker holds; where one does, that is the worker's."""
        try:
            self.folders.of(identifier).forget_run()
        except OSError as error:
            logger.warning("the run of the cancelled job %s is not removed whole: %s", identifier, error)

    def create(self, kind: AnyKind, request: JobRequest, key: str | None) -> Job:
        """Keeps a new job, or finds the one that the key created.

        Raises:
            RequestValidationError: the request names a job that cannot be started from, or the key is that
                of another request.
        """
        _check_sources(self.store, kind, request)
        settings = request.model_dump(mode="json")
        job = Job(
            kind=kind.kind,
            name=request.name,
            description=request.description,
            settings=settings,
            total_episodes=kind.total(request),
        )
        try:
            return self.store.create(job, None if key is None else _fingerprinted(key, kind.kind, settings))
        except KeyReused as reuse:
            raise _field_error(("header", "Idempotency-Key"), str(reuse)) from reuse

    def delete(self, kind: Kind, identifier: str) -> None:
        """Forgets a job and all that it left.

        Raises:
            HTTPException: 404; 409 where a worker holds it.
        """
        job = self.find(kind, identifier)
        if not self.store.delete(identifier):
            # Gone already, or held: the second look tells which.
            job = self.find(kind, identifier)
            raise HTTPException(409, f"a job that is {job.state} cannot be deleted; cancel it first")
        try:
            self.folders.drop(identifier)
        except OSError as error:
            # The job is gone all the same; whoever keeps the disk learns what is left on it.
            logger.warning("the folder of job %s, which was deleted, cannot be removed: %s", job.id, error)

    def metrics(
        self, kind: Kind, identifier: str, name: str | None, since_step: int, after: int, limit: int
    ) -> list[MetricValue]:
        """Values of a job that must be there.

        Raises:
            HTTPException: 404.
        """
        self.find(kind, identifier)
        return self.store.metrics(identifier, name, since_step, after, limit)

    def lines(self, kind: Kind, identifier: str, after: int, limit: int) -> list[LogLine]:
        """Lines of the log of a job that must be there.

        Raises:
            HTTPException: 404.
        """
        self.find(kind, identifier)
        return self.store.lines(identifier, after, limit)


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
