"""A worker's part in a job, with a light program in the place of the real work."""

from pathlib import Path

import pytest

from innerloop.service.jobs.job import Job, Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore, Outcome
from innerloop.service.work.supervisor import Supervisor

from .at_work import (
    Interruptible,
    folder_of,
    log,
    now,
    quick,
    rows,
    submit,
    until,
    until_state,
    until_step,
    working,
)

pytestmark = pytest.mark.usefixtures("stand_in")

LONG = "steps:1000"


def whole(last: int) -> list[tuple[int, str, float]]:
    """The rows of an undisturbed run of so many steps, named as the job's own metrics are."""
    return [(step, "ppo/loss", 1 / step) for step in range(1, last + 1)]


def move(store: JobStore, job: Job, to: State, keep: bool = False) -> None:
    assert store.move(job.id, State.RUNNING, to, keep) is not None


def test_a_job_completes_with_its_results_metrics_and_log(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, "say:HOME steps:5")
    with working(jobs, quick(home)):
        done = until_state(jobs, job, State.COMPLETED)
    assert (done.results, done.model_path) == ({"steps": 5}, f"{job.id}/run")
    assert (done.progress, done.current_episode, done.error_message) == (100.0, 5, None)
    assert rows(jobs, job) == whole(5)
    assert log(jobs, job)[0].startswith("HOME is ")


def test_a_paused_job_saves_and_goes_on_when_it_is_resumed(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, "steps:60")
    with working(jobs, quick(home)):
        until_step(jobs, job, 3)
        move(jobs, job, State.PAUSING)
        paused = until_state(jobs, job, State.PAUSED)
        assert paused.model_path == f"{job.id}/run"
        told = len(rows(jobs, job))
        assert jobs.move(job.id, State.PAUSED, State.QUEUED)
        until_state(jobs, job, State.COMPLETED)
    assert 3 <= told < 60
    assert rows(jobs, job) == whole(60)


def test_a_cancelled_job_leaves_no_checkpoint_and_keeps_its_log(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, f"say:HOME {LONG}")
    with working(jobs, quick(home)):
        until_step(jobs, job, 3)
        move(jobs, job, State.CANCELLING)
        until_state(jobs, job, State.CANCELLED)
        until(lambda: not (folder_of(home, job).path / "run").exists())
    assert folder_of(home, job).log.exists()
    assert rows(jobs, job)[:3] == whole(3)


def test_a_stopped_job_keeps_what_it_has_learned(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, LONG)
    with working(jobs, quick(home)):
        until_step(jobs, job, 3)
        move(jobs, job, State.CANCELLING, keep=True)
        stopped = until_state(jobs, job, State.CANCELLED)
    assert stopped.model_path == f"{job.id}/run"
    assert (home / "jobs" / stopped.model_path / "latest").exists()


def test_a_job_that_does_not_heed_is_stopped_after_the_grace(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, "steps:2 deaf")
    with working(jobs, quick(home, grace=0.5)):
        until(lambda: (folder_of(home, job).path / "deaf").exists())
        move(jobs, job, State.PAUSING)
        until_state(jobs, job, State.PAUSED)
    assert rows(jobs, job) == whole(2)


def test_a_worker_that_stops_gives_the_job_back(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, "steps:60")
    with working(jobs, quick(home)):
        until_step(jobs, job, 3)
    given_back = now(jobs, job)
    assert (given_back.state, given_back.model_path) == (State.QUEUED, f"{job.id}/run")
    with working(jobs, quick(home, "another")):
        until_state(jobs, job, State.COMPLETED)
    assert rows(jobs, job) == whole(60)


def test_a_job_that_crashes_is_tried_again_and_its_half_lines_are_told(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, "steps:3 crash:7x2 steps:6")
    with working(jobs, quick(home, attempts=3)):
        done = until_state(jobs, job, State.COMPLETED)
    assert done.results == {"steps": 6}
    assert rows(jobs, job) == whole(6)
    assert [line for line in log(jobs, job) if "half" in line] == ["half a line"] * 2


def test_a_job_that_always_crashes_has_failed_with_a_line_and_can_be_resumed(
    jobs: JobStore, home: Path
) -> None:
    job = submit(jobs, "steps:3 crash:7x3 steps:6")
    with working(jobs, quick(home, attempts=3)):
        failed = until_state(jobs, job, State.FAILED)
        assert failed.error_message == (
            "its process ended with status 7 and no outcome 3 times in a row; the log tells more, and "
            "resuming goes on from the last checkpoint"
        )
        assert jobs.move(job.id, State.FAILED, State.QUEUED)
        until_state(jobs, job, State.COMPLETED)
    assert rows(jobs, job) == whole(6)


def test_a_job_that_cannot_be_done_fails_at_once_with_its_own_line(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, "fail:luck")
    with working(jobs, quick(home)):
        failed = until_state(jobs, job, State.FAILED)
    assert failed.error_message == "no such luck"
    assert log(jobs, job) == ["failed: no such luck"]


def test_damaged_metrics_fail_the_job_and_end_its_process(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, "steps:2 damage")
    with working(jobs, quick(home)):
        failed = until_state(jobs, job, State.FAILED)
    assert "has a damaged row" in (failed.error_message or "")


def transfer(store: JobStore, source: str) -> Job:
    return submit(store, kind=Kind.TRANSFER, source_task_id=source)


def test_a_job_whose_source_is_gone_or_has_no_model_fails_with_a_line(jobs: JobStore, home: Path) -> None:
    source = submit(jobs, "fail:luck")
    with working(jobs, quick(home)):
        until_state(jobs, source, State.FAILED)
        without_model, without_job = transfer(jobs, source.id), transfer(jobs, "0" * 24)
        failed = [until_state(jobs, job, State.FAILED) for job in (without_model, without_job)]
    assert [job.error_message for job in failed] == [
        f"source_task_id: job {source.id} has no trained model; it must complete first",
        f"source_task_id: there is no job {'0' * 24} any more",
    ]


def test_a_fault_of_the_worker_fails_the_job_and_not_the_worker(
    jobs: JobStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Supervisor._order

    def order(self: Supervisor, job: Job) -> object:
        if job.description == "bad":
            raise ZeroDivisionError("division\nby zero")
        return real(self, job)

    monkeypatch.setattr(Supervisor, "_order", order)
    bad, good = submit(jobs, "bad"), submit(jobs, "steps:1")
    with working(jobs, quick(home)):
        assert until_state(jobs, bad, State.FAILED).error_message == (
            "the worker's fault: ZeroDivisionError: division by zero"
        )
        until_state(jobs, good, State.COMPLETED)


def test_a_store_that_is_away_for_less_than_the_lease_costs_nothing(jobs: JobStore, home: Path) -> None:
    store = Interruptible(jobs)
    job = submit(jobs, "steps:150")
    with working(store, quick(home, lease=20.0)):
        until_step(jobs, job, 3)
        store.away = True
        before = now(jobs, job).current_episode
        latest = folder_of(home, job).path / "run" / "latest"
        until(lambda: int(latest.read_text()) > before + 40)
        assert now(jobs, job).current_episode == before
        assert store.refused > 2
        store.away = False
        done = until_state(jobs, job, State.COMPLETED)
    assert rows(jobs, job) == whole(150)
    # It was one process all along.
    assert done.lease is not None
    assert done.lease.token == 1
    assert not [line for line in log(jobs, job) if "interrupted" in line]


def test_a_store_that_is_away_while_a_job_ends_loses_nothing_of_it(jobs: JobStore, home: Path) -> None:
    store = Interruptible(jobs)
    job = submit(jobs, "steps:40 say:HOME")
    with working(store, quick(home)):
        until_step(jobs, job, 3)
        store.away = True
        until(lambda: folder_of(home, job).outcome())
        store.away = False
        until_state(jobs, job, State.COMPLETED)
    assert rows(jobs, job) == whole(40)
    assert log(jobs, job)[-1].startswith("HOME is")


def test_a_store_that_is_away_for_longer_ends_the_process_and_the_job_goes_on_when_it_is_back(
    jobs: JobStore, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Interruptible(jobs)
    job = submit(jobs, "steps:150")
    with working(store, quick(home, lease=3.0)):
        until_step(jobs, job, 3)
        store.away = True
        until(lambda: "is not this worker's any more" in caplog.text)
        # Who waited for the lease to end may start at once: the process has ended.
        stopped = int((folder_of(home, job).path / "run" / "latest").read_text())
        assert "interrupted: SIGTERM received" in folder_of(home, job).log.read_text()
        assert stopped < 150
        store.away = False
        done = until_state(jobs, job, State.COMPLETED)
    assert rows(jobs, job) == whole(150)
    assert done.lease is not None
    assert done.lease.token == 2


def test_a_job_that_another_worker_took_is_let_go(
    jobs: JobStore, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Interruptible(jobs)
    job = submit(jobs, LONG)
    with working(store, quick(home, lease=3.0)) as worker:
        until_step(jobs, job, 3)
        store.away = True
        other = until(lambda: jobs.claim("another", 600.0, 3))
        worker.stop()
        store.away = False
        until(lambda: "is not this worker's any more" in caplog.text)
    assert now(jobs, job).state is State.RUNNING
    jobs.finish(other, Outcome(State.COMPLETED))
    told = rows(jobs, job)
    assert told == whole(len(told))
