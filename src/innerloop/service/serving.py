"""The service in one process, with its workers beside it."""

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from innerloop.core.errors import InputError
from innerloop.service.api.app import create_app
from innerloop.service.api.events import EventStream
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.jobs.store import JobStore
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
        # Absolute, since a job's process runs elsewhere.
        library = None if self.library is None else self.library.absolute()
        return WorkerSettings(name, self.path.absolute(), library, lease)


class Server(uvicorn.Server):
    """A server that ends the streams of events before it waits for the ends of all answers.

    Args:
        config: of the server.
        stream: the application's.
    """

    def __init__(self, config: uvicorn.Config, stream: EventStream) -> None:
        super().__init__(config)
        self._stream = stream

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops serving."""
        await self._stream.close()
        await super().shutdown(sockets)


def server_of(store: JobStore, folder: Path, settings: ServiceSettings) -> Server:
    """The service on a store, ready to run.

    Args:
        store: of jobs; it stays open.
        folder: of the jobs' own folders.
        settings: how it is reached.
    """
    app = create_app(store, folder, settings)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
    )
    return Server(config, app.state.stream)


def serve(home: Home, settings: ServiceSettings, workers: int, lease: float) -> None:
    """Serves until SIGTERM or SIGINT; jobs in hand are saved then, and go on when it serves again.

    Args:
        home: where it keeps what it has.
        settings: how it is reached.
        workers: processes that run jobs, one at a time each.
        lease: seconds that a job stays a worker's without a word from it.

    Raises:
        InputError: the store's address is wrong, or nothing can listen at the host and port.
        StoreUnavailable: the database does not answer.
    """
    with listening(settings) as listener:
        store = open_store(home.address, home.database)
        try:
            server = server_of(store, home.worker("service", lease).jobs, settings)
            processes = WorkerProcesses(workers, _arguments(home, lease), _environment(home))
            try:
                name = f"[{settings.host}]" if ":" in settings.host else settings.host
                root = f"http://{name}:{listener.getsockname()[1]}"
                logger.info("dashboard: %s/  API: %s/docs", root, root)
                with _surviving_termination():
                    server.run(sockets=[listener])
            finally:
                processes.close(home.worker("service", lease).grace + 10)
        finally:
            store.close()


@contextmanager
def listening(settings: ServiceSettings) -> Iterator[socket.socket]:
    """A socket at the settings' host and port.

    Raises:
        InputError: there is no such host, or the port is taken.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, number, _, address = found[0]
        listener = socket.socket(family, kind, number)
    except (OSError, UnicodeError) as error:
        raise InputError(f"there is no host {settings.host}: {error}") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # Now, not when all else is ready: until then a second service could be bound here, too.
            listener.listen(2048)
        except OSError as error:
            raise InputError(
                f"cannot listen at port {settings.port} of {settings.host}: {error.strerror}"
            ) from error
        yield listener


@contextmanager
def _surviving_termination() -> Iterator[None]:
    """SIGTERM ends what is done within, not the process: workers and store are left in order then.

    The server sends itself again, once it has stopped, the signal that stopped it.
    """
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _arguments(home: Home, lease: float) -> list[str]:
    library = [] if home.library is None else ["--library", str(home.library)]
    return ["--home", str(home.path), "--lease", f"{lease:g}", *library]


def _environment(home: Home) -> dict[str, str]:
    named = {"INNERLOOP_STORE": home.address, "MONGODB_DATABASE": home.database or ""}
    # Workers and the jobs' processes do not speak with the service, so its token is none of theirs.
    return {name: value for name, value in named.items() if value} | {"INNERLOOP_TOKEN": ""}
