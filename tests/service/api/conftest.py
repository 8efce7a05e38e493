"""The service on a SQLite store, and a client within this process.

The application is made once, for that is most of what a test would take; every test finds it empty.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from innerloop.service.api.app import create_app
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.jobs.store import JobStore
from innerloop.service.stores.opening import open_store


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps what it has."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="session")
def kept_store(home: Path) -> Iterator[JobStore]:
    """The store of all tests: what the databases do alike is tested elsewhere, so one kind is enough."""
    store = open_store(f"sqlite:///{home}/jobs.sqlite")
    yield store
    store.close()


@pytest.fixture(scope="session")
def app(home: Path, kept_store: JobStore) -> FastAPI:
    """The service, without a token."""
    return create_app(kept_store, home / "jobs", ServiceSettings(poll=0.02))


@pytest.fixture(scope="session")
def kept_client(app: FastAPI) -> Iterator[TestClient]:
    """What calls it by its name."""
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.fixture
def store(kept_store: JobStore, home: Path) -> JobStore:
    """The store, empty."""
    connection = sqlite3.connect(home / "jobs.sqlite", timeout=30)
    with connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM jobs")
    connection.close()
    return kept_store


@pytest.fixture
def folder(home: Path) -> Path:
    """Of the jobs' own folders, empty."""
    folder = home / "jobs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@pytest.fixture
def client(kept_client: TestClient, store: JobStore) -> TestClient:
    """A client of the service, which has no jobs."""
    return kept_client
