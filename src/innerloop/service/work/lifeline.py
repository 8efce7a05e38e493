"""The line between a job's process and its worker: while beats come, the job is theirs.

A process must not go on when its worker lost the job, died, or hangs: another worker may have taken the job.
So the worker sends a beat after each renewal of the lease, and a process that hears none for most of a lease,
or whose line is cut, saves and stops.
"""

import os
import select
import signal
import sys
import threading
import time

BEAT = b"."
GRACE = 20.0
"""Seconds to save in, once a process was asked to stop by its own lifeline."""

LOST = 75
"""The exit status of a process that did not stop in time (EX_TEMPFAIL)."""


def hold(seconds: float) -> None:
    """Watches standard input from now on, in a thread of its own.

    Args:
        seconds: of silence that mean that the job is lost.
    """
    threading.Thread(target=_watch, args=(sys.stdin.fileno(), seconds), daemon=True).start()


def _watch(line: int, seconds: float) -> None:
    while select.select([line], [], [], seconds)[0] and os.read(line, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(LOST)
