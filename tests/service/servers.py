"""Real database servers for the tests: Debian's PostgreSQL, and SecantusDB, which speaks MongoDB's protocol.

SecantusDB is under the GPL; it runs as a process of its own and nothing of it is imported.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymongo
from pymongo.errors import PyMongoError

PASSWORD = "geheim/1@"
START_SECONDS = 60


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

    It does not wait for the disk: what the tests kill is connections and clients, not the machine.
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
    with _process(command, folder, user):
        _wait(lambda: psycopg.connect(f"{url}/postgres").close(), psycopg.OperationalError)
        yield url


@contextlib.contextmanager
def mongo_server(folder: Path) -> Iterator[str]:
    """A server of MongoDB's protocol with its data in the folder; gives its address without a database."""
    port = free_port()
    command = [Path(sys.executable).with_name("secantusd-py"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--storage-path", folder / "data", "--cache-size", "64M", "--log-level", "ERROR"]
    url = f"mongodb://127.0.0.1:{port}"
    with _process(command, folder, None):

        def ping() -> None:
            with pymongo.MongoClient(url, serverSelectionTimeoutMS=500) as client:
                client.admin.command("ping")

        _wait(ping, PyMongoError)
        yield url


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
def _process(command: list[str | Path], folder: Path, user: str | None) -> Iterator[None]:
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, user=user, cwd=folder)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(attempt, expected: type[Exception]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return attempt()
        except expected:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
