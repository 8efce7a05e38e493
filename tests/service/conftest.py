"""Stores of jobs in every database, each test with a fresh one.

``sqlite_url``, ``postgres_url`` and ``mongo_url`` are addresses of one kind; ``store_url`` runs a test with
each of them, and ``store`` is the store that is there.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from innerloop.service.jobs.store import JobStore
from innerloop.service.stores.opening import open_store
from service.servers import empty_postgres, mongo_server, postgres_programs, postgres_server

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for a server's data: not pytest's, which another user may have no way into."""
    with tempfile.TemporaryDirectory(prefix="innerloop-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_address(server_folder: Path) -> Iterator[str]:
    """A PostgreSQL server, without a database."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (apt-get install postgresql)")
    folder = server_folder / "postgres"
    folder.mkdir()
    with postgres_server(programs, folder) as address:
        yield address


@pytest.fixture(scope="session")
def mongo_address(server_folder: Path) -> Iterator[str]:
    """A server of MongoDB's protocol, without a database."""
    folder = server_folder / "mongo"
    folder.mkdir()
    with mongo_server(folder) as address:
        yield address


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def postgres_url(postgres_address: str) -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
    url = f"{postgres_address}/postgres"
    yield url
    empty_postgres(url)


@pytest.fixture
def mongo_url(mongo_address: str) -> str:
    """The address of an empty MongoDB database; it goes with its server."""
    return f"{mongo_address}/jobs{next(_numbers)}"


@pytest.fixture(params=["sqlite", "postgres", "mongo"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty store of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[JobStore]:
    """An empty store of each kind."""
    store = open_store(store_url)
    yield store
    store.close()
