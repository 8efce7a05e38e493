"""Steps, metric values and lines of the log, in every store."""

import math

import pytest

from innerloop.service.jobs.job import LogLine, MetricValue
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore, Outcome, Report
from service.stores.made_up import LONG, now, numbered, running, values


def test_a_report_is_in_the_record_and_raises_its_version(store: JobStore) -> None:
    claim = running(store)
    before = now(store, claim)
    job = store.report(claim, Report(3, values(3), numbered("hello"), "run-1"), LONG)
    assert job == now(store, claim)
    assert (job.current_episode, job.metrics, job.wandb_run_id) == (3, {"loss": 0.375}, "run-1")
    assert (job.metric_count, job.log_count) == (1, 1)
    assert job.version > before.version
    assert job.updated_at >= before.updated_at


def test_a_lease_that_is_renewed_is_no_news(store: JobStore) -> None:
    claim = running(store)
    before = store.report(claim, Report(3, values(3), numbered("hello")), LONG)
    for report in (Report(), Report(2), Report(None, values(3)), Report(None, (), numbered("hello"))):
        job = store.report(claim, report, 2 * LONG)
        assert (job.version, job.updated_at) == (before.version, before.updated_at)
        assert job.lease is not None
        assert before.lease is not None
        assert job.lease.until > before.lease.until
    assert now(store, claim).metrics == {"loss": 0.375}


def test_reports_are_taken_while_a_job_is_to_pause_or_to_end(store: JobStore) -> None:
    claim = running(store)
    store.move(claim.id, State.RUNNING, State.PAUSING)
    assert store.report(claim, Report(1), LONG).state is State.PAUSING
    store.move(claim.id, State.PAUSING, State.CANCELLING)
    assert store.report(claim, Report(2), LONG).state is State.CANCELLING


def test_steps_never_run_backwards(store: JobStore) -> None:
    claim = running(store)
    store.report(claim, Report(7), LONG)
    assert store.report(claim, Report(4), LONG).current_episode == 7
    assert store.report(claim, Report(None, values(5)), LONG).current_episode == 7


def test_values_are_numbered_in_the_order_they_came(store: JobStore) -> None:
    claim = running(store)
    store.report(claim, Report(2, [*values(2, 1), *values(1, name="reward")]), LONG)
    store.report(claim, Report(3, values(3)), LONG)
    told = [(value.number, value.step, value.name) for value in store.metrics(claim.id)]
    assert told == [(1, 2, "loss"), (2, 1, "loss"), (3, 1, "reward"), (4, 3, "loss")]


def test_a_value_that_is_there_is_left_as_it_is_and_takes_no_number(store: JobStore) -> None:
    claim = running(store)
    store.report(claim, Report(2, values(1, 2)), LONG)
    again = [MetricValue(1, "loss", 99.0), MetricValue(3, "loss", 3.0), MetricValue(3, "loss", 4.0)]
    job = store.report(claim, Report(3, again), LONG)
    assert (job.metric_count, job.metrics) == (3, {"loss": 3.0})
    told = [(value.number, value.step, value.value) for value in store.metrics(claim.id)]
    assert told == [(1, 1, 0.125), (2, 2, 0.25), (3, 3, 3.0)]


def test_values_of_the_next_worker_follow_those_of_the_one_before(store: JobStore) -> None:
    claim = running(store)
    store.report(claim, Report(3, values(1, 2, 3)), LONG)
    store.finish(claim, Outcome(None))
    second = store.claim("second", LONG, 3)
    assert second is not None
    store.report(second, Report(4, values(2, 3, 4)), LONG)
    assert [(value.number, value.step) for value in store.metrics(claim.id)] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
    ]


def test_values_are_found_by_name_step_and_number(store: JobStore) -> None:
    claim = running(store)
    for step in range(1, 6):
        store.report(claim, Report(step, [*values(step), *values(step, name="a.$b")]), LONG)
    found = store.metrics(claim.id)
    assert [value.number for value in found] == list(range(1, 11))
    assert store.metrics(claim.id, name="a.$b") == found[1::2]
    assert store.metrics(claim.id, since_step=4) == found[6:]
    assert store.metrics(claim.id, after=7) == found[7:]
    assert store.metrics(claim.id, after=10) == []
    assert store.metrics(claim.id, limit=3) == found[:3]
    assert store.metrics(claim.id, limit=9) == found[:9]
    assert store.metrics(claim.id, "loss", since_step=2, after=5, limit=2) == [found[6], found[8]]
    assert store.metrics(claim.id, "loss", limit=0) == []
    assert store.metrics(claim.id, "unknown") == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 5e-324, 1.7e308, 0.1])
def test_any_number_is_kept(store: JobStore, number: float) -> None:
    claim = running(store)
    job = store.report(claim, Report(1, [MetricValue(1, "x", number)]), LONG)
    for kept in (store.metrics(claim.id)[0].value, job.metrics["x"], now(store, claim).metrics["x"]):
        assert math.isnan(kept) if math.isnan(number) else kept == number
    store.report(claim, Report(2, [MetricValue(2, "x", 1.0), MetricValue(1, "x", 1.0)]), LONG)
    assert [value.step for value in store.metrics(claim.id)] == [1, 2]


def test_names_that_no_database_takes_as_they_are_come_only_once_too(store: JobStore) -> None:
    claim = running(store)
    for _ in range(2):
        store.report(claim, Report(1, [MetricValue(1, name, 1.0) for name in ("a\0", "ü", "\ud800")]), LONG)
    assert [value.name for value in store.metrics(claim.id)] == ["a\ufffd", "ü", "\ufffd"]
    assert store.metrics(claim.id, "a\0") == store.metrics(claim.id)[:1]


def test_lines_that_are_sent_again_are_not_doubled(store: JobStore) -> None:
    claim = running(store)
    first = Report(None, (), numbered("one", "zwei ☃"))
    store.report(claim, first, LONG)
    store.report(claim, first, LONG)
    job = store.report(claim, Report(None, (), numbered("zwei?", "three\0", start=2)), LONG)
    assert job.log_count == 3
    found = store.lines(claim.id)
    assert found == [LogLine("one", 1), LogLine("zwei ☃", 2), LogLine("three\ufffd", 3)]
    assert store.lines(claim.id, after=1) == found[1:]
    assert store.lines(claim.id, limit=2) == found[:2]
    assert store.lines(claim.id, after=2, limit=5) == found[2:]
    assert store.lines(claim.id, limit=0) == []


def test_a_large_report_is_taken_whole(store: JobStore) -> None:
    claim = running(store)
    lines = [*numbered(*(f"line {i}" for i in range(2100))), LogLine("x" * 1_500_000, 2101)]
    job = store.report(claim, Report(2500, values(*range(1, 2501)), lines), LONG)
    assert (job.metric_count, job.log_count, job.current_episode) == (2500, 2101, 2500)
    assert [value.step for value in store.metrics(claim.id)] == list(range(1, 2501))
    assert store.lines(claim.id, limit=9999) == lines
