"""Many at once: threads and processes on one store, some of them killed."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import (
    Claim,
    IdempotencyKey,
    JobStore,
    KeyReused,
    LeaseLost,
    Outcome,
    Report,
)
from innerloop.service.stores.opening import open_store
from service.stores.made_up import (
    LONG,
    OVER,
    go,
    made_up,
    now,
    numbered,
    queued,
    result,
    running,
    start,
    values,
)


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What calls give that begin at the same moment."""
    gate = threading.Barrier(len(calls))

    def behind(call: Callable[[], Any]) -> Any:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(behind, calls))


def test_each_job_is_taken_once_by_threads(store: JobStore) -> None:
    jobs = {queued(store).id for _ in range(20)}

    def take() -> list[str]:
        taken = []
        while (claim := store.claim("w", LONG, 3)) is not None:
            taken.append(claim.id)
        return taken

    taken = [name for names in at_once([take] * 6) for name in names]
    assert len(taken) == len(jobs)
    assert set(taken) == jobs


def test_each_job_is_taken_once_by_processes(store: JobStore, store_url: str) -> None:
    jobs = {queued(store).id for _ in range(30)}
    workers = [start("drain", store_url, f"worker {i}") for i in range(3)]
    go(*workers)
    done = [name for worker in workers for name in result(worker)]
    assert len(done) == len(jobs)
    assert set(done) == jobs
    assert store.page(None, [State.COMPLETED]).total == len(jobs)


def test_a_lease_that_ran_out_is_one_worker_s(store: JobStore) -> None:
    first = running(store, OVER)
    claims = [claim for claim in at_once([lambda: store.claim("w", LONG, 9)] * 6) if claim]
    assert claims == [Claim(first.id, "w", first.token + 1)]
    assert now(store, first).losses == 1


def test_of_moves_at_once_one_is_made(store: JobStore) -> None:
    for _ in range(5):
        job = queued(store)
        ends = [State.CANCELLED, State.PAUSED] * 3
        moved = at_once([partial(store.move, job.id, State.QUEUED, to) for to in ends])
        (made,) = [one for one in moved if one is not None]
        assert store.get(job.id) == made
        assert made.version == job.version + 1


def test_a_claim_and_a_move_do_not_both_succeed(store: JobStore) -> None:
    for _ in range(8):
        job = queued(store)
        claim, moved = at_once(
            [partial(store.claim, "w", LONG, 3), partial(store.move, job.id, State.QUEUED, State.CANCELLED)]
        )
        assert (claim is None) != (moved is None)


def test_a_move_is_not_undone_by_a_report_at_the_same_time(store: JobStore) -> None:
    claim = running(store)
    for step in range(1, 9):
        told, moved = at_once(
            [
                partial(store.report, claim, Report(step, values(step)), LONG),
                partial(store.move, claim.id, State.RUNNING, State.PAUSING),
            ]
        )
        assert told.current_episode == step
        assert moved is not None
        assert now(store, claim).state is State.PAUSING
        assert store.finish(claim, Outcome(None)).state is State.PAUSED
        store.move(claim.id, State.PAUSED, State.QUEUED)
        claim = store.claim("w", LONG, 3) or claim
    assert [value.step for value in store.metrics(claim.id)] == list(range(1, 9))


def test_a_key_sent_at_once_creates_one_job(store: JobStore) -> None:
    key = IdempotencyKey("once", "print")
    made = at_once([lambda: store.create(made_up(), key)] * 6)
    assert len({job.id for job in made}) == 1
    assert store.page(None).total == 1


def test_of_different_requests_with_one_key_at_once_one_is_taken(store: JobStore) -> None:
    def ask(print_: str) -> str | None:
        try:
            return store.create(made_up(), IdempotencyKey("once", print_)).id
        except KeyReused:
            return None

    made = at_once([lambda i=i: ask(f"print {i}") for i in range(5)])
    assert len([name for name in made if name is not None]) == 1
    assert store.page(None).total == 1


def test_reports_of_one_worker_at_once_lose_and_double_nothing(store: JobStore) -> None:
    claim = running(store)

    def tell(name: str) -> None:
        for step in range(1, 11):
            store.report(claim, Report(step, [*values(step, name=name), *values(step, name="shared")]), LONG)
            store.report(claim, Report(), LONG)

    at_once([lambda name=name: tell(name) for name in ("a", "b", "c")])
    found = store.metrics(claim.id)
    assert [value.number for value in found] == list(range(1, 41))
    assert len({(value.step, value.name) for value in found}) == 40
    assert now(store, claim).metric_count == 40


def test_who_reads_on_from_the_last_number_misses_nothing(store: JobStore, store_url: str) -> None:
    claim = running(store)
    over = threading.Event()

    def write() -> None:
        try:
            for step in range(0, 150, 3):
                steps = range(step + 1, step + 4)
                lines = numbered(*(f"{i}" for i in steps), start=steps[0])
                store.report(claim, Report(steps[-1], values(*steps), lines), LONG)
        finally:
            over.set()

    def read() -> tuple[list[int], list[int]]:
        other, steps, lines = open_store(store_url), [], []
        last = False
        while not last:
            last = over.is_set()
            while page := other.metrics(claim.id, after=len(steps), limit=7):
                steps += [value.number for value in page]
                assert [value.step for value in page] == [value.number for value in page]
            while some := other.lines(claim.id, after=len(lines), limit=7):
                lines += [line.number for line in some]
        other.close()
        return steps, lines

    for told in at_once([write, read, read]):
        assert told is None or told == (list(range(1, 151)), list(range(1, 151)))


def test_workers_that_are_killed_lose_and_double_nothing(store: JobStore, store_url: str) -> None:
    dice = random.Random(3)
    job = queued(store)
    ready = [start("work", store_url, f"worker {i}") for i in range(5)]
    for worker in ready[:-1]:
        go(worker)
        time.sleep(dice.uniform(0.2, 0.7))
        worker.kill()
        worker.wait()
    go(ready[-1])
    assert result(ready[-1]) != "lost"
    assert store.page(None, [State.COMPLETED]).total == 1
    found = store.metrics(job.id)
    told = {(value.step, value.name): value.value for value in found}
    assert told == {(step, name): step / 8 for step in range(1, 101) for name in ("loss", "reward")}
    assert [value.number for value in found] == list(range(1, 201))
    assert [line.text for line in store.lines(job.id)] == [f"step {i}" for i in range(1, 101)]


def test_a_report_that_comes_with_the_next_claim_is_taken_whole_or_not_at_all(store: JobStore) -> None:
    claim = running(store, OVER)
    for round_ in range(8):
        late = Report(None, values(*range(5), name=f"late {round_}"))
        refused, second = at_once(
            [partial(_refused, store, claim, late), partial(store.claim, "next", OVER, 99)]
        )
        assert len(store.metrics(claim.id, f"late {round_}")) == (0 if refused else 5)
        # PostgreSQL passes over a job that is being reported on.
        second = second or store.claim("next", OVER, 99)
        assert second == Claim(claim.id, "next", claim.token + 1)
        claim = second


def _refused(store: JobStore, claim: Claim, report: Report) -> bool:
    try:
        store.report(claim, report, OVER)
    except LeaseLost:
        return True
    return False
