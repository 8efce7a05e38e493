"""Requests to a service, sent again where that is safe, and streams of its events."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from innerloop.core.errors import InnerloopError, InputError

Body = Mapping[str, Any]
"""Fields of a request, as the service's documentation at ``/docs`` lists them."""

ATTEMPTS = 8
LONGEST_WAIT = 8.0
"""Seconds between two attempts, at most."""

LONGEST_SILENCE = 60.0
"""Seconds without a word in a stream until it is taken up anew; the service says something every 15."""


class ServiceError(InnerloopError):
    """The service refused a request.

    Args:
        status: of the answer; 409 says that the job's state does not allow it.
        detail: what it said.
    """

    def __init__(self, status: int, detail: str) -> None:
        self.status, self.detail = status, detail
        super().__init__(f"the service answered {status}: {detail}")


class BrokenOff(InputError):  # noqa: N818 - it says what happened, which may be no fault
    """The connection broke after a request was sent, and nobody knows whether it was done."""


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


class Connection:
    """Reaches a service.

    Args:
        url: of the service.
        token: none sends none.
        timeout: seconds to wait for an answer.
        transport: in place of the network, for tests.

    Raises:
        InputError: the URL is none, or the token holds what no request can carry.
    """

    def __init__(
        self, url: str, token: str | None, timeout: float, transport: httpx.BaseTransport | None
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = url
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise InputError(f"no service is reached by {url} with this token: {error}") from error
        self._listening = httpx.Timeout(timeout, read=max(timeout, LONGEST_SILENCE))

    def close(self) -> None:
        """Lets go of all connections."""
        self._http.close()

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
            BrokenOff: it was sent and not answered, and is none that can be sent twice.
            InputError: the service is not reached.
        """
        # Asking twice changes nothing, and a creation has its key; of anything else that is sent twice the
        # second may be refused because the first was done.
        again = method == "GET" or "Idempotency-Key" in (headers or {})
        for number in range(1, ATTEMPTS + 1):
            try:
                answer = self._http.request(method, path, json=body, headers=headers, params=query)
            except httpx.ConnectError as error:
                failure: Exception = error
            except httpx.TransportError as error:
                if not again:
                    raise BrokenOff(f"{self._url} broke off before it answered ({error})") from error
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

        Args:
            path: of the stream.
            last_event_id: where to go on from; none is the beginning.

        Raises:
            ServiceError: it was refused.
            InputError: the service is not reached any more.
        """
        failures = 0
        while True:
            headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
            try:
                with self._http.stream("GET", path, headers=headers, timeout=self._listening) as answer:
                    _check(answer)
                    failures = 0
                    for event in _events(_lines(answer.iter_text())):
                        last_event_id = event.id or last_event_id
                        yield event
                        if event.name == "end":
                            return
            except httpx.TransportError as error:
                failures += 1
                if failures == ATTEMPTS:
                    raise InputError(f"{self._url} is not reached ({error})") from error
            except ServiceError as refusal:
                failures += 1
                if refusal.status != httpx.codes.SERVICE_UNAVAILABLE or failures == ATTEMPTS:
                    raise
            time.sleep(min(0.25 * 2**failures, LONGEST_WAIT))

    def download(self, path: str, target: Path) -> None:
        """Saves what is at a path into a file, whole or not at all.

        Raises:
            ServiceError: it was refused.
            InputError: the service is not reached, or broke off, or the file cannot be written.
        """
        partial = target.with_name(f".{target.name}.partial")
        try:
            with self._http.stream("GET", path) as answer:
                _check(answer)
                with partial.open("wb") as file:
                    for piece in answer.iter_bytes():
                        file.write(piece)
            partial.replace(target)
        except httpx.TransportError as error:
            raise InputError(f"{self._url} did not send the whole of it ({error}); try again") from error
        except OSError as error:
            raise InputError(f"cannot write {target}: {error.strerror or error}") from error
        finally:
            if partial.parent.is_dir():
                partial.unlink(missing_ok=True)


def _check(answer: httpx.Response) -> None:
    """Reads an answer that is a refusal and not yet read.

    Raises:
        ServiceError: it is one.
    """
    if answer.is_error:
        answer.read()
        _content(answer)


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


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """Lines without their ends; only line feeds end one, however many other characters count as such."""
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from (line.removesuffix("\r") for line in whole)


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """The events that lines of a stream make (WHATWG HTML, section 9.2)."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name == "data" and name in fields:
                fields[name] += "\n" + value.removeprefix(" ")
            elif name:
                fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id", ""))
            fields = {}
