"""The service on a real port, in a thread of the test."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innerloop.service.api.settings import ServiceSettings
from innerloop.service.jobs.store import JobStore
from innerloop.service.serving import listening, server_of


@contextmanager
def serving(store: JobStore, folder: Path, port: int = 0, token: str | None = None) -> Iterator[str]:
    """Serves until the block ends; gives the address."""
    settings = ServiceSettings(port=port, token=token, poll=0.02)
    with listening(settings) as listener:
        server = server_of(store, folder, settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def until(condition: Any, seconds: float = 30) -> None:
    """Waits for something; a busy machine is slow."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(0.01)


@dataclass(frozen=True)
class Told:
    """One event as a browser would see it."""

    event: str
    id: str
    data: Any


def events_in(lines: Iterable[str]) -> Iterator[Told]:
    """The events of a stream, as they come."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.strip()
        elif not line and "data" in fields:
            yield Told(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}


def numbers(events: Iterable[Told], name: str) -> list[int]:
    """The numbers of the values (``metrics``) or lines (``log``) that events tell, in their order."""
    return [entry["number"] for event in events if event.event == name for entry in event.data]
