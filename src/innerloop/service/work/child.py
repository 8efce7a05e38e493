"""The process of one job: ``python -m innerloop.service.work.child FOLDER --lease SECONDS``.

It knows nothing of the store. It reads its order, works in its folder, and leaves an outcome there: completed
with results, or failed with one line. An exit without an outcome is a crash, except with status 130, which
says that it was asked to stop and can go on.
"""

import argparse
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from innerloop.core.errors import InnerloopError, Interrupted
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Outcome
from innerloop.service.kinds import KINDS
from innerloop.service.work import lifeline
from innerloop.service.work.folder import JobFolder

logger = logging.getLogger(__name__)

INTERRUPTED = 130
NICENESS = 10
"""By which a job's process stands back."""
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux is told how much a session stands back, if it weighs sessions."""
LONGEST_ERROR = 2000
"""Letters of an error that are kept; all of it is in the log."""


def main(arguments: list[str]) -> int:
    """Does the job; gives the exit status."""
    parser = argparse.ArgumentParser(description="Runs the job of a folder; started by a worker.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lease", type=float, required=True, help="seconds")
    options = parser.parse_args(arguments)
    # Some of the lease is left for saving, and for the clocks of two machines.
    lifeline.hold(0.7 * options.lease)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    stand_back()
    folder = JobFolder(options.folder)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        # A process that lost its worker may still be saving.
        with FileLock(folder.lock, timeout=options.lease + lifeline.GRACE):
            return _work(folder)
    except Interrupted as ending:
        print(f"interrupted: {ending}", flush=True)
        return INTERRUPTED
    except Timeout:
        print(f"another process works in {folder.path}; it did not stop in time", flush=True)
        return lifeline.LOST


def stand_back() -> None:
    """Lets whoever answers requests on this machine go first."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)
    # Linux may share out the processor by sessions first, and by niceness only within each. A job has a
    # session of its own; where it has not, the session is not its to move.
    if AUTOGROUP.exists() and os.getsid(0) == os.getpid():
        try:
            AUTOGROUP.write_text(str(NICENESS))
        except OSError as error:
            logger.warning("this job's session does not stand back: %s", error)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Stops what is not a run yet, or not any more; a run notes the signal by itself and saves first."""
    raise Interrupted("SIGTERM received outside the run")


def _work(folder: JobFolder) -> int:
    # One that lost its worker may have ended, and said how, while this one waited for it.
    folder.forget_outcome()
    order = folder.order()
    kind = KINDS[order.kind]
    try:
        run = kind.load()
        finished = run(kind.request.model_validate(order.settings), folder.place(order))
        model = None if finished.model is None else str(finished.model)
        results = finished.results.model_dump(mode="json")
        folder.answer(Outcome(State.COMPLETED, results=results, model_path=model))
    except Interrupted:
        raise
    except InnerloopError as error:
        _fail(folder, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the job's owner is to read it
        traceback.print_exc()
        _fail(folder, f"{type(error).__name__}: {error}")
    return 0


def _fail(folder: JobFolder, message: str) -> None:
    line = " ".join(message.split())[:LONGEST_ERROR]
    print(f"failed: {line}", flush=True)
    folder.answer(Outcome(State.FAILED, error_message=line))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
