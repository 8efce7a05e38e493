"""Two hundred clients at once on a service that trains: how long reads take, and what memory does.

A real ``innerloop serve`` on loopback with SQLite and two workers, each of which runs a job that is tiny but
for its number of steps. A third of the clients reads lists, a third the details and newest metrics of a
running job, a third its stream of events. As a dashboard does, each reader waits a second, more or less, from
an answer to its next request; a stream stays open, and is opened anew by a few clients at a time. Prints the
errors, the times until answers are whole, and the service's resident memory, and fails where there was an
error, where 95 % of the reads did not take less than 250 ms, or where the memory grew by a fifth after the
first quarter. The clients share the machine with the service and its jobs.
Run: ``python benchmarks/bench_service.py --seconds 60``.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import re
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from innerloop.service.client import Client, RemoteJob

CLIENTS, WORKERS = 200, 2
PAUSE = 1.0
"""Seconds between two requests of a reader, more or less."""

MOST_MILLISECONDS = 250.0
MOST_GROWTH = 1.2
JOB = {
    "task_distribution": {"kubernetes_scaling": {"steps": 10}},
    "total_episodes": 100_000,
    "clusters": 4,
    "evaluation": {"clusters": 1, "episodes": 1, "adaptation_episodes": [0, 1]},
}


@dataclass
class Seen:
    """What the clients saw.

    Args:
        seconds: of each read, by what was read.
        events: of all streams.
        errors: by what they said.
        memory: the service's, in MiB, over time.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"list": [], "detail": [], "metrics": []})
    events: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)

    @property
    def reads(self) -> list[float]:
        """The seconds of all reads, rising."""
        return sorted(second for seconds in self.seconds.values() for second in seconds)


@contextlib.contextmanager
def served(home: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A service; gives its process and address."""
    words = ["--home", str(home), "--port", "0", "--workers", str(WORKERS)]
    with (home / "log").open("w+") as log:
        # What jobs compute beside the service shall be no more than two threads' work.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "innerloop", "serve", *words], stderr=log, env=environment
        )
        try:
            while not (found := re.search(r"dashboard: (http://\S+)/ ", (home / "log").read_text())):
                if process.poll() is not None:
                    raise SystemExit((home / "log").read_text())
                time.sleep(0.1)
            yield psutil.Process(process.pid), found[1]
        finally:
            process.terminate()
            process.wait()


def running(client: Client) -> list[RemoteJob]:
    """As many jobs as there are workers, all at work."""
    jobs = [client.submit("tasks", name=f"long {number}", **JOB) for number in range(WORKERS)]
    while any(job.progress()["current_episode"] == 0 for job in jobs):
        time.sleep(0.5)
    return jobs


async def read(http: httpx.AsyncClient, seen: Seen, asks: Sequence[tuple[str, str]], until: float) -> None:
    """One reader: asks, waits, asks the next."""
    await asyncio.sleep(random.random() * PAUSE)
    for what, path in itertools.cycle(asks):
        if time.monotonic() > until:
            return
        began = time.perf_counter()
        try:
            answer = await http.get(path)
            seen.seconds[what].append(time.perf_counter() - began)
            if answer.status_code != httpx.codes.OK:
                seen.errors[f"{what}: {answer.status_code} {answer.text[:80]}"] += 1
        except httpx.HTTPError as error:
            seen.errors[f"{what}: {error!r}"] += 1
        await asyncio.sleep(PAUSE * random.uniform(0.8, 1.2))


async def listen(http: httpx.AsyncClient, seen: Seen, job: str, until: float) -> None:
    """A reader of events, which comes back from where it was after ten seconds or so."""
    last = ""
    while (left := until - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(min(left, random.uniform(8, 12))):
                headers = {"Last-Event-ID": last} if last else {}
                async with http.stream("GET", f"{job}/events", headers=headers, timeout=None) as answer:
                    async for line in answer.aiter_lines():
                        seen.events += line.startswith("event:")
                        last = line.removeprefix("id: ") if line.startswith("id: ") else last
                seen.errors["stream: ended, though the job goes on"] += 1
        except TimeoutError:
            continue
        except httpx.HTTPError as error:
            seen.errors[f"stream: {error!r}"] += 1


async def weigh(service: psutil.Process, seen: Seen, until: float) -> None:
    """Notes the service's resident memory, without its workers'."""
    while time.monotonic() < until:
        seen.memory.append(service.memory_info().rss / 2**20)
        await asyncio.sleep(0.5)


async def besiege(service: psutil.Process, address: str, jobs: Sequence[RemoteJob], seconds: float) -> Seen:
    """All clients at once."""
    seen, until = Seen(), time.monotonic() + seconds
    paths = [f"/api/training/{job.kind}/{job.id}" for job in jobs]
    # One connection pool each, as two hundred browsers have; none of them needs certificates of its own.
    certificates = ssl.create_default_context()
    async with contextlib.AsyncExitStack() as open_ones:
        clients = [weigh(service, seen, until)]
        for number in range(CLIENTS):
            pool = httpx.AsyncClient(base_url=address, timeout=30, verify=certificates)
            http = await open_ones.enter_async_context(pool)
            job = paths[number % len(paths)]
            if number % 3 == 0:
                clients.append(read(http, seen, [("list", "/api/training/tasks?limit=50")], until))
            elif number % 3 == 1:
                asks = [("detail", job), ("metrics", f"{job}/metrics?limit=500")]
                clients.append(read(http, seen, asks, until))
            else:
                clients.append(listen(http, seen, job, until))
        await asyncio.gather(*clients)
    return seen


def table(seen: Seen, seconds: float) -> Table:
    """The times of the reads."""
    shown = Table(
        "read", "answers", "a second", "p50", "p95", "p99", title=f"{CLIENTS} clients, {seconds:g} s"
    )
    for what, times in [*seen.seconds.items(), ("all", seen.reads)]:
        parts = [f"{1000 * share(sorted(times), part):.0f} ms" for part in (0.5, 0.95, 0.99)]
        shown.add_row(what, str(len(times)), f"{len(times) / seconds:.0f}", *parts)
    return shown


def processor_seconds(process: psutil.Process) -> float:
    """What a process has used so far, without its children."""
    times = process.cpu_times()
    return float(times.user + times.system)


def share(rising: Sequence[float], part: float) -> float:
    """The number that so large a part of some numbers does not exceed."""
    return rising[min(int(part * len(rising)), len(rising) - 1)] if rising else float("nan")


def main() -> int:
    """Prints what was seen; 1 where it is not good enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder)) as (service, address),
        Client(address) as client,
    ):
        jobs = running(client)
        processes = (service, psutil.Process())
        before = [processor_seconds(process) for process in processes]
        seen = asyncio.run(besiege(service, address, jobs, seconds))
        used = [processor_seconds(process) - spent for process, spent in zip(processes, before, strict=True)]
        steps = [job.progress()["current_episode"] for job in jobs]
    console = Console()
    console.print(table(seen, seconds))
    count = len(seen.memory)
    begin, middle, end = seen.memory[0], seen.memory[count // 2], seen.memory[-1]
    console.print(
        f"{seen.events} events; the jobs are at steps {steps}; "
        f"the service took {used[0] / seconds:.0%} of a core, the clients {used[1] / seconds:.0%}; "
        f"resident memory {begin:.0f} MiB at first, {middle:.0f} amid, {end:.0f} at last"
    )
    for error, times in seen.errors.most_common(10):
        console.print(f"{times} times: {error}", markup=False)
    slow = not 1000 * share(seen.reads, 0.95) < MOST_MILLISECONDS
    grown = end > MOST_GROWTH * statistics.median(seen.memory[count // 4 : count // 2 + 1])
    faults = [
        word for word, is_so in (("errors", seen.errors), ("slow", slow), ("memory grows", grown)) if is_so
    ]
    console.print(f"not good enough: {', '.join(faults)}" if faults else "good enough")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
