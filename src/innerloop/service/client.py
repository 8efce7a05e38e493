"""Jobs from Python, by HTTP: ``innerloop.Client("http://localhost:8000")``.

A client sends a request again when the service is not there for a moment. What creates or moves a job is made
safe for that: each creation carries a key of its own, so it happens once.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from innerloop.core.errors import InnerloopError, InputError
from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import Action, State

Body = Mapping[str, Any]
"""Fields of a request, as the service's documentation at ``/docs`` lists them."""

ATTEMPTS = 6
LONGEST_WAIT = 8.0
"""Seconds between two attempts, at most."""


class ServiceError(InnerloopError):
    """The service refused a request.

    Args:
        status: of the answer; 409 says that the job's state does not allow it.
        detail: what it said.
    """

    def __init__(self, status: int, detail: str) -> None:
        self.status, self.detail = status, detail
        super().__init__(f"the service answered {status}: {detail}")


@dataclass(frozen=True)
class Event:
    """One event of a job.

    Args:
        name: ``job``, ``metrics``, ``log`` or ``end``.
        data: what it holds, as the service's documentation says.
        id: where to go on from.
    """

    name: str
    data: Any
    id: str


class RemoteJob:
    """A job of a service.

    Args:
        client: that reaches the service.
        kind: of job.
        identifier: of the job.
    """

    def __init__(self, client: "Client", kind: Kind, identifier: str) -> None:
        self._client, self.kind, self.id = client, kind, identifier

    def details(self) -> Body:
        """All that the service tells of it now."""
        return self._client.get(self._path())

    @property
    def state(self) -> State:
        """Its state now."""
        return State(self.progress()["state"])

    def progress(self) -> Body:
        """How far it is."""
        return self._client.get(self._path("progress"))

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
        self._client.send("DELETE", self._path())

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
        found: Body = self._client.get(self._path("results"))["results"]
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
        """
        yield from self._client.events(self._path("events"), last_event_id)

    def download(self, path: Path | str) -> Path:
        """Saves its trained model (of adaptations: the adapter) as a zip file.

        Raises:
            ServiceError: 409 where there is none.
        """
        target = Path(path)
        self._client.download(self._path("model"), target)
        return target

    def _act(self, action: Action) -> "RemoteJob":
        self._client.send("POST", self._path(action))
        return self

    def _path(self, *rest: str) -> str:
        return "/".join(["/api/training", self.kind, self.id, *rest])

    def _all(self, part: str, items: str, query: Mapping[str, Any]) -> list[Any]:
        found: list[Any] = []
        after: int | None = 0
        while after is not None:
            page = self._client.get(self._path(part), {**query, "after": after})
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
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        secret = token or os.environ.get("INNERLOOP_TOKEN")
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        self._url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of all connections."""
        self._http.close()

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
        created = self.send("POST", f"/api/training/{Kind(kind)}", fields, key)
        job = RemoteJob(self, Kind(kind), created["id"])
        return job.start() if start else job

    def job(self, kind: Kind | str, identifier: str) -> RemoteJob:
        """A job that is there already; the first question to it tells whether it is."""
        return RemoteJob(self, Kind(kind), identifier)

    def jobs(self, kind: Kind | str, *states: State | str, skip: int = 0, limit: int = 50) -> list[Body]:
        """Jobs of a kind, newest first, in some states (none: in all)."""
        query = {"skip": skip, "limit": limit, "state": [str(State(state)) for state in states]}
        found: list[Body] = self.get(f"/api/training/{Kind(kind)}", query)["items"]
        return found

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Body:
        """Asks for something."""
        found: Body = self.send("GET", path, query=query)
        return found

    def send(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """Sends a request until it is answered.

        Raises:
            ServiceError: it was refused.
            InputError: the service is not reached.
        """
        # Asking twice changes nothing; a creation has its key; of an action that is sent twice the second is
        # refused, which must not hide that the first was done: so those are sent once.
        again = method == "GET" or "Idempotency-Key" in (headers or {})
        for number in range(1, ATTEMPTS + 1):
            try:
                answer = self._http.request(method, path, json=body, headers=headers, params=query)
            except httpx.ConnectError as error:
                failure: Exception = error
            except httpx.TransportError as error:
                if not again:
                    raise InputError(f"{self._url} broke off before it answered ({error})") from error
                failure = error
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or number == ATTEMPTS:
                    return _content(answer)
                failure = ServiceError(answer.status_code, "not available")
            if number < ATTEMPTS:
                time.sleep(min(0.25 * 2**number, LONGEST_WAIT))
        raise InputError(
            f"{self._url} is not reached ({failure}); is 'innerloop serve' running?"
        ) from failure

    def events(self, path: str, last_event_id: str | None) -> Iterator[Event]:
        """Events of a stream until it ends.

        Raises:
            ServiceError: it was refused.
            InputError: the service is not reached any more.
        """
        failures = 0
        while True:
            headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
            try:
                with self._http.stream("GET", path, headers=headers) as answer:
                    if answer.is_error:
                        answer.read()
                        _content(answer)
                    for event in _events(answer.iter_lines()):
                        failures, last_event_id = 0, event.id
                        yield event
                        if event.name == "end":
                            return
            except httpx.TransportError as error:
                failures += 1
                if failures == ATTEMPTS:
                    raise InputError(f"{self._url} is not reached ({error})") from error
            time.sleep(min(0.25 * 2**failures, LONGEST_WAIT))

    def download(self, path: str, target: Path) -> None:
        """Saves what is at a path into a file, whole or not at all.

        Raises:
            ServiceError: it was refused.
            InputError: the file cannot be written.
        """
        partial = target.with_name(f".{target.name}.partial")
        try:
            with self._http.stream("GET", path) as answer:
                if answer.is_error:
                    answer.read()
                    _content(answer)
                with partial.open("wb") as file:
                    for piece in answer.iter_bytes():
                        file.write(piece)
            partial.replace(target)
        except OSError as error:
            raise InputError(f"cannot write {target}: {error.strerror or error}") from error
        finally:
            if partial.parent.is_dir():
                partial.unlink(missing_ok=True)


def _content(answer: httpx.Response) -> Any:
    """What an answer holds.

    Raises:
        ServiceError: it is a refusal.
    """
    if not answer.is_error:
        return answer.json() if answer.content else None
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:200]
    if isinstance(detail, list):
        fields = [".".join(map(str, entry["loc"][1:])) + ": " + entry["msg"] for entry in detail]
        detail = "; ".join(fields)
    raise ServiceError(answer.status_code, str(detail))


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """The events that lines of a stream make (WHATWG HTML, section 9.2)."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id", ""))
            fields = {}
