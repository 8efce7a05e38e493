"""Child processes that compare mathematical answers, each comparison under a hard time limit.

math-verify limits its own time with SIGALRM, which works in the main thread only and cannot stop C code; so
every comparison runs in a child process that may be lost. The child's side is ``grading_worker``; which
answers come here, and what they look like, is decided in ``graders``.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import LifoQueue
from types import TracebackType

from innerloop.core.errors import InnerloopError

logger = logging.getLogger(__name__)
WORKER = Path(__file__).with_name("grading_worker.py")
MOST_PROCESSES = 8


class GradingPool:
    """Compares answers in child processes, which start when first needed and end with ``close``.

    A comparison that outlives its time or crashes its process counts as wrong, is logged, and costs that
    process alone. The pool may be used from any thread, and from several at once. Should the program die
    without closing it, the children see their input end and go too, a hanging one at the end of its time.

    Args:
        processes: how many children at most; None for one a core, up to eight.
        seconds: time allowed for one comparison; starting a child does not count.
    """

    def __init__(self, processes: int | None = None, seconds: float = 10.0) -> None:
        self._size = processes if processes is not None else min(os.cpu_count() or 1, MOST_PROCESSES)
        if self._size < 1 or not seconds > 0:
            raise ValueError(f"a grading pool needs a process and time, not {self._size} and {seconds} s")
        self._seconds = seconds
        # Last in, first out: a short batch keeps to the children that are already warm.
        self._idle: LifoQueue[_Worker] = LifoQueue()
        self._workers = [_Worker(seconds) for _ in range(self._size)]
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self) -> "GradingPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each response ends in its gold expression.

        Args:
            pairs: (gold expression in ``$`` or ``\\boxed``, response) for each comparison.

        Returns:
            One verdict for each pair, in their order; False where the comparison gave none.

        Raises:
            InnerloopError: a child process cannot start.
        """
        if not pairs:
            return []
        with ThreadPoolExecutor(min(self._size, len(pairs)), "grading") as threads:
            verdicts = list(threads.map(self._compare_one, pairs))
        lost = verdicts.count(None)
        if lost:
            logger.warning(
                "%d of %d answers could not be compared within %g s each and count as wrong",
                lost,
                len(pairs),
                self._seconds,
            )
        return [verdict is True for verdict in verdicts]

    def close(self) -> None:
        """Ends the child processes; a later ``compare`` would start new ones."""
        for worker in self._workers:
            worker.stop()

    def _compare_one(self, pair: tuple[str, str]) -> bool | None:
        worker = self._idle.get()
        try:
            return worker.compare(*pair)
        finally:
            self._idle.put(worker)


class _Worker:
    """One child process, started on the first comparison and again after it was lost."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def compare(self, gold: str, response: str) -> bool | None:
        """The verdict, or None if the child ended over it."""
        process = self._process if self._process is not None else self._start()
        request = json.dumps([gold, response, self._seconds])
        reply = _exchange(process, request)
        if not reply:
            self.stop()
            return None
        return bool(json.loads(reply))

    def stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            # Waits, closes the pipes, and so leaves neither a zombie nor an open file.
            process.communicate()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            # -P: the folder of the worker's file must not shadow other modules' names.
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            # SymPy's route to an answer may follow the hash order; the same answer must get the same verdict.
            env={**os.environ, "PYTHONHASHSEED": "0"},
            # Ctrl-C at a terminal asks the run to stop in order, not its children to die in mid-answer.
            start_new_session=True,
        )
        self._process = process
        if not _exchange(process, None):
            self.stop()
            raise InnerloopError(
                f"the process that compares mathematical answers ended with exit code {process.returncode} "
                f"as it started; see why with: {sys.executable} -c 'import math_verify'"
            )
        return process


def _exchange(process: "subprocess.Popen[str]", request: str | None) -> str:
    """Sends the line, if there is one, and returns the next that comes back; empty from a dead child."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if request is not None:
            process.stdin.write(request + "\n")
            process.stdin.flush()
        return process.stdout.readline()
    except BrokenPipeError:
        return ""
