"""Claims, leases and the fence against workers that were lost, in every store."""

import time
from datetime import timedelta

import pytest

from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Claim, JobStore, LeaseLost, Outcome, Report
from service.stores.made_up import LONG, OVER, made_up, now, numbered, queued, running, values


def test_who_waited_longest_is_taken_first(store: JobStore) -> None:
    made = [store.create(made_up()) for _ in range(3)]
    for job in made[::-1]:
        store.move(job.id, State.PENDING, State.QUEUED)
        time.sleep(0.002)  # times of the MongoDB server are in milliseconds
    claims = [store.claim("w", LONG, 3) for _ in range(4)]
    assert [claim.id for claim in claims if claim] == [job.id for job in made[::-1]]
    assert claims[3] is None


def test_only_queued_jobs_are_taken(store: JobStore) -> None:
    store.create(made_up())
    for state in (State.PAUSED, State.CANCELLED):
        store.move(queued(store).id, State.QUEUED, state)
    assert store.claim("w", LONG, 3) is None


def test_a_claim_tells_who_has_the_job_and_until_when(store: JobStore) -> None:
    claim = running(store, 60, worker="left")
    job = now(store, claim)
    assert job.state is State.RUNNING
    assert job.lease is not None
    assert (job.lease.worker, job.lease.token) == ("left", claim.token)
    assert job.started_at is not None
    assert job.lease.until == job.started_at + timedelta(seconds=60)


def test_nobody_else_gets_a_job_while_its_lease_lasts(store: JobStore) -> None:
    claim = running(store, LONG)
    assert store.claim("second", LONG, 3) is None
    store.report(claim, Report(), LONG)
    assert store.claim("second", LONG, 3) is None


def test_a_lease_that_ran_out_is_another_worker_s_with_the_next_token(store: JobStore) -> None:
    first = running(store, 0.2)
    time.sleep(0.25)
    second = store.claim("second", LONG, 3)
    assert second == Claim(first.id, "second", first.token + 1)
    job = now(store, first)
    assert (job.state, job.losses) == (State.RUNNING, 1)


def test_the_old_token_is_refused_whatever_its_worker_believes(store: JobStore) -> None:
    first = running(store, OVER)
    second = store.claim("second", LONG, 3)
    before = now(store, first)
    for report in (Report(), Report(5, values(5), numbered("late"), "run")):
        with pytest.raises(LeaseLost, match="not first's any more"):
            store.report(first, report, LONG)
    with pytest.raises(LeaseLost):
        store.finish(first, Outcome(State.COMPLETED))
    assert now(store, first) == before
    assert store.metrics(first.id) == []
    assert store.lines(first.id) == []
    assert second is not None
    assert store.finish(second, Outcome(State.COMPLETED)).state is State.COMPLETED


def test_a_worker_whose_lease_ran_out_goes_on_if_nobody_took_its_job(store: JobStore) -> None:
    claim = running(store, OVER)
    assert store.report(claim, Report(1), LONG).current_episode == 1
    assert store.claim("second", LONG, 3) is None


@pytest.mark.parametrize("outcome", [State.COMPLETED, State.FAILED, None])
def test_a_claim_ends_with_its_job_s_run(store: JobStore, outcome: State | None) -> None:
    claim = running(store)
    store.finish(claim, Outcome(outcome))
    with pytest.raises(LeaseLost):
        store.report(claim, Report(1), LONG)
    with pytest.raises(LeaseLost):
        store.finish(claim, Outcome(State.COMPLETED))


def test_an_old_claim_stays_void_when_its_worker_takes_the_job_again(store: JobStore) -> None:
    first = running(store)
    store.finish(first, Outcome(None))
    again = store.claim("first", LONG, 3)
    assert again == Claim(first.id, "first", first.token + 1)
    with pytest.raises(LeaseLost):
        store.report(first, Report(1), LONG)


@pytest.mark.parametrize(
    ("asked", "rest"), [(State.PAUSING, State.PAUSED), (State.CANCELLING, State.CANCELLED)]
)
def test_what_was_asked_of_a_job_happens_though_its_worker_is_lost(
    store: JobStore, asked: State, rest: State
) -> None:
    first = running(store, OVER)
    store.move(first.id, State.RUNNING, asked, keep=True)
    waiting = queued(store)
    claim = store.claim("second", LONG, 3)
    assert claim is not None
    assert claim.id == waiting.id
    job = now(store, first)
    assert (job.state, job.keep) == (rest, True)
    assert (job.finished_at is not None) == (rest is State.CANCELLED)
    with pytest.raises(LeaseLost):
        store.report(first, Report(1), LONG)


def test_a_job_that_loses_too_many_workers_in_a_row_fails(store: JobStore) -> None:
    first = running(store, OVER)
    for loss in (1, 2):
        assert store.claim("next", OVER, 2) is not None
        assert now(store, first).losses == loss
    assert store.claim("last", OVER, 2) is None
    job = now(store, first)
    assert (job.state, job.losses) == (State.FAILED, 3)
    assert job.error_message == "3 workers in a row were lost before they had done a step"
    assert job.finished_at is not None


def test_a_step_done_ends_the_row_of_losses_and_one_told_again_does_not(store: JobStore) -> None:
    claim = running(store, OVER)
    store.report(claim, Report(5), OVER)
    second = store.claim("second", LONG, 3)
    assert second is not None
    assert store.report(second, Report(5), LONG).losses == 1
    assert store.report(second, Report(None, values(5)), LONG).losses == 1
    assert store.report(second, Report(6), LONG).losses == 0


def test_a_worker_that_gives_its_job_back_was_not_lost(store: JobStore) -> None:
    running(store, OVER)
    second = store.claim("second", LONG, 3)
    assert second is not None
    job = store.finish(second, Outcome(None))
    assert (job.state, job.losses, job.finished_at) == (State.QUEUED, 0, None)
    assert store.claim("third", LONG, 3) is not None


@pytest.mark.parametrize(
    ("seen", "outcome", "end"),
    [
        (State.RUNNING, State.COMPLETED, State.COMPLETED),
        (State.RUNNING, State.FAILED, State.FAILED),
        (State.RUNNING, None, State.QUEUED),
        (State.PAUSING, State.COMPLETED, State.COMPLETED),
        (State.PAUSING, None, State.PAUSED),
        (State.CANCELLING, State.COMPLETED, State.CANCELLED),
        (State.CANCELLING, State.FAILED, State.CANCELLED),
        (State.CANCELLING, None, State.CANCELLED),
    ],
)
def test_a_run_ends_where_it_was_asked_to(
    store: JobStore, seen: State, outcome: State | None, end: State
) -> None:
    claim = running(store)
    if seen is not State.RUNNING:
        store.move(claim.id, State.RUNNING, seen)
    told = Outcome(outcome, "why" if outcome is State.FAILED else None, {"score": 1.5}, "/models/x")
    job = store.finish(claim, told)
    # What a cancelled job learned is thrown away.
    path = None if end is State.CANCELLED else "/models/x"
    assert (job.state, job.results, job.model_path) == (end, {"score": 1.5}, path)
    assert job.error_message == ("why" if end is State.FAILED else None)
    assert (job.finished_at is not None) == end.over
    assert now(store, claim) == job
    assert job.lease is not None
    assert job.lease.token == claim.token


def test_a_job_that_was_stopped_keeps_its_model(store: JobStore) -> None:
    claim = running(store)
    store.move(claim.id, State.RUNNING, State.CANCELLING, keep=True)
    job = store.finish(claim, Outcome(None, model_path="/models/x"))
    assert (job.state, job.keep, job.model_path) == (State.CANCELLED, True, "/models/x")
    assert now(store, claim) == job


def test_the_first_start_stays_when_a_job_is_taken_again(store: JobStore) -> None:
    claim = running(store)
    started = now(store, claim).started_at
    store.finish(claim, Outcome(None, results={"kept": 1}))
    second = store.claim("second", LONG, 3)
    assert second is not None
    job = store.finish(second, Outcome(None))
    assert (job.started_at, job.results) == (started, {"kept": 1})
