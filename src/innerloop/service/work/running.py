"""Running workers: one in this process, or several as processes that end with the one that started them."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from innerloop.service.jobs.store import JobStore
from innerloop.service.work.settings import WorkerSettings
from innerloop.service.work.worker import Worker

logger = logging.getLogger(__name__)

SECONDS_BETWEEN = 1.0
"""Between two looks at whether a worker has died, and before it is started again."""


def run_worker(store: JobStore, settings: WorkerSettings, while_input: bool) -> None:
    """Works until SIGTERM or SIGINT.

    Args:
        store: of jobs.
        settings: the worker's.
        while_input: whether to stop, too, when standard input ends: the process that holds its other end
            has gone then.
    """
    worker = Worker(store, settings)
    worker.stop_on_signals()
    if while_input:
        threading.Thread(target=_stop_at_end_of_input, args=(worker,), daemon=True).start()
    worker.run()


def _stop_at_end_of_input(worker: Worker) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    worker.stop()


@dataclass
class _Slot:
    """A worker process and its number."""

    number: int
    process: subprocess.Popen[bytes]


class WorkerProcesses:
    """Worker processes that are started again when they die.

    Args:
        count: how many.
        arguments: of ``innerloop worker``.
        environment: for them, on top of this process's own: an address with a password stands in no command
            line.
    """

    def __init__(self, count: int, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-m", "innerloop", "worker", "--while-input", *arguments]
        self._environment = {**os.environ, **environment}
        self._closing = threading.Event()
        self._slots = [_Slot(number, self._start()) for number in range(count)]
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def close(self, seconds: float) -> None:
        """Lets them save what they have in hand.

        Args:
            seconds: after which those that are still there are killed.
        """
        self._closing.set()
        self._watching.join()
        for slot in self._slots:
            slot.process.terminate()
        end = time.monotonic() + seconds
        for slot in self._slots:
            try:
                slot.process.wait(max(end - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                logger.warning("worker %d does not stop; it is killed", slot.number)
                slot.process.kill()
                slot.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # Its own session: a Ctrl-C is the service's, which then ends its workers.
        return subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.PIPE, start_new_session=True
        )

    def _watch(self) -> None:
        while not self._closing.wait(SECONDS_BETWEEN):
            for slot in self._slots:
                status = slot.process.poll()
                if status is not None:
                    logger.warning(
                        "worker %d ended with status %d; another takes its place", slot.number, status
                    )
                    slot.process = self._start()
