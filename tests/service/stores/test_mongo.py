"""Reports and deletions that were broken off between two of their steps: MongoDB without its transactions."""

from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Claim, JobStore, LeaseLost, Outcome, Report
from innerloop.service.stores.opening import open_store
from service.stores.made_up import LONG, OVER, now, numbered, running, values


@pytest.fixture
def store(mongo_url: str) -> Iterator[JobStore]:
    store = open_store(mongo_url)
    yield store
    store.close()


@pytest.fixture
def database(mongo_url: str) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        yield client.get_default_database()


def batch_of(database: Database[dict[str, Any]], claim: Claim) -> list[dict[str, Any]]:
    """The values in the job's own document, as they are to be copied."""
    job = database["jobs"].find_one({"_id": claim.id})
    assert job is not None
    return [{"job": claim.id, **value} for value in job["batch"]["metrics"]]


def steps(store: JobStore, claim: Claim) -> list[tuple[int, int]]:
    return [(value.number, value.step) for value in store.metrics(claim.id)]


@pytest.mark.parametrize("copied", [0, 1, 3])
def test_a_batch_that_was_copied_in_part_is_neither_lost_nor_doubled(
    store: JobStore, database: Database[dict[str, Any]], copied: int
) -> None:
    claim = running(store)
    store.report(claim, Report(3, values(1, 2, 3), numbered("one")), LONG)
    # A reporter that was killed while it copied, in any order.
    for value in batch_of(database, claim)[::-1][:copied]:
        database["metrics"].insert_one(value)
    assert steps(store, claim) == [(1, 1), (2, 2), (3, 3)]
    store.report(claim, Report(5, values(2, 3, 4, 5), numbered("one", "two")), LONG)
    assert steps(store, claim) == [(i, i) for i in range(1, 6)]
    assert [line.text for line in store.lines(claim.id)] == ["one", "two"]
    store.report(claim, Report(5, values(1, 2, 3, 4, 5)), LONG)
    assert steps(store, claim) == [(i, i) for i in range(1, 6)]
    assert database["metrics"].count_documents({}) == 5


def test_a_copy_that_comes_late_adds_nothing(store: JobStore, database: Database[dict[str, Any]]) -> None:
    claim = running(store, OVER)
    store.report(claim, Report(2, values(1, 2)), OVER)
    late = batch_of(database, claim)
    second = store.claim("second", LONG, 3)
    assert second is not None
    store.report(second, Report(4, values(2, 3, 4)), LONG)
    for value in late:
        with pytest.raises(DuplicateKeyError):
            database["metrics"].insert_one(value)
    with pytest.raises(LeaseLost):
        store.report(claim, Report(3, values(3)), LONG)
    assert steps(store, claim) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert now(store, claim).metric_count == 4


def test_what_a_broken_deletion_left_is_seen_by_nobody_and_goes_with_the_next(
    store: JobStore, database: Database[dict[str, Any]]
) -> None:
    claim = running(store)
    for step in (1, 2):
        store.report(claim, Report(step, values(step), numbered("x", start=step)), LONG)
    store.finish(claim, Outcome(State.COMPLETED))
    database["jobs"].delete_one({"_id": claim.id})
    assert store.metrics(claim.id) == []
    assert store.lines(claim.id) == []
    assert not store.delete(claim.id)
    assert database["metrics"].count_documents({}) == 0
    assert database["log_lines"].count_documents({}) == 0
