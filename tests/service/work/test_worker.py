"""A worker: one job after the other, and patience with a store that is away."""

from pathlib import Path

import pytest

from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore
from innerloop.service.work.settings import WorkerSettings
from innerloop.service.work.worker import Worker

from .at_work import Interruptible, quick, submit, until, until_state, working

pytestmark = pytest.mark.usefixtures("stand_in")


def test_jobs_are_done_in_the_order_in_which_they_wait(jobs: JobStore, home: Path) -> None:
    waiting = [submit(jobs, "steps:1") for _ in range(3)]
    with working(jobs, quick(home)):
        done = [until_state(jobs, job, State.COMPLETED) for job in waiting]
    started = [job.started_at for job in done if job.started_at is not None]
    assert len(started) == 3
    assert started == sorted(started)


def test_it_takes_jobs_again_when_the_store_is_back(jobs: JobStore, home: Path) -> None:
    store = Interruptible(jobs)
    store.away = True
    job = submit(jobs, "steps:1")
    with working(store, quick(home)):
        until(lambda: store.refused > 3)
        assert until_state(jobs, job, State.QUEUED)
        store.away = False
        until_state(jobs, job, State.COMPLETED)


def test_running_one_job_tells_whether_there_was_one(jobs: JobStore, home: Path) -> None:
    worker = Worker(jobs, quick(home))
    assert not worker.run_one()
    job = submit(jobs, "steps:1")
    assert worker.run_one()
    until_state(jobs, job, State.COMPLETED)
    assert not worker.run_one()


@pytest.mark.parametrize(("lease", "pause"), [(30.0, 1.0), (3.0, 0.5)])
def test_several_reports_fit_into_a_lease(home: Path, lease: float, pause: float) -> None:
    assert WorkerSettings("worker", home, lease=lease).pause == pause
