"""Connections that break and databases that do not answer."""

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import make_url, text

from innerloop.service.jobs.job import LogLine
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import IdempotencyKey, JobStore, Outcome, Report, StoreUnavailable
from innerloop.service.stores import engines
from innerloop.service.stores.availability import Address
from innerloop.service.stores.engines import postgres_engine
from innerloop.service.stores.opening import open_store
from innerloop.service.stores.sql import available
from service.servers import Wire, end_connections, free_port
from service.stores.made_up import LONG, made_up, now, queued, running, values

T = TypeVar("T")
ROUNDS = 20


@pytest.fixture(params=["postgres", "mongo"])
def wired(request: pytest.FixtureRequest) -> Iterator[tuple[Wire, str]]:
    """A wire to a server and the address of an empty database behind it."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    address = make_url(url)
    assert address.port is not None
    wire = Wire(address.port)
    through = url.replace(f":{address.port}/", f":{wire.port}/")
    if request.param == "mongo":
        # Else the client would go where the server says it is.
        through += "?directConnection=true&serverSelectionTimeoutMS=100"
    yield wire, through
    wire.close()


def patiently(call: Callable[[], T]) -> T:
    """What a call gives, made again as often as the store is not there."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def test_a_worker_whose_connections_are_cut_loses_and_doubles_nothing(wired: tuple[Wire, str]) -> None:
    wire, url = wired
    store, dice, over = open_store(url), random.Random(5), threading.Event()
    claim = running(store)

    def cut() -> None:
        for _ in range(ROUNDS):
            time.sleep(dice.uniform(0.005, 0.05))
            wire.cut()
        over.set()

    cutter = threading.Thread(target=cut)
    cutter.start()
    step = 0
    while not over.is_set():
        step += 1
        told = [*values(step), *values(step, name="reward")]
        report = Report(step, told, [LogLine(f"step {step}", step)])
        patiently(lambda report=report: store.report(claim, report, LONG))  # type: ignore[misc]
    cutter.join()
    found = patiently(lambda: store.metrics(claim.id))
    assert [value.number for value in found] == list(range(1, 2 * step + 1))
    assert [(value.step, value.name) for value in found] == [
        (i, name) for i in range(1, step + 1) for name in ("loss", "reward")
    ]
    assert [line.text for line in store.lines(claim.id)] == [f"step {i}" for i in range(1, step + 1)]
    assert store.finish(claim, Outcome(State.COMPLETED)).current_episode == step
    store.close()


def test_creations_with_a_key_happen_once_though_connections_are_cut(wired: tuple[Wire, str]) -> None:
    wire, url = wired
    store, dice = open_store(url), random.Random(6)

    def cut() -> None:
        # Not for ever: on a busy machine nothing might be done between two cuts.
        for _ in range(3 * ROUNDS):
            time.sleep(dice.uniform(0.002, 0.03))
            wire.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    for i in range(ROUNDS):
        key = IdempotencyKey(f"key {i}", "print")
        patiently(lambda key=key: store.create(made_up(), key))  # type: ignore[misc]
    cutter.join()
    assert patiently(lambda: store.page(None)).total == ROUNDS
    store.close()


def test_a_server_that_is_gone_and_back_is_no_more_than_unavailable(wired: tuple[Wire, str]) -> None:
    wire, url = wired
    store = open_store(url)
    claim = running(store)
    wire.close()
    calls: list[Callable[[], object]] = [
        lambda: store.get(claim.id),
        lambda: store.page(None),
        lambda: store.create(made_up()),
        lambda: store.move(claim.id, State.RUNNING, State.PAUSING),
        lambda: store.claim("w", LONG, 3),
        lambda: store.report(claim, Report(1, values(1)), LONG),
        lambda: store.finish(claim, Outcome(State.COMPLETED)),
        lambda: store.metrics(claim.id),
        lambda: store.lines(claim.id),
        lambda: store.delete(claim.id),
        store.counts,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="does not answer") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert "geheim" not in str(caught.value)
    store.close()


def test_postgres_may_end_all_connections(postgres_url: str) -> None:
    store = open_store(postgres_url)
    claim = running(store)
    for step in range(1, 4):
        assert end_connections(postgres_url) > 0
        report = Report(step, values(step))
        patiently(lambda report=report: store.report(claim, report, LONG))  # type: ignore[misc]
    assert [value.step for value in store.metrics(claim.id)] == [1, 2, 3]
    store.close()


def test_postgres_ends_a_transaction_that_its_client_stopped_in(postgres_url: str) -> None:
    engine = postgres_engine(
        make_url(postgres_url).update_query_dict(
            {"options": "-c idle_in_transaction_session_timeout=100ms", "connect_timeout": "5"}
        )
    )

    def dawdle() -> None:
        with available(Address(postgres_url)), engine.begin() as connection:
            connection.execute(text("SELECT 1"))
            time.sleep(0.3)
            connection.execute(text("SELECT 1"))

    with pytest.raises(StoreUnavailable, match="idle"):
        dawdle()
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_postgres_sessions_end_idle_transactions_and_do_not_wait_for_ever(postgres_url: str) -> None:
    engine = postgres_engine(make_url(postgres_url))
    with engine.begin() as connection:
        assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "30s"
        assert connection.scalar(text("SHOW lock_timeout")) == "30s"
    engine.dispose()


def test_a_wrong_password_is_not_told(postgres_url: str) -> None:
    wrong = postgres_url.replace("geheim", "falsch")
    with pytest.raises(StoreUnavailable, match="password authentication failed") as caught:
        open_store(wrong)
    assert "falsch" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "mongodb"])
@pytest.mark.parametrize("password", ["secret", "se%2Fcret", "se%40cret%3A", "se+cret%20x"])
def test_a_password_is_not_told_when_nobody_answers(scheme: str, password: str) -> None:
    more = "?serverSelectionTimeoutMS=100" if scheme == "mongodb" else ""
    with pytest.raises(StoreUnavailable) as caught:
        open_store(f"{scheme}://somebody:{password}@127.0.0.1:{free_port()}/jobs{more}")
    assert "cret" not in str(caught.value)
    assert "somebody" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sqlite_waits_for_its_turn_and_says_so_when_it_waited_too_long(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_SECONDS", 2)
    store = open_store(sqlite_url)
    job = queued(store)
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    assert store.get(job.id) == job
    with pytest.raises(StoreUnavailable, match="database is locked"):
        store.move(job.id, State.QUEUED, State.PAUSED)
    threading.Timer(0.2, other.execute, ["ROLLBACK"]).start()
    assert store.move(job.id, State.QUEUED, State.PAUSED) is not None
    other.close()
    store.close()


def test_readers_and_writers_of_sqlite_meet_no_lock(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    claim = running(store)
    over, troubles = threading.Event(), []

    def watch(reader: JobStore) -> None:
        try:
            while not over.is_set():
                reader.page(None)
                reader.metrics(claim.id, after=reader.get(claim.id).metric_count - 5)  # type: ignore[union-attr]
                reader.claim("idle", LONG, 3)
        except Exception as error:  # noqa: BLE001 - any of them is a failure of this test
            troubles.append(error)

    others = [open_store(sqlite_url) for _ in range(2)]
    threads = [threading.Thread(target=watch, args=(reader,)) for reader in 2 * [store, *others]]
    for thread in threads:
        thread.start()
    for step in range(1, 31):
        store.report(claim, Report(step, values(step)), LONG)
        others[0].report(claim, Report(step, values(step, name="other")), LONG)
    over.set()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert now(store, claim).metric_count == 60
    for opened in (store, *others):
        opened.close()
