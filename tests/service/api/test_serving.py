"""`innerloop serve` as a process, and the server in a thread: streams, the end, ports, and what it prints."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from innerloop.core.errors import InputError
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore, Outcome
from innerloop.service.serving import listening
from service.api.live import events_in, numbers, serving, until
from service.api.standing import now, running, told

TOKEN = "a-token-that-nobody-may-see"
PASSWORD = "geheim-0815"


def command(*words: str, **environment: str) -> subprocess.Popen[str]:
    """`innerloop serve` without what the machine's own environment says."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("INNERLOOP", "MONGODB"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "innerloop", "serve", *words],
        env={**kept, **environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def served(home: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A service that runs; gives its process, its address and what it prints."""
    process = command("--home", str(home), "--port", "0", "--workers", "1", **environment)
    said: list[str] = []
    reading = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    reading.start()
    try:
        until(lambda: any("dashboard: http://" in line for line in said) or process.poll() is not None, 90)
        found = re.search(r"dashboard: (http://\S+)/ ", "".join(said))
        assert found is not None, said
        until(lambda: answers(found[1]), 60)
        yield process, found[1], said
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
        reading.join(20)


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_live_job_is_streamed_to_many_over_real_connections(store: JobStore, folder: Path) -> None:
    claim = running(store)
    seen: list[list[int]] = [[] for _ in range(10)]
    with serving(store, folder) as address:

        def read(number: int) -> None:
            path = f"{address}/api/training/meta-tasks/{claim.id}/events"
            with httpx.stream("GET", path, timeout=60) as answer:
                seen[number] += numbers(events_in(answer.iter_lines()), "metrics")

        threads = [threading.Thread(target=read, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            told(store, claim, [0.5, 0.25])
            time.sleep(0.01)
        store.finish(claim, Outcome(State.COMPLETED))
        for thread in threads:
            thread.join(60)
    assert seen == [list(range(1, 41))] * 10


class Stoppable:
    """A service that is stopped while something else goes on.

    Args:
        store: of jobs.
        folder: of the jobs' own folders.
    """

    def __init__(self, store: JobStore, folder: Path) -> None:
        self._service = serving(store, folder)
        self.address = self._service.__enter__()
        self._stopping = threading.Thread(target=self._service.__exit__, args=(None, None, None))

    def stop(self) -> None:
        """Begins to stop it."""
        self._stopping.start()

    def join(self) -> float:
        """Waits for it; gives the seconds that it took."""
        began = time.monotonic()
        self._stopping.join(60)
        return time.monotonic() - began


def test_streams_end_when_the_service_stops_and_go_on_with_the_next(store: JobStore, folder: Path) -> None:
    claim = running(store)
    told(store, claim, [0.5])
    path = f"/api/training/meta-tasks/{claim.id}/events"
    seen, last = [], ""
    for _ in range(2):
        headers = {"Last-Event-ID": last} if last else {}
        service = Stoppable(store, folder)
        with httpx.stream("GET", service.address + path, headers=headers, timeout=60) as answer:
            for event in events_in(answer.iter_lines()):
                seen.append(event)
                last = event.id
                if event.event == "job":
                    service.stop()
        # Nobody has to wait for the server's patience to end.
        assert service.join() < 4
        told(store, claim, [0.25], ["between"])
    assert numbers(seen, "metrics") == [1, 2]
    assert numbers(seen, "log") == [1]
    assert "end" not in [event.event for event in seen]
    assert now(store, claim.id).metric_count == 3


def test_a_port_that_is_taken_and_a_host_that_is_not_there_are_refused() -> None:
    with listening(ServiceSettings(port=0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen at port {port} of 127.0.0.1"):
            listening(ServiceSettings(port=port)).__enter__()
    with pytest.raises(InputError, match="there is no host"):
        listening(ServiceSettings(host="a.." + "x" * 80, token="x" * 16, port=0)).__enter__()


def test_the_command_serves_keeps_its_token_to_itself_and_ends_in_order(tmp_path: Path) -> None:
    with served(tmp_path / "home", INNERLOOP_TOKEN=TOKEN) as (process, address, said):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        path = f"{address}/api/training/adaptations"
        assert httpx.get(path).status_code == 401
        assert httpx.get(path, headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
        assert httpx.get(path, headers=headers).json()["total"] == 0
        pages = [httpx.get(f"{address}{page}").text for page in ("/healthz", "/openapi.json", "/", "/docs")]
        pages.append(httpx.get(f"{address}/metrics", headers=headers).text)
        (worker,) = children(process.pid)
        for number in (worker, *children(worker)):
            assert TOKEN not in Path(f"/proc/{number}/environ").read_text()
            assert TOKEN not in Path(f"/proc/{number}/cmdline").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not Path(f"/proc/{worker}").exists()
    everything = "".join([*said, *pages])
    assert TOKEN not in everything
    assert "Traceback" not in everything
    assert len(list((tmp_path / "home").glob("jobs.sqlite*"))) == 1


def children(number: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


@pytest.mark.parametrize(
    ("words", "environment", "status", "message"),
    [
        (("--store", "STORE"), {"INNERLOOP_TOKEN": TOKEN}, 1, "does not answer"),
        ((), {"INNERLOOP_TOKEN": TOKEN, "INNERLOOP_STORE": "STORE"}, 1, "does not answer"),
        (("--store", "STORE", "--host", "0.0.0.0"), {}, 2, "listens at loopback only"),
    ],
)
def test_a_service_that_cannot_begin_says_so_in_one_line_without_its_secrets(
    tmp_path: Path, words: tuple[str, ...], environment: Mapping[str, str], status: int, message: str
) -> None:
    with listening(ServiceSettings(port=0)) as listener:
        port = listener.getsockname()[1]
    # Nobody listens there any more.
    store = f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/jobs"
    process = command(
        "--home",
        str(tmp_path),
        "--port",
        "0",
        *(store if word == "STORE" else word for word in words),
        **{name: store if value == "STORE" else value for name, value in environment.items()},
    )
    said, _ = process.communicate(timeout=120)
    assert process.returncode == status
    assert len(said.splitlines()) == 1
    assert message in said
    assert PASSWORD not in said
    assert TOKEN not in said
