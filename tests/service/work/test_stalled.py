"""A worker that stalls until another has its job, and wakes up: the fence keeps it out."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innerloop.service.jobs.job import Job
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore

from .at_work import folder_of, log, now, rows, submit, until, until_state, until_step
from .kills import Watcher, innerloop, processes

STEPS = 400
Workers = dict[str, "subprocess.Popen[bytes]"]


@pytest.fixture
def workers(sqlite_url: str, home: Path) -> Iterator[Workers]:
    """The first worker; others may be added."""
    started = {"first": start(sqlite_url, home, "first")}
    yield started
    for process in started.values():
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(240)
    until(lambda: not list(processes(home)))


def start(url: str, home: Path, name: str) -> "subprocess.Popen[bytes]":
    return innerloop(home, url, True, "worker", "--name", name, output=f"{name}.log")


def child_in(home: Path, job: Job) -> int:
    folder = str(folder_of(home, job).path)
    return next(pid for pid, words in processes(home) if folder in words)


@pytest.mark.parametrize("with_its_child", [False, True], ids=["worker alone", "worker and child"])
def test_one_that_wakes_up_is_refused_and_the_job_completes_once(
    jobs: JobStore, sqlite_url: str, home: Path, workers: Workers, with_its_child: bool
) -> None:
    job = submit(jobs, f"steps:{STEPS}")
    with Watcher(home).watching() as watcher:
        until_step(jobs, job, 3)
        child = child_in(home, job)
        stalled = [workers["first"].pid] + [child] * with_its_child
        for pid in stalled:
            os.kill(pid, signal.SIGSTOP)
        workers["second"] = start(sqlite_url, home, "second")
        until(lambda: holder(jobs, job) == "second")
        if not with_its_child:
            # Without a beat its own child has saved and stopped; the other worker's goes on.
            reached = now(jobs, job).current_episode
            until_step(jobs, job, reached + 3)
            assert not Path(f"/proc/{child}/exe").exists()
        for pid in reversed(stalled):
            os.kill(pid, signal.SIGCONT)
        refused = f"job {job.id} is not this worker's any more"
        until(lambda: refused in (home / "first.log").read_text())
        done = until_state(jobs, job, State.COMPLETED)
    assert done.lease is not None
    assert (done.lease.worker, done.lease.token) == ("second", 2)
    assert rows(jobs, job) == [(step, "ppo/loss", 1 / step) for step in range(1, STEPS + 1)]
    log(jobs, job)
    assert not watcher.together
    assert len(watcher.seen[job.id]) == 2


def holder(store: JobStore, job: Job) -> str | None:
    lease = now(store, job).lease
    return lease.worker if lease is not None else None
