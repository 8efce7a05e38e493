"""Opening a store by its address."""

import sqlite3
from pathlib import Path

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError

from innerloop.core.errors import InputError, missing_extra
from innerloop.service.jobs.store import JobStore
from innerloop.service.stores.availability import Address
from innerloop.service.stores.engines import postgres_engine, sqlite_engine
from innerloop.service.stores.sql import SqlStore, available
from innerloop.service.stores.text import one_line
from innerloop.service.stores.upgrading import upgrade

SCHEMES = ("sqlite", "postgresql", "postgres", "mongodb", "mongodb+srv")


def open_store(url: str, database: str | None = None) -> JobStore:
    """The store at an address, its tables made or brought up to date.

    Args:
        url: ``sqlite:///relative/path``, ``sqlite:////absolute/path``, ``postgresql://...`` or
            ``mongodb://...``.
        database: the name of MongoDB's database, where the address has none.

    Raises:
        InputError: the address is of no known kind, the library for it is missing, or what lies there is no
            store of jobs or a newer one than this version can read.
        StoreUnavailable: the database does not answer.
    """
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise InputError(
            f"'{Address(url)}' is no address of a store; it begins with sqlite:///, postgresql:// or mongodb://"
        )
    if scheme == "sqlite":
        return _open_sqlite(url)
    if scheme in ("postgresql", "postgres"):
        return _open_postgres(url)
    return _open_mongo(url, database)


def _open_sqlite(url: str) -> JobStore:
    name = url.removeprefix("sqlite:///")
    if not url.startswith("sqlite:///") or not name or name == ":memory:":
        raise InputError(f"'{url}' names no file; a SQLite store is given as sqlite:///path")
    path = Path(name).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder of the store {path} cannot be made: {error.strerror}") from error
    address = Address(url)
    with available(address):
        try:
            engine = sqlite_engine(path)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} is no SQLite file that can be used: {one_line(error)}") from error
    return _prepared(engine, address)


def _open_postgres(url: str) -> JobStore:
    try:
        import psycopg  # noqa: F401 - only who asks for it needs it
    except ImportError as error:
        raise missing_extra("psycopg", "postgres") from error
    address = Address(url)
    try:
        parsed = make_url("postgresql" + url[url.index(":") :])
    except (ArgumentError, ValueError) as error:
        raise InputError(f"'{address}' is no address of a PostgreSQL database") from error
    return _prepared(postgres_engine(parsed), address)


def _open_mongo(url: str, database: str | None) -> JobStore:
    try:
        from innerloop.service.stores.mongo import MongoStore
    except ImportError as error:
        raise missing_extra("pymongo", "mongo") from error
    return MongoStore(url, database)


def _prepared(engine: Engine, address: Address) -> JobStore:
    try:
        with available(address):
            upgrade(engine, address)
    except DatabaseError as error:
        engine.dispose()
        told = address.hide(one_line(error.orig or error))
        raise InputError(f"the database {address} cannot be made a store of jobs: {told}") from error
    except BaseException:
        engine.dispose()
        raise
    return SqlStore(engine, address)
