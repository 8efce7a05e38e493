"""Jobs as the tests of the stores need them, and what other processes do to a store."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from innerloop.service.jobs.job import Job, Kind, LogLine, MetricValue
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Claim, JobStore, LeaseLost, Outcome, Report
from innerloop.service.stores.opening import open_store

LONG = 600.0
"""Seconds of a lease that does not end during a test."""

OVER = 0.0
"""Seconds of a lease that is over at once."""


def made_up(kind: Kind = Kind.META, name: str = "a job", **fields: Any) -> Job:
    return Job(kind=kind, name=name, description="", settings={"seed": 1}, total_episodes=100, **fields)


def queued(store: JobStore, **fields: Any) -> Job:
    """A new job that waits for a worker."""
    job = store.move(store.create(made_up(**fields)).id, State.PENDING, State.QUEUED)
    assert job is not None
    return job


def running(store: JobStore, seconds: float = LONG, worker: str = "first") -> Claim:
    """The claim on a new job, which must be the only one that waits."""
    queued(store)
    claim = store.claim(worker, seconds, 3)
    assert claim is not None
    return claim


def now(store: JobStore, claim: Claim) -> Job:
    job = store.get(claim.id)
    assert job is not None
    return job


def values(*steps: int, name: str = "loss") -> list[MetricValue]:
    return [MetricValue(step, name, step / 8) for step in steps]


def numbered(*texts: str, start: int = 1) -> list[LogLine]:
    return [LogLine(text, number) for number, text in enumerate(texts, start)]


def start(task: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that does one of the tasks below, from the word ``go`` on its input on."""
    folders = [str(Path(__file__).parents[2]), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-m", "service.stores.made_up", task, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(*processes: subprocess.Popen[str]) -> None:
    """Lets processes that are ready begin, all at once."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def result(process: subprocess.Popen[str]) -> Any:
    """What a process printed at its end."""
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(out)


def drain(url: str, worker: str) -> list[str]:
    """Takes and completes jobs until none waits."""
    store, done = _ready(url), []
    while (claim := store.claim(worker, LONG, 3)) is not None:
        done.append(claim.id)
        store.finish(claim, Outcome(State.COMPLETED))
    return done


def work(url: str, worker: str) -> str:
    """Works on the first job that it gets, four steps at a time; says how that ended."""
    store = _ready(url)
    while (claim := store.claim(worker, 0.3, 100)) is None:
        if store.page(None, [State.COMPLETED]).total:
            return "none left"
        time.sleep(0.02)
    # As a run does that goes on from a checkpoint older than its last report.
    step = max(0, now(store, claim).current_episode - 6)
    try:
        while step < 100:
            steps = range(step + 1, min(step + 4, 100) + 1)
            told = [value for name in ("loss", "reward") for value in values(*steps, name=name)]
            store.report(claim, Report(steps[-1], told, [LogLine(f"step {i}", i) for i in steps]), 0.3)
            step = steps[-1]
            time.sleep(0.04)
        store.finish(claim, Outcome(State.COMPLETED))
    except LeaseLost:
        return "lost"
    return "done"


def opened(url: str) -> int:
    """Opens the store; how many jobs it has."""
    _wait_for_go()
    return open_store(url).page(None).total


def _ready(url: str) -> JobStore:
    store = open_store(url)
    _wait_for_go()
    return store


def _wait_for_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    tasks = {"drain": drain, "work": work, "opened": opened}
    print(json.dumps(tasks[sys.argv[1]](*sys.argv[2:])), flush=True)
