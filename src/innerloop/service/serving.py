"""The service in one process, with its workers beside it."""

import logging
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from innerloop.service.api.app import create_app
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.stores.opening import open_store
from innerloop.service.work.running import WorkerProcesses
from innerloop.service.work.settings import WorkerSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Home:
    """Where a service keeps what it has.

    Args:
        path: the folder.
        store: the address of the store of jobs; none takes a SQLite file in the folder.
        database: MongoDB's, where the address names none.
        library: the folder with ``models/`` and ``data/`` that requests may name.
    """

    path: Path
    store: str | None = None
    database: str | None = None
    library: Path | None = None

    @property
    def address(self) -> str:
        """Of the store."""
        return self.store or f"sqlite:///{self.path.absolute() / 'jobs.sqlite'}"

    def worker(self, name: str, lease: float) -> WorkerSettings:
        """The settings of a worker.

        Args:
            name: of the worker.
            lease: seconds.
        """
        return WorkerSettings(name, self.path.absolute(), self.library, lease)


def serve(home: Home, settings: ServiceSettings, workers: int, lease: float) -> None:
    """Serves until SIGTERM or SIGINT; jobs in hand are saved then, and go on when it serves again.

    Args:
        home: where it keeps what it has.
        settings: how it is reached.
        workers: processes that run jobs, one at a time each.
        lease: seconds that a job stays a worker's without a word from it.

    Raises:
        InputError: the store's address is wrong.
        StoreUnavailable: the database does not answer.
    """
    store = open_store(home.address, home.database)
    processes = WorkerProcesses(workers, _arguments(home, lease), _environment(home))
    try:
        app = create_app(store, home.worker("service", lease).jobs, settings)
        # Long streams end by themselves when the service closes; nobody waits for those that do not.
        config = uvicorn.Config(
            app, settings.host, settings.port, log_level="warning", timeout_graceful_shutdown=5
        )
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        logger.info(
            "dashboard: http://%s:%d/  API: http://%s:%d/docs", name, settings.port, name, settings.port
        )
        uvicorn.Server(config).run()
    finally:
        processes.close(home.worker("service", lease).grace + 10)
        store.close()


def _arguments(home: Home, lease: float) -> list[str]:
    library = [] if home.library is None else ["--library", str(home.library)]
    return ["--home", str(home.path), "--lease", f"{lease:g}", *library]


def _environment(home: Home) -> dict[str, str]:
    named = {"INNERLOOP_STORE": home.address, "MONGODB_DATABASE": home.database or ""}
    return {name: value for name, value in named.items() if value}
