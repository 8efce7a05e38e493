"""A job's metrics in Weights & Biases, if the worker's environment asks for it: one run a job.

A process of its own talks to W&B. Whether it is slow, fails, or was never installed, costs the charts there
and nothing else: the worker never waits for it.
"""

import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

from innerloop.service.jobs.job import Job, MetricValue
from innerloop.service.kinds import KINDS
from innerloop.service.work.folder import JobFolder
from innerloop.service.work.process import SECRETS

logger = logging.getLogger(__name__)

WAITING = 1000
"""Batches of values that may wait for W&B; what comes on top is left out there."""


NOT_FOR_WANDB = tuple(name for name in SECRETS if not name.startswith("WANDB_"))
"""Variables that W&B has no need of."""


class Mirror(Protocol):
    """Where values go besides the store."""

    def log(self, values: Sequence[MetricValue]) -> None:
        """Passes values on; returns at once."""

    def run_id(self) -> str | None:
        """Of the W&B run, once there is one."""

    def close(self) -> None:
        """Nothing follows; what still waits may take its time without anybody waiting for it."""


class NoMirror:
    """Values go nowhere else."""

    def log(self, values: Sequence[MetricValue]) -> None:
        """Nothing."""

    def run_id(self) -> str | None:
        """None."""
        return None

    def close(self) -> None:
        """Nothing."""


def mirror_of(folder: JobFolder, job: Job) -> Mirror:
    """W&B's mirror of a job where ``WANDB_MODE`` or ``WANDB_API_KEY`` asks for it, else none."""
    mode = os.environ.get("WANDB_MODE", "")
    if mode == "disabled" or not (mode or os.environ.get("WANDB_API_KEY")):
        return NoMirror()
    if find_spec("wandb") is None:
        logger.warning(
            "WANDB_* variables are set, but wandb is not installed: pip install 'innerloop[wandb]'; job %s "
            "runs without it",
            job.id,
        )
        return NoMirror()
    return WandbMirror(folder, job)


class WandbMirror:
    """See the module's text.

    Args:
        folder: of the job; W&B's files are kept in it.
        job: its name becomes the run's.
    """

    def __init__(self, folder: JobFolder, job: Job) -> None:
        self._folder, self._job = folder, job
        self._waiting: queue.Queue[Sequence[MetricValue]] = queue.Queue(WAITING)
        self._closed = threading.Event()
        self._left_out = False
        threading.Thread(target=self._run, daemon=True).start()

    def log(self, values: Sequence[MetricValue]) -> None:
        """See :class:`Mirror`."""
        if not values:
            return
        try:
            self._waiting.put_nowait(values)
        except queue.Full:
            if not self._left_out:
                logger.warning("W&B is too slow for job %s; some values are left out there", self._job.id)
            self._left_out = True

    def run_id(self) -> str | None:
        """See :class:`Mirror`."""
        mirrored = self._folder.mirrored()
        return None if mirrored is None else mirrored.run_id

    def close(self) -> None:
        """See :class:`Mirror`."""
        self._closed.set()

    def _run(self) -> None:
        job, folder = self._job, self._folder
        try:
            self._send(self._start())
        except OSError as error:  # a pipe broken by its end, too
            logger.warning("W&B gave up on job %s (%s); see %s", job.id, error, folder.wandb_log)

    def _start(self) -> "subprocess.Popen[str]":
        environment = {name: value for name, value in os.environ.items() if name not in NOT_FOR_WANDB}
        with self._folder.wandb_log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "innerloop.service.work.wandb_process", str(self._folder.path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                text=True,
            )

    def _send(self, process: "subprocess.Popen[str]") -> None:
        job, line = self._job, process.stdin
        assert line is not None  # it was asked for
        content = KINDS[job.kind].content
        shown = {name: value for name, value in job.settings.items() if name not in content}
        about = {
            "project": os.environ.get("WANDB_PROJECT", "innerloop"),
            "experiment": job.name,
            "config": {"job": job.id, "kind": job.kind, **shown},
        }
        with line:
            print(json.dumps(about), file=line, flush=True)
            while (values := self._next()) is not None:
                rows: dict[int, dict[str, float]] = {}
                for value in values:
                    rows.setdefault(value.step, {})[value.name] = value.value
                for step, row in rows.items():
                    print(json.dumps([step, row]), file=line, flush=True)
        # Here, so that it does not stay as a process that has ended and nobody asked about.
        process.wait()

    def _next(self) -> Sequence[MetricValue] | None:
        """What waited longest; none when nothing follows."""
        while True:
            try:
                return self._waiting.get(timeout=0.2)
            except queue.Empty:
                if self._closed.is_set():
                    return None
