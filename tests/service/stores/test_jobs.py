"""Jobs that are made, found, moved and forgotten, in every store."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import IdempotencyKey, JobStore, KeyReused, Outcome, Report
from innerloop.service.stores.opening import open_store
from service.stores.made_up import LONG, OVER, made_up, numbered, queued, running, values

SETTINGS = {
    "a.b": {"$set": 1, "": None},
    "list": [1, 2.5, "x", True, None, {"deep": []}],
    "big": 2**70,
    "odd": [math.inf, -math.inf],
    "text": 'ünï\u2028"\\\0\U0001f600',
}


def test_what_was_created_is_what_is_found_also_by_another_service(store: JobStore, store_url: str) -> None:
    job = replace(made_up(name="Prüfung 🧪", keep=True), settings=SETTINGS, description="a\nb")
    assert store.create(job) == job
    assert store.get(job.id) == job
    other = open_store(store_url)
    assert other.get(job.id) == job
    other.close()


def test_times_are_in_utc_to_the_microsecond(store: JobStore) -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 123_457, tzinfo=UTC)
    job = store.create(made_up(created_at=moment, updated_at=moment))
    found = store.get(job.id)
    assert found is not None
    assert found.created_at == moment
    assert found.created_at.tzinfo is UTC


def test_there_is_no_job_of_an_unknown_name(store: JobStore) -> None:
    for name in ("nobody", "", "a\0b", "\ud800", "'; DROP TABLE jobs; --", "$where"):
        assert store.get(name) is None
        assert store.move(name, State.PENDING, State.QUEUED) is None
        assert not store.delete(name)
        assert store.metrics(name) == []
        assert store.lines(name) == []


def test_characters_that_no_database_takes_are_replaced(store: JobStore) -> None:
    job = store.create(made_up(name="a\0b\ud800c"))
    assert job.name == "a\ufffdb\ufffdc"
    assert store.get(job.id) == job


def test_pages_are_newest_first_and_tell_how_many_there_are(store: JobStore) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    kinds = [Kind.META, Kind.LLM]
    made = [made_up(kinds[i % 2], created_at=start + timedelta(microseconds=i)) for i in range(7)]
    for job in (made[3], *made[:3], *made[4:]):
        store.create(job)
    newest = made[::-1]
    assert store.page(None).jobs == newest
    page = store.page(None, skip=2, limit=3)
    assert (page.jobs, page.total) == (newest[2:5], 7)
    assert store.page(Kind.LLM).jobs == newest[1::2]
    assert store.page(None, skip=7).jobs == []
    assert store.page(None, limit=0).jobs == []
    assert store.page(None, limit=0).total == 7
    moved = store.move(made[2].id, State.PENDING, State.QUEUED)
    assert store.page(Kind.META, [State.QUEUED, State.RUNNING]).jobs == [moved]
    assert store.page(Kind.META, [State.PENDING]).total == 3
    assert store.page(Kind.TASKS).total == 0


def test_a_job_moves_only_from_the_state_it_was_seen_in(store: JobStore) -> None:
    job = store.create(made_up())
    moved = store.move(job.id, State.PENDING, State.QUEUED)
    assert moved is not None
    assert moved.state is State.QUEUED
    assert moved.version > job.version
    assert moved.updated_at >= job.updated_at
    assert store.move(job.id, State.PENDING, State.QUEUED) is None
    assert store.get(job.id) == moved


def test_a_cancelled_job_is_finished_and_says_whether_to_keep_what_it_learned(
    store: JobStore,
) -> None:
    job = queued(store)
    over = store.move(job.id, State.QUEUED, State.CANCELLED, keep=True)
    assert over is not None
    assert over.keep
    assert over.finished_at == over.updated_at
    assert over.started_at is None


def test_a_failed_job_that_is_resumed_starts_with_a_clean_slate(store: JobStore) -> None:
    claim = running(store, OVER)
    claim = store.claim("second", LONG, 3) or claim
    store.report(claim, Report(None, values(1)), LONG)
    failed = store.finish(claim, Outcome(State.FAILED, error_message="no memory"))
    assert (failed.state, failed.error_message) == (State.FAILED, "no memory")
    assert failed.finished_at is not None
    again = store.move(claim.id, State.FAILED, State.QUEUED)
    assert again is not None
    assert (again.error_message, again.finished_at, again.losses) == (None, None, 0)
    assert (again.started_at, again.metric_count) == (failed.started_at, 1)


def test_a_job_is_forgotten_with_all_that_belongs_to_it(store: JobStore) -> None:
    claim = running(store)
    store.report(claim, Report(1, values(1), numbered("one")), LONG)
    store.report(claim, Report(2, values(2), numbered("two", start=2)), LONG)
    assert not store.delete(claim.id)
    store.finish(claim, Outcome(State.COMPLETED))
    assert store.delete(claim.id)
    assert not store.delete(claim.id)
    assert store.get(claim.id) is None
    assert store.metrics(claim.id) == []
    assert store.lines(claim.id) == []


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSING, State.CANCELLING])
def test_a_job_that_a_worker_holds_is_not_forgotten(store: JobStore, state: State) -> None:
    claim = running(store)
    store.move(claim.id, State.RUNNING, state)
    assert not store.delete(claim.id)
    assert store.get(claim.id) is not None


def test_a_key_makes_a_creation_happen_once(store: JobStore) -> None:
    key = IdempotencyKey("once", "print")
    first = store.create(made_up(), key)
    moved = store.move(first.id, State.PENDING, State.QUEUED)
    assert store.create(made_up(), key) == moved
    assert store.create(made_up(), IdempotencyKey("other", "print")).id != first.id
    assert store.page(None).total == 2


def test_a_key_with_another_request_is_refused(store: JobStore) -> None:
    store.create(made_up(), IdempotencyKey("once", "print"))
    with pytest.raises(KeyReused, match="came before, with another request"):
        store.create(made_up(), IdempotencyKey("once", "another"))
    assert store.page(None).total == 1


def test_a_key_is_forgotten_with_its_job(store: JobStore) -> None:
    key = IdempotencyKey("once", "print")
    first = store.create(made_up(), key)
    store.delete(first.id)
    second = store.create(made_up(), key)
    assert second.id != first.id
    assert store.create(made_up(), key) == second


def test_jobs_are_counted_by_kind_and_state(store: JobStore) -> None:
    assert store.counts() == {}
    queued(store)
    queued(store)
    store.create(made_up(Kind.LLM))
    assert store.counts() == {(Kind.META, State.QUEUED): 2, (Kind.LLM, State.PENDING): 1}
