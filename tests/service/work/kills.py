"""A service that is killed in part and as a whole, and somebody who watches what its jobs' processes do."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from innerloop.service.jobs.job import Job
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore, StoreUnavailable
from service.servers import end_connections, free_port

from .at_work import log, now, rows, submit, until

Disturbing = Callable[[random.Random], None]

LEASE = 3.0
SITE = Path(__file__).with_name("stand_in_site")


class Patient:
    """A store that is asked again when it was away, for those who only look on.

    Args:
        store: this.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            deadline = time.monotonic() + 120
            while True:
                try:
                    return method(*arguments, **named)
                except StoreUnavailable:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)

        return call


def innerloop(
    home: Path, url: str, stand_in: bool, *arguments: str, output: str = "serve.log"
) -> "subprocess.Popen[bytes]":
    """Starts the command in a process of its own.

    Args:
        home: of the service.
        url: of its store.
        stand_in: whether the light program does the jobs.
        arguments: of the command.
        output: the file in the home for what it prints.
    """
    source = Path(sys.modules["innerloop"].__file__ or "").parents[1]
    paths = [str(SITE)] * stand_in + [str(source)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "INNERLOOP_STORE": url}
    command = [sys.executable, "-m", "innerloop", *arguments, "--home", str(home), "--lease", f"{LEASE:g}"]
    home.mkdir(parents=True, exist_ok=True)
    with (home / output).open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


class Service:
    """``innerloop serve`` with its workers, in processes of their own.

    Args:
        home: its home.
        url: of its store.
        stand_in: whether the light program does the jobs.
    """

    def __init__(self, home: Path, url: str, stand_in: bool) -> None:
        self.home, self._url, self._stand_in = home, url, stand_in
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        port = ("--port", str(free_port()))
        return innerloop(self.home, self._url, self._stand_in, "serve", "--workers", "2", *port)

    def workers(self) -> list[int]:
        """The processes of its workers."""
        return [pid for pid, words in processes(self.home) if "worker" in words]

    def kill(self) -> None:
        """SIGKILL, and it is started again at once, beside what is left of the one before."""
        self._process.kill()
        self._process.wait()
        self._process = self._start()

    def close(self) -> None:
        """Ends it in an orderly way, and waits for all that belonged to it or to one that was killed."""
        self._process.terminate()
        self._process.wait(240)
        until(lambda: not list(processes(self.home)))


def processes(home: Path) -> Iterator[tuple[int, list[str]]]:
    """Processes that have to do with a home, with their command lines."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            words = (entry / "cmdline").read_text(errors="replace").split("\0")
            if any(word.startswith(str(home)) for word in words):
                yield int(entry.name), words


@dataclass
class Watcher:
    """Looks again and again which processes write to a job's metrics file; a training holds it open.

    Args:
        home: of the jobs.
        seen: processes by job.
        together: pairs that were seen at the same time with the file of the same job.
        looks: how often.
        at_work: processes that were seen in the last look.
    """

    home: Path
    seen: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    together: list[tuple[str, set[int]]] = field(default_factory=list)
    looks: int = 0
    at_work: int = 0

    @contextmanager
    def watching(self) -> Iterator["Watcher"]:
        """Looks until the block ends."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.03):
                self.look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()

    def look(self) -> None:
        """Looks once."""
        open_now: dict[str, set[int]] = defaultdict(set)
        for pid, _ in processes(self.home):
            for job in written_by(pid):
                open_now[job].add(pid)
        self.looks += 1
        self.at_work = sum(map(len, open_now.values()))
        for job, pids in open_now.items():
            self.seen[job] |= pids
            # A look takes a while: one process may have ended before another, seen later, began.
            if len(pids) > 1 and sum(job in written_by(pid) for pid in pids) > 1:
                self.together.append((job, pids))


def written_by(pid: int) -> Iterator[str]:
    """The jobs whose metrics file a process has open to write to; a worker only reads it, now and then."""
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = descriptor.readlink()
                flags = (
                    Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text().split("flags:")[1].split()[0]
                )
                # A file that was put in another's place shows where it was before.
                at_work = target.name.startswith("metrics.jsonl") and "jobs" in target.parts
                if at_work and int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                    yield target.parent.parent.name


@dataclass
class Rounds:
    """Jobs that run while something is killed again and again.

    Args:
        store: of the jobs.
        words: of a job.
        settings: of a job.
        at_once: jobs that wait or run.
        resumed: how many failed and were resumed.
        seed: of the moments.
    """

    store: JobStore
    words: str
    settings: dict[str, object]
    at_once: int = 3
    seed: int = 0
    jobs: list[Job] = field(default_factory=list)
    resumed: int = 0

    def run(self, disturb: Disturbing, rounds: int, longest: float, watcher: "Watcher") -> None:
        """Disturbs so many times, at random moments, and waits until all jobs are done.

        Args:
            disturb: does it.
            rounds: how often.
            longest: seconds before each; in three rounds of four from a moment on at which jobs are at work.
            watcher: knows whether they are.
        """
        moments = random.Random(self.seed)
        for number in range(rounds):
            self._refill()
            if number % 4 != 3:
                until(lambda: self._refill() or watcher.at_work)
            time.sleep(moments.uniform(0, longest))
            disturb(moments)
        until(self._done, 600)

    def _refill(self) -> None:
        """Lets new jobs wait in the place of those that are done."""
        states = [now(self.store, job).state for job in self.jobs]
        for _ in range(self.at_once - sum(not state.over for state in states)):
            self.jobs.append(submit(self.store, self.words, **self.settings))

    def _done(self) -> bool:
        time.sleep(0.3)
        states = [now(self.store, job) for job in self.jobs]
        for job in states:
            if job.state is State.FAILED:
                print(f"job {job.id} failed: {job.error_message}")
                self.resumed += self.store.move(job.id, State.FAILED, State.QUEUED) is not None
        return all(job.state is State.COMPLETED for job in states)

    def check(self, expected: list[tuple[int, str, float]], watcher: Watcher) -> None:
        """All jobs completed, with all rows once, and none was run twice at once."""
        assert not watcher.together
        for job in self.jobs:
            assert rows(self.store, job) == expected
            log(self.store, job)
            assert now(self.store, job).current_episode == expected[-1][0]
        assert set(watcher.seen) == {job.id for job in self.jobs}


def kill_worker(service: Service) -> Disturbing:
    """SIGKILL of one of the workers."""

    def disturb(moments: random.Random) -> None:
        workers = until(service.workers)
        with suppress(ProcessLookupError):
            os.kill(moments.choice(workers), signal.SIGKILL)

    return disturb


def kill_service(service: Service) -> Disturbing:
    """SIGKILL of the service; its workers and their jobs' processes must end by themselves, see ``close``."""

    def disturb(_: random.Random) -> None:
        service.kill()

    return disturb


def hold_sqlite(file: Path) -> Disturbing:
    """Another process holds the lock for writing."""

    def disturb(moments: random.Random) -> None:
        connection = sqlite3.connect(file, timeout=30, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(moments.uniform(0.5, 1.7 * LEASE))
        connection.execute("ROLLBACK")
        connection.close()

    return disturb


def end_sessions(url: str) -> Disturbing:
    """PostgreSQL ends all connections."""

    def disturb(_: random.Random) -> None:
        end_connections(url)

    return disturb


class Server:
    """A database server that was started with its data in a folder, found by that.

    Args:
        folder: this.
        by: the signal that ends it at once.
    """

    def __init__(self, folder: Path, by: signal.Signals) -> None:
        self._folder, self._by = folder, by
        self._started: list[subprocess.Popen[bytes]] = []

    def restart(self, seconds: float) -> None:
        """Ends it and starts it again after some seconds."""
        data = str(self._folder / "data")
        pid, words = next(found for found in processes(self._folder) if data in found[1])
        owner = Path(f"/proc/{pid}").stat().st_uid
        os.kill(pid, self._by)
        for started in self._started:
            started.wait()
        until(lambda: _gone(pid))
        time.sleep(seconds)
        with (self._folder / "server.log").open("ab") as output:
            self._started.append(
                subprocess.Popen(words[:-1], user=owner, cwd=self._folder, stdout=output, stderr=output)
            )

    def close(self) -> None:
        """Ends it for good."""
        for started in self._started:
            started.terminate()
            started.wait(60)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def restart_server(server: Server) -> Disturbing:
    """The database's server is gone for a moment, sometimes for longer than a lease."""

    def disturb(moments: random.Random) -> None:
        server.restart(moments.uniform(0.2, 1.7 * LEASE))

    return disturb
