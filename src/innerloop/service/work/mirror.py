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
from innerloop.service.work.folder import JobFolder

logger = logging.getLogger(__name__)

WAITING = 1000
"""Batches of values that may wait for W&B; what comes on top is left out there."""


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
        self._waiting: queue.Queue[Sequence[MetricValue] | None] = queue.Queue(WAITING)
        threading.Thread(target=self._send, daemon=True).start()

    def log(self, values: Sequence[MetricValue]) -> None:
        """See :class:`Mirror`."""
        if values:
            self._put(values)

    def run_id(self) -> str | None:
        """See :class:`Mirror`."""
        path = self._folder.wandb_run_id
        return path.read_text(encoding="utf-8").strip() if path.exists() else None

    def close(self) -> None:
        """See :class:`Mirror`."""
        self._put(None)

    def _put(self, values: Sequence[MetricValue] | None) -> None:
        try:
            self._waiting.put_nowait(values)
        except queue.Full:
            logger.warning("W&B is too slow for job %s; some values are left out there", self._job.id)

    def _send(self) -> None:
        job, folder = self._job, self._folder
        about = {
            "project": os.environ.get("WANDB_PROJECT", "innerloop"),
            "experiment": job.name,
            "start_step": job.current_episode,
            "config": {"job": job.id, "kind": job.kind, **job.settings},
        }
        with folder.wandb_log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "innerloop.service.work.wandb_process", str(folder.path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        assert process.stdin is not None  # it was asked for
        try:
            print(json.dumps(about), file=process.stdin, flush=True)
            while (values := self._waiting.get()) is not None:
                rows: dict[int, dict[str, float]] = {}
                for value in values:
                    rows.setdefault(value.step, {})[value.name] = value.value
                for step, row in rows.items():
                    print(json.dumps([step, row]), file=process.stdin, flush=True)
            process.stdin.close()
        except BrokenPipeError:
            logger.warning("W&B gave up on job %s; %s tells why", job.id, folder.wandb_log)
