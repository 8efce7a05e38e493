"""Jobs for workers to do in tests, and waiting for what comes of them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from innerloop.service.jobs.job import Job, Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore, StoreUnavailable
from innerloop.service.kinds import KINDS
from innerloop.service.work.folder import JobFolder, JobFolders
from innerloop.service.work.settings import WorkerSettings
from innerloop.service.work.worker import Worker

PATIENCE = 240.0
"""Seconds for what takes one on a machine with nothing else to do."""

T = TypeVar("T")


def submit(store: JobStore, words: str = "", kind: Kind = Kind.TASKS, **changes: object) -> Job:
    """A new job that waits for a worker; its description holds the words of the program that stands in."""
    job_kind = KINDS[kind]
    request = job_kind.request.model_validate({**job_kind.example, "description": words, **changes})
    settings = request.model_dump(mode="json")
    job = store.create(
        Job(kind, request.name, request.description, settings, total_episodes=job_kind.total(request))
    )
    waiting = store.move(job.id, State.PENDING, State.QUEUED)
    assert waiting is not None
    return waiting


def now(store: JobStore, job: Job) -> Job:
    """The job as it is now."""
    found = store.get(job.id)
    assert found is not None
    return found


def until(what: Callable[[], T], seconds: float = PATIENCE) -> T:
    """The first answer that counts as true."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return answer


def until_state(store: JobStore, job: Job, *states: State, seconds: float = PATIENCE) -> Job:
    """The job, once it is in one of the states."""

    def found() -> Job | None:
        current = now(store, job)
        return current if current.state in states else None

    try:
        return until(found, seconds)
    except AssertionError as error:
        current = now(store, job)
        raise AssertionError(f"the job is {current.state} ({current.error_message}), not {states}") from error


def until_step(store: JobStore, job: Job, step: int) -> Job:
    """The job, once so many steps are told of."""
    until(lambda: now(store, job).current_episode >= step)
    return now(store, job)


def folder_of(home: Path, job: Job) -> JobFolder:
    """The job's folder."""
    return JobFolders(home / "jobs").of(job.id)


def rows(store: JobStore, job: Job) -> list[tuple[int, str, float]]:
    """Metric values as they came, without those that a clock had a part in."""
    return [
        (value.step, value.name, value.value)
        for value in store.metrics(job.id, limit=1_000_000)
        if "perf/" not in value.name
    ]


def log(store: JobStore, job: Job) -> list[str]:
    """The lines of the job's log, whose numbers have no gap."""
    found = store.lines(job.id, limit=1_000_000)
    assert [line.number for line in found] == list(range(1, len(found) + 1))
    return [line.text for line in found]


def quick(home: Path, name: str = "worker", **changes: Any) -> WorkerSettings:
    """Settings of a worker that looks often."""
    chosen: dict[str, Any] = {"lease": 20.0, "interval": 0.1, "poll": 0.1, "grace": 30.0, **changes}
    return WorkerSettings(name, home, **chosen)


@contextmanager
def working(store: JobStore, settings: WorkerSettings) -> Iterator[Worker]:
    """A worker in a thread, stopped at the end; what it raises is raised then."""
    worker = Worker(store, settings)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 - raised again below
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not raised, raised


class Interruptible:
    """A store that can be away.

    Args:
        store: that is there otherwise.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self.away = False
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if self.away:
                self.refused += 1
                raise StoreUnavailable("the database does not answer")
            return method(*arguments, **named)

        return call
