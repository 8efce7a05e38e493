"""Two processes that train together, kept for all the tests of a session, since each start takes seconds.

A test hands them a function of a module, which both call in the same world; what each returns or raises comes
back. One that hangs fails the test, and the next one gets new processes.
"""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from innerloop.core.parallel import World, joined

LONGEST = 300.0  # seconds; a busy machine is slow, and a hang is forever


@dataclass(frozen=True)
class Outcome:
    """How a function ended in one process."""

    value: Any = None
    error: BaseException | None = None
    trace: str = ""


def _serve(rank: int, count: int, port: int, channel: Connection) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with joined() as world:
        while (order := channel.recv()) is not None:
            function, arguments = order
            try:
                outcome = Outcome(function(world, *arguments))
            except BaseException as error:  # noqa: BLE001  # the test judges it
                outcome = Outcome(error=error, trace=traceback.format_exc())
            channel.send(outcome)


class Processes:
    """So many processes in one world.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._running: list[tuple[BaseProcess, Connection]] = []

    def outcomes(self, function: Callable[..., Any], *arguments: Any) -> list[Outcome]:
        """How ``function(world, *arguments)`` ended in each process, by rank."""
        if not self._running:
            self._start()
        for _, channel in self._running:
            channel.send((function, arguments))
        heard: dict[int, Outcome] = {}
        channels = {channel: rank for rank, (_, channel) in enumerate(self._running)}
        while len(heard) < self.count:
            waiting = [channel for channel, rank in channels.items() if rank not in heard]
            ready = wait(waiting, LONGEST)
            if not ready:
                self.stop()
                raise AssertionError(f"processes {sorted(set(range(self.count)) - set(heard))} hang; {heard}")
            for channel in ready:
                assert isinstance(channel, Connection)
                try:
                    heard[channels[channel]] = channel.recv()
                except EOFError:
                    self.stop()
                    raise AssertionError(f"process {channels[channel]} died; {heard}") from None
        return [heard[rank] for rank in range(self.count)]

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``function(world, *arguments)`` returned in each process, by rank."""
        outcomes = self.outcomes(function, *arguments)
        for rank, outcome in enumerate(outcomes):
            assert outcome.error is None, f"process {rank}: {outcome.trace}"
        return [outcome.value for outcome in outcomes]

    def stop(self) -> None:
        """Ends the processes."""
        for process, channel in self._running:
            process.kill()
            process.join()
            channel.close()
        self._running = []

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["processes", "torch._dynamo", "innerloop.llm.train"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [before])])
        try:
            for rank in range(self.count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(rank, self.count, port, theirs), daemon=True)
                process.start()
                theirs.close()
                self._running.append((process, ours))
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a world of this process alone."""
    return function(World(), *arguments)
