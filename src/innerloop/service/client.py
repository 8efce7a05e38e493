"""Jobs from Python, by HTTP: ``innerloop.Client("http://localhost:8000")``.

A client sends a request again when the service is not there for a moment. What creates or moves a job is made
safe for that: each creation carries a key of its own, so it happens once.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from innerloop.service.connection import Body, BrokenOff, Connection, Event, ServiceError
from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import Action, State

__all__ = ["Body", "Client", "Event", "RemoteJob", "ServiceError"]

AFTER = {
    Action.START: (State.QUEUED, State.RUNNING, State.COMPLETED, State.FAILED),
    Action.RESUME: (State.QUEUED, State.RUNNING, State.COMPLETED),
    Action.PAUSE: (State.PAUSING, State.PAUSED),
    Action.STOP: (State.CANCELLING, State.CANCELLED),
    Action.CANCEL: (State.CANCELLING, State.CANCELLED),
}
"""States that a job may soon be in after an action."""


class RemoteJob:
    """A job of a service.

    Args:
        connection: to the service.
        kind: of job.
        identifier: of the job.
    """

    def __init__(self, connection: Connection, kind: Kind, identifier: str) -> None:
        self._connection, self.kind, self.id = connection, kind, identifier

    def details(self) -> Body:
        """All that the service tells of it now."""
        return self._connection.get(self._path())

    @property
    def state(self) -> State:
        """Its state now."""
        return State(self.progress()["state"])

    def progress(self) -> Body:
        """How far it is."""
        return self._connection.get(self._path("progress"))

    def start(self) -> "RemoteJob":
        """Puts it into the queue."""
        return self._act(Action.START)

    def pause(self) -> "RemoteJob":
        """Saves and halts it."""
        return self._act(Action.PAUSE)

    def resume(self) -> "RemoteJob":
        """Lets it go on from its last checkpoint, after a pause or a failure."""
        return self._act(Action.RESUME)

    def stop(self) -> "RemoteJob":
        """Ends it and keeps what it has learned."""
        return self._act(Action.STOP)

    def cancel(self) -> "RemoteJob":
        """Ends it and throws away what it has learned."""
        return self._act(Action.CANCEL)

    def delete(self) -> None:
        """Deletes it and all that it left."""
        try:
            self._connection.send("DELETE", self._path())
        except BrokenOff:
            try:
                self._connection.send("DELETE", self._path())
            except ServiceError as refusal:
                if refusal.status != httpx.codes.NOT_FOUND:  # then the first was done
                    raise

    def wait(self, seconds: float | None = None, watch: Callable[[Body], None] = lambda _: None) -> Body:
        """Waits until it is over; gives its results.

        Args:
            seconds: to wait at most; none waits for ever.
            watch: told of its progress.

        Raises:
            ServiceError: it failed or was cancelled; the message tells why.
            TimeoutError: it is not over in time; it goes on.
        """
        end = None if seconds is None else time.monotonic() + seconds
        pause = 0.2
        while not State((now := self.progress())["state"]).over:
            watch(now)
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"job {self.id} is still {now['state']} after {seconds:g} s")
            time.sleep(pause)
            pause = min(1.2 * pause, 2.0)
        watch(now)
        if now["state"] != State.COMPLETED:
            raise ServiceError(409, f"job {self.id} {now['state']}: {now['error_message'] or 'no results'}")
        return self.results()

    def results(self) -> Body:
        """What came of it.

        Raises:
            ServiceError: 409 before it completed.
        """
        found: Body = self._connection.get(self._path("results"))["results"]
        return found

    def metrics(self, name: str | None = None, since_step: int = 0) -> list[Body]:
        """Values of its metrics: number, step, name and value each."""
        query: dict[str, Any] = {"since_step": since_step} | ({} if name is None else {"name": name})
        return self._all("metrics", "values", query)

    def logs(self) -> list[str]:
        """The lines of its log."""
        return [line["text"] for line in self._all("logs", "lines", {})]

    def events(self, last_event_id: str | None = None) -> Iterator[Event]:
        """What happens to it, from the beginning or after an event, until it is over.

        A stream that breaks is taken up again where it broke.

        Args:
            last_event_id: of the last event that is not wanted again; none gives all.
        """
        yield from self._connection.events(self._path("events"), last_event_id)

    def download(self, path: Path | str) -> Path:
        """Saves its trained model (of adaptations: the adapter) as a zip file.

        Raises:
            ServiceError: 409 where there is none.
        """
        target = Path(path)
        self._connection.download(self._path("model"), target)
        return target

    def _act(self, action: Action) -> "RemoteJob":
        try:
            self._connection.send("POST", self._path(action))
        except BrokenOff:
            # Sent again it might be refused only because it was done: the job's state tells.
            if self.state not in AFTER[action]:
                self._connection.send("POST", self._path(action))
        return self

    def _path(self, *rest: str) -> str:
        return "/".join(["/api/training", self.kind, self.id, *rest])

    def _all(self, part: str, items: str, query: Mapping[str, Any]) -> list[Any]:
        found: list[Any] = []
        after: int | None = 0
        while after is not None:
            page = self._connection.get(self._path(part), {**query, "after": after})
            found += page[items]
            after = page["next"]
        return found


class Client:
    """Reaches a service.

    Args:
        url: of the service.
        token: none takes INNERLOOP_TOKEN, if it is set.
        timeout: seconds to wait for an answer.
        transport: in place of the network, for tests.

    Raises:
        InputError: the URL is none, or the token holds what no request can carry.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection(url, token or os.environ.get("INNERLOOP_TOKEN"), timeout, transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of all connections."""
        self._connection.close()

    def submit(self, kind: Kind | str, start: bool = True, **fields: Any) -> RemoteJob:
        """Creates a job, and starts it.

        Args:
            kind: ``tasks``, ``transfer-tasks``, ``meta-tasks``, ``llm-tasks`` or ``adaptations``.
            start: whether to start it at once.
            fields: of the request, for example ``name="...", examples=[...]``.

        Raises:
            ServiceError: 422 where a field is wrong; the message names it.
        """
        key = {"Idempotency-Key": secrets.token_hex(16)}
        created = self._connection.send("POST", f"/api/training/{Kind(kind)}", fields, key)
        job = RemoteJob(self._connection, Kind(kind), created["id"])
        return job.start() if start else job

    def job(self, kind: Kind | str, identifier: str) -> RemoteJob:
        """A job that is there already; the first question to it tells whether it is."""
        return RemoteJob(self._connection, Kind(kind), identifier)

    def jobs(self, kind: Kind | str, *states: State | str, skip: int = 0, limit: int = 50) -> list[Body]:
        """Jobs of a kind, newest first, in some states (none: in all)."""
        query = {"skip": skip, "limit": limit, "state": [str(State(state)) for state in states]}
        found: list[Body] = self._connection.get(f"/api/training/{Kind(kind)}", query)["items"]
        return found
