"""Real database servers for the tests: Debian's PostgreSQL, and SecantusDB, which speaks MongoDB's protocol.

SecantusDB is under the GPL; it runs as a process of its own and nothing of it is imported.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pymongo
from pymongo.errors import PyMongoError

PASSWORD = "geheim/1@"
START_SECONDS = 60

_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def postgres_programs() -> Path | None:
    """The folder of the newest PostgreSQL server of this machine, if it has one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


@contextlib.contextmanager
def postgres_server(programs: Path, folder: Path) -> Iterator[str]:
    """A PostgreSQL server with its data in the folder; gives its address, which names no database yet.

    The server does not wait for the disk: what the tests kill is connections and clients, not the machine.
    """
    user = _other_user(folder)
    data, port = folder / "data", free_port()
    secret = folder / "password"
    secret.write_text(PASSWORD)
    made = [programs / "initdb", "--no-sync", "-U", "innerloop", "-A", "scram-sha-256", "-E", "UTF8"]
    made += ["--locale=C.UTF-8", f"--pwfile={secret}", "-D", data]
    subprocess.run(made, user=user, check=True, capture_output=True, timeout=START_SECONDS, cwd=folder)
    asked = {"fsync": "off", "full_page_writes": "off", "max_connections": 200, "shared_buffers": "32MB"}
    settings = [part for name, value in asked.items() for part in ("-c", f"{name}={value}")]
    command = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder, *settings]
    url = f"postgresql://innerloop:geheim%2F1%40@127.0.0.1:{port}"
    with _process(command, folder, user, signal.SIGQUIT):
        _wait(lambda: psycopg.connect(f"{url}/postgres").close(), psycopg.OperationalError)
        yield url


def end_connections(url: str) -> int:
    """Ends all connections to a PostgreSQL database; how many there were."""
    with psycopg.connect(url, autocommit=True) as connection:
        return len(connection.execute(_OTHERS).fetchall())


def empty_postgres(url: str) -> None:
    """Empties a PostgreSQL database, which is a lot faster than making a new one."""
    end_connections(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


@contextlib.contextmanager
def mongo_server(folder: Path) -> Iterator[str]:
    """A server of MongoDB's protocol with its data in the folder; gives its address without a database."""
    port = free_port()
    command = [Path(sys.executable).with_name("secantusd-py"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--storage-path", folder / "data", "--cache-size", "64M", "--log-level", "ERROR"]
    url = f"mongodb://127.0.0.1:{port}"
    with _process(command, folder, None, signal.SIGKILL):

        def ping() -> None:
            with pymongo.MongoClient(url, serverSelectionTimeoutMS=500) as client:
                client.admin.command("ping")

        _wait(ping, PyMongoError)
        yield url


class Wire:
    """A way to a server that can be cut.

    Args:
        port: of the server, on the loopback interface.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Its own port, to connect to in place of the server's."""
        port: int = self._listener.getsockname()[1]
        return port

    def cut(self) -> None:
        """Ends all connections; new ones can be made."""
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends all connections and lets no new ones be made."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._open += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _other_user(folder: Path) -> str | None:
    """Whose server it is: PostgreSQL refuses to run as root, who then hands the folder over."""
    if os.getuid() != 0:
        return None
    shutil.chown(folder, "postgres")
    return "postgres"


@contextlib.contextmanager
def _process(
    command: Sequence[str | Path], folder: Path, user: str | None, end: signal.Signals
) -> Iterator[None]:
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, user=user, cwd=folder)
    try:
        yield
    finally:
        # At once: nobody wants its data any more.
        process.send_signal(end)
        process.wait()


def _wait(attempt: Callable[[], None], expected: type[Exception]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return attempt()
        except expected:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
