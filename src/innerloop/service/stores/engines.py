"""Connections to SQLite and PostgreSQL, set up so that a transaction waits instead of failing."""

import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, DateTime, Engine, create_engine, event, func, select
from sqlalchemy.exc import OperationalError

BUSY_SECONDS = 30
"""How long one waits for a lock that another holds."""

_READS = "innerloop_reads"
_POOL: dict[str, Any] = {"pool_size": 5, "max_overflow": 15, "pool_timeout": BUSY_SECONDS}

_SERVER_CLOCK = func.clock_timestamp(type_=DateTime(timezone=True))

Clock = Callable[[Connection], datetime]
"""Tells the store's time."""


def sqlite_engine(path: Path) -> Engine:
    """An engine on a SQLite file in WAL mode, whose folder is there.

    Raises:
        OperationalError: the file cannot be opened or written to.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS}, **_POOL
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _: object) -> None:
        # Leaves BEGIN to the listener below; Python's own would come late and take no lock.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        # A commit is on the disk when it returns: a job outlives a power cut, not only a kill.
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and then wants to write cannot wait for another writer, SQLite fails
        # it at once; one that takes the lock when it begins waits for its turn.
        reads = connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    _turn_on_wal(path)
    return engine


def postgres_engine(url: URL) -> Engine:
    """An engine on a PostgreSQL database."""
    given = {
        "connect_timeout": 10,
        "keepalives_idle": 15,
        "tcp_user_timeout": 1000 * BUSY_SECONDS,
        # A worker that is stopped amid a transaction must not keep its job locked for ever.
        "options": f"-c idle_in_transaction_session_timeout={BUSY_SECONDS}s -c lock_timeout={BUSY_SECONDS}s",
    }
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={name: value for name, value in given.items() if name not in url.query},
        pool_pre_ping=True,
        **_POOL,
    )


def for_reading(engine: Engine) -> Engine:
    """The same engine for transactions that only read: on SQLite they lock nobody out."""
    return engine.execution_options(**{_READS: True})


def clock(engine: Engine) -> Clock:
    """The time of the database's server, which is the same for all workers; SQLite's is the host's."""
    return _server_time if engine.dialect.name == "postgresql" else _host_time


def _server_time(connection: Connection) -> datetime:
    now: datetime = connection.execute(select(_SERVER_CLOCK)).scalar_one()
    return now.astimezone(UTC)


def _host_time(_: Connection) -> datetime:
    return datetime.now(UTC)


def _turn_on_wal(path: Path) -> None:
    """Sets the file's mode, once for all connections; SQLite does not wait for a lock here, so this does."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise OperationalError("PRAGMA journal_mode = WAL", None, error) from error
            time.sleep(0.02)
        finally:
            connection.close()
