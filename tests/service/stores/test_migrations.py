"""Old tables that become new ones, whoever opens them at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pymongo
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, inspect, make_url, text

from innerloop.core.errors import InputError
from innerloop.service.jobs.job import Kind, Lease, LogLine, MetricValue
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Claim, IdempotencyKey
from innerloop.service.stores.availability import Address
from innerloop.service.stores.engines import postgres_engine, sqlite_engine
from innerloop.service.stores.opening import open_store
from innerloop.service.stores.tables import metadata
from innerloop.service.stores.upgrading import upgrade
from service.stores.made_up import LONG, go, made_up, result, start

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
OLD_JOB = {
    "kind": "meta-tasks",
    "name": "Prüfung",
    "description": "",
    "settings": '{"seed":1}',
    "total_episodes": 100,
    "keep": False,
    "version": 3,
    "current_episode": 7,
    "metrics": '{"loss":NaN}',
    "metric_count": 1,
    "log_count": 1,
}
"""What all jobs of the old store have in common, as its columns were then."""


@pytest.fixture(params=["sqlite", "postgres"])
def sql_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    name = url.removeprefix("sqlite:///")
    engine = sqlite_engine(Path(name)) if name != url else postgres_engine(make_url(url))
    yield engine
    engine.dispose()


def an_old_store(url: str) -> None:
    """Tables of the first revision with four jobs: ``queued`` later than ``earlier``, one held, one over."""
    with engine_of(url) as engine:
        upgrade(engine, Address(url), to="0001")
        sqlite = engine.dialect.name == "sqlite"

        def moment(minutes: int) -> object:
            # As the store's own type writes it.
            when = START + timedelta(minutes=minutes)
            return when.strftime("%Y-%m-%d %H:%M:%S.%f") if sqlite else when

        with engine.begin() as connection:
            for name, state, created, updated, token in (
                ("over", "completed", 0, 50, 2),
                ("queued", "queued", 1, 30, None),
                ("earlier", "queued", 2, 20, None),
                ("held", "running", 3, 40, 5),
            ):
                row = {
                    "id": name,
                    "state": state,
                    "created_at": moment(created),
                    "updated_at": moment(updated),
                }
                if token is not None:
                    row |= {"lease_worker": "old", "lease_token": token, "lease_until": moment(10)}
                names, marks = ", ".join(OLD_JOB | row), ", :".join(OLD_JOB | row)
                connection.execute(text(f"INSERT INTO jobs ({names}) VALUES (:{marks})"), OLD_JOB | row)
                connection.execute(text(f"INSERT INTO metrics VALUES ('{name}', 7, 'loss', NULL, 1)"))
                connection.execute(text(f"INSERT INTO log_lines VALUES ('{name}', 1, 'ünï')"))
            connection.execute(text("INSERT INTO idempotency_keys VALUES ('once', 'print', 'queued')"))


def columns(connection: Connection) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns("jobs")}


def test_the_migrations_arrive_at_the_tables_that_the_store_uses(sql_url: str) -> None:
    open_store(sql_url).close()
    with engine_of(sql_url) as engine, engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_an_old_store_is_brought_up_to_date_without_loss(sql_url: str) -> None:
    an_old_store(sql_url)
    store = open_store(sql_url)
    assert [job.id for job in store.page(None).jobs] == ["held", "earlier", "queued", "over"]
    held = store.get("held")
    assert held is not None
    assert held.lease == Lease("old", 5, START + timedelta(minutes=10))
    assert (held.created_at, held.version, held.current_episode) == (START + timedelta(minutes=3), 3, 7)
    assert (held.name, held.settings, held.losses) == ("Prüfung", {"seed": 1}, 0)
    assert str(held.metrics) == "{'loss': nan}"
    for name in ("held", "earlier", "queued", "over"):
        (value,) = store.metrics(name)
        assert str(value) == str(MetricValue(7, "loss", float("nan"), 1))
        assert store.lines(name) == [LogLine("ünï", 1)]
    assert store.counts()[Kind.META, State.QUEUED] == 2
    assert store.create(made_up(), IdempotencyKey("once", "print")).id == "queued"
    # The lost one was due first, then the queued ones in the order in which they were queued.
    claims = [store.claim("new", LONG, 3) for _ in range(4)]
    assert claims == [Claim("held", "new", 6), Claim("earlier", "new", 1), Claim("queued", "new", 1), None]
    store.close()


def test_opening_again_changes_nothing(sql_url: str) -> None:
    an_old_store(sql_url)
    store = open_store(sql_url)
    before = store.page(None)
    store.close()
    again = open_store(sql_url)
    assert str(again.page(None)) == str(before)  # in which a NaN equals itself
    again.close()


def test_a_migration_that_fails_leaves_everything_as_it_was(sql_url: str) -> None:
    an_old_store(sql_url)
    with engine_of(sql_url) as engine:
        with engine.begin() as connection:
            connection.execute(text("CREATE INDEX jobs_due ON jobs (state)"))
        with pytest.raises(InputError, match=r"cannot be made a store of jobs: .*already exists"):
            open_store(sql_url)
        with engine.begin() as connection:
            assert not columns(connection) & {"losses", "due_at"}
            assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0001"
            connection.execute(text("DROP INDEX jobs_due"))
    store = open_store(sql_url)
    assert store.page(None).total == 4
    store.close()


def test_a_store_of_a_newer_version_is_refused(sql_url: str) -> None:
    open_store(sql_url).close()
    with engine_of(sql_url) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        InputError, match="is of revision '9999', which this innerloop does not know"
    ) as caught:
        open_store(sql_url)
    assert "geheim" not in str(caught.value)


def test_a_mongo_store_of_a_newer_version_is_refused(mongo_url: str) -> None:
    open_store(mongo_url).close()
    with pymongo.MongoClient(mongo_url) as client:
        client.get_default_database()["schema"].update_one({"_id": "jobs"}, {"$set": {"revision": 99}})
    with pytest.raises(InputError, match="is of revision 99, which this innerloop does not know"):
        open_store(mongo_url)


def test_services_that_start_at_once_on_a_new_store_do_not_race(store_url: str) -> None:
    services = [start("opened", store_url) for _ in range(3)]
    go(*services)
    assert [result(service) for service in services] == [0] * 3


def test_services_that_start_at_once_on_an_old_store_do_not_race(sql_url: str) -> None:
    an_old_store(sql_url)
    services = [start("opened", sql_url) for _ in range(3)]
    go(*services)
    assert [result(service) for service in services] == [4] * 3
    store = open_store(sql_url)
    assert len(store.lines("held")) == 1
    store.close()
