"""Runs of the toy in processes of their own, for tests that kill them or send them signals.

The processes are forked from a server that has imported everything already, so that each starts at once.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from core.toy import RegressionSource, Setup, sources
from innerloop.core.errors import Interrupted
from innerloop.core.params import Params
from innerloop.core.task import Batch, FixedTask
from innerloop.core.trainer import OuterSettings, RunSettings

PAUSE = 0.03  # seconds, in a step and twice while a checkpoint is written
MODEL = "model.txt"

Notice = Callable[[str], None]
"""Told where the run is: "drawing", "adapting" and "writing", each with the number of the step."""


@dataclass(frozen=True)
class WatchedTask(FixedTask):
    """A task that gives notice when it is adapted to."""

    step: int = 0
    notice: Notice = print

    def support(self, step: int, params: Params) -> Batch:
        if step == 0:
            self.notice(f"adapting {self.step}")
        return super().support(step, params)


@dataclass
class WatchedSource(RegressionSource):
    """Gives notice when it draws."""

    notice: Notice = print

    def draw(self) -> FixedTask:
        step = self.position + 1
        self.notice(f"drawing {step}")
        task = super().draw()
        return WatchedTask(task.name, task.support_batches, task.query_batch, step, self.notice)


def watched(folder: Path, total_steps: int, notice: Notice) -> Setup:
    """A run that saves every step, and tells where it is."""

    def export(checkpoint: Path) -> None:
        step = checkpoint.name.removeprefix(".step_").removesuffix(".writing")
        (checkpoint / MODEL).write_text("half of")
        notice(f"writing {step}")
        (checkpoint / MODEL).write_text(f"the model of step {step}")

    return Setup(
        folder,
        tasks=lambda: [WatchedSource(source.name, source.offset, notice=notice) for source in sources()],
        outer=OuterSettings(0.1, total_steps, "adam", schedule="cosine"),
        run=RunSettings(folder, save_every=1, keep=3),
        export=export,
    )


def train_slowly(folder: Path, total_steps: int, channel: Connection) -> None:
    """Trains, telling the channel every moment and pausing at each."""
    torch.set_num_threads(1)

    def notice(where: str) -> None:
        channel.send(where)
        time.sleep(PAUSE)

    watched(folder, total_steps, notice).trainer().fit()


def train_to_a_barrier(folder: Path, total_steps: int, barrier: str, channel: Connection) -> None:
    """Trains; the first time it comes to the moment named it waits to be told to go on. Says how it ended."""
    torch.set_num_threads(1)
    passed = False

    def notice(where: str) -> None:
        nonlocal passed
        if where == barrier and not passed:
            passed = True
            channel.send("here")
            while channel.recv() != "go on":
                channel.send("still here")

    try:
        watched(folder, total_steps, notice).trainer().fit()
        channel.send("finished")
    except Interrupted as stop:
        channel.send(f"stopped: {stop}")
    except KeyboardInterrupt:
        channel.send("stopped at once")


@contextmanager
def started(target: Callable[..., None], *arguments: object) -> Iterator[tuple[BaseProcess, Connection]]:
    """Starts a run; the channel's other end is its last argument. Ends it if it still runs."""
    context = multiprocessing.get_context("forkserver")
    # PyTorch's optimizers import the second one when the first of them is made, which takes seconds.
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    ours, theirs = context.Pipe()
    # The server and its children look for the tests where this process found them.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [before])])
    try:
        process = context.Process(target=target, args=(*arguments, theirs))
        process.start()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()
