"""Workers, the service and the database are killed at random moments, and nothing is lost or done twice.

By default a few rounds with the light program; ``-m slow`` runs twenty of each, with real
training, too.
"""

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore
from innerloop.service.stores.opening import open_store
from innerloop.service.work.worker import Worker
from service.servers import mongo_server, postgres_programs, postgres_server

from .at_work import now, quick, rows, submit
from .kills import (
    Disturbing,
    Patient,
    Rounds,
    Server,
    Service,
    Watcher,
    end_sessions,
    hold_sqlite,
    kill_service,
    kill_worker,
    restart_server,
)

Rows = list[tuple[int, str, float]]

LIGHT_STEPS, REAL_STEPS = 100, 120
TRAINING: dict[str, object] = {
    "total_episodes": REAL_STEPS,
    "clusters": 2,
    "evaluation": {"clusters": 1, "episodes": 1, "adaptation_episodes": [0, 1]},
}
FEW, MANY = 3, 20


def light_rows() -> Rows:
    return [(step, "ppo/loss", 1 / step) for step in range(1, LIGHT_STEPS + 1)]


@pytest.fixture(scope="module")
def real_rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of a training that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    store = open_store(f"sqlite:///{folder}/jobs.db")
    job = submit(store, **TRAINING)
    Worker(store, quick(folder, lease=60.0)).run_one()
    assert now(store, job).state is State.COMPLETED
    found = rows(store, job)
    store.close()
    assert [step for step, name, _ in found if name == "ppo/return"] == list(range(1, REAL_STEPS + 1))
    return found


def endure(
    url: str,
    home: Path,
    rounds: int,
    expected: Rows | None,
    disturbing: Callable[[Service], Disturbing],
) -> None:
    """Runs jobs while something is killed, and checks what came of them; the light program where nothing else
    is expected."""
    began = time.monotonic()
    store = open_store(url)
    patient: JobStore = Patient(store)  # type: ignore[assignment]
    service = Service(home, url, stand_in=expected is None)
    if expected is None:
        job_rounds, longest = Rounds(patient, f"steps:{LIGHT_STEPS}", {}, at_once=2), 1.0
    else:
        job_rounds, longest = Rounds(patient, "", TRAINING), 8.0
    try:
        with Watcher(home).watching() as watcher:
            job_rounds.run(disturbing(service), rounds, longest, watcher)
        job_rounds.check(light_rows() if expected is None else expected, watcher)
    finally:
        service.close()
        store.close()
    trainings = sum(map(len, watcher.seen.values()))
    print(
        f"{rounds} rounds in {time.monotonic() - began:.0f} s: {len(job_rounds.jobs)} jobs, "
        f"{job_rounds.resumed} of them failed and were resumed; {trainings} processes trained, at most one a "
        f"job in {watcher.looks} looks"
    )
    assert "Traceback" not in (home / "serve.log").read_text()


@pytest.fixture
def pg(tmp_path_factory: pytest.TempPathFactory, server_folder: Path) -> Iterator[tuple[str, Server]]:
    """A PostgreSQL server of its own, which may be ended."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (apt-get install postgresql)")
    folder = server_folder / f"postgres-{time.monotonic_ns()}"
    folder.mkdir()
    with postgres_server(programs, folder) as address:
        server = Server(folder, signal.SIGQUIT)
        yield f"{address}/postgres", server
        server.close()


@pytest.fixture
def mongo(server_folder: Path) -> Iterator[tuple[str, Server]]:
    """A server of MongoDB's protocol of its own, which may be ended."""
    folder = server_folder / f"mongo-{time.monotonic_ns()}"
    folder.mkdir()
    with mongo_server(folder) as address:
        server = Server(folder, signal.SIGKILL)
        yield f"{address}/jobs", server
        server.close()


# The light program

often = pytest.mark.parametrize("rounds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])


@often
def test_jobs_outlive_their_workers(sqlite_url: str, home: Path, rounds: int) -> None:
    endure(sqlite_url, home, rounds, None, kill_worker)


@often
def test_jobs_outlive_the_service(sqlite_url: str, home: Path, rounds: int) -> None:
    endure(sqlite_url, home, rounds, None, kill_service)


@often
def test_jobs_outlive_a_locked_sqlite_file(sqlite_url: str, home: Path, rounds: int) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    endure(sqlite_url, home, rounds, None, lambda _: hold_sqlite(file))


@often
def test_jobs_outlive_connections_to_postgres_and_its_server(
    pg: tuple[str, Server], home: Path, rounds: int
) -> None:
    url, server = pg
    endure(url, home, rounds, None, lambda _: in_turn(end_sessions(url), restart_server(server)))


@often
def test_jobs_outlive_a_mongo_server(mongo: tuple[str, Server], home: Path, rounds: int) -> None:
    url, server = mongo
    endure(url, home, rounds, None, lambda _: restart_server(server))


def in_turn(*disturbing: Disturbing) -> Disturbing:
    waiting: list[Disturbing] = []

    def disturb(moments: random.Random) -> None:
        if not waiting:
            waiting.extend(disturbing)
        waiting.pop(0)(moments)

    return disturb


# Real training


@pytest.mark.slow
@pytest.mark.parametrize("disturbing", [kill_worker, kill_service])
def test_training_outlives_twenty_kills(
    store_url: str, home: Path, real_rows: Rows, disturbing: Callable[[Service], Disturbing]
) -> None:
    endure(store_url, home, MANY, real_rows, disturbing)


@pytest.mark.slow
def test_training_outlives_a_sqlite_file_that_is_locked_twenty_times(
    sqlite_url: str, home: Path, real_rows: Rows
) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    endure(sqlite_url, home, MANY, real_rows, lambda _: hold_sqlite(file))


@pytest.mark.slow
def test_training_outlives_twenty_ends_of_postgres(
    pg: tuple[str, Server], home: Path, real_rows: Rows
) -> None:
    url, server = pg
    endure(url, home, MANY, real_rows, lambda _: in_turn(end_sessions(url), restart_server(server)))


@pytest.mark.slow
def test_training_outlives_twenty_ends_of_a_mongo_server(
    mongo: tuple[str, Server], home: Path, real_rows: Rows
) -> None:
    url, server = mongo
    endure(url, home, MANY, real_rows, lambda _: restart_server(server))
