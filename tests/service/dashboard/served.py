"""A real service with its workers, in processes of its own, and the jobs that tests ask it for."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from innerloop.service.jobs.job import Kind
from innerloop.service.kinds import KINDS

START_SECONDS = 120
JOB_SECONDS = 180


@dataclass(frozen=True)
class Service:
    """Where a service is.

    Args:
        address: as a browser is given it.
        client: calls the service without a browser.
    """

    address: str
    client: httpx.Client

    def job(self, kind: Kind, start: bool = True, **changes: object) -> dict[str, Any]:
        """Makes a job: the kind's example, with changes."""
        body = {**KINDS[kind].example, **changes}
        answer = self.client.post(f"/api/training/{kind}", json=body)
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        if start:
            assert self.client.post(f"{path(job)}/start").status_code == 200
        return job

    def over(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The job, once nothing happens to it any more."""
        ends = time.monotonic() + JOB_SECONDS
        while time.monotonic() < ends:
            now: dict[str, Any] = self.client.get(path(job)).json()
            if now["state"] in ("completed", "failed", "cancelled"):
                return now
            time.sleep(0.2)
        raise AssertionError(f"the job is still {now['state']} after {JOB_SECONDS} seconds: {now}")


def path(job: Mapping[str, Any]) -> str:
    """Where a job is in the API."""
    return f"/api/training/{job['kind']}/{job['id']}"


@contextlib.contextmanager
def service(folder: Path, workers: int, token: str | None = None) -> Iterator[Service]:
    """A service in a fresh folder at a free port.

    Args:
        folder: for its home and its log.
        workers: of the service.
        token: that it asks for.
    """
    address = f"http://127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "innerloop", "serve", "--home", str(folder / "home")]
    command += ["--port", address.rpartition(":")[2], "--workers", str(workers)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INNERLOOP_")}
    environment |= {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    if token is not None:
        environment["INNERLOOP_TOKEN"] = token
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with (
        (folder / "service.log").open("wb") as log,
        httpx.Client(base_url=address, headers=headers, timeout=60) as client,
    ):
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(client, process, folder / "service.log")
            yield Service(address, client)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/healthz").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"the service did not start:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
