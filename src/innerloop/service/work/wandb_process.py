"""The process that talks to W&B for one job: ``python -m innerloop.service.work.wandb_process FOLDER``.

The first line of its input tells of the job, each of the others holds a step and its values. A job that goes
on continues its W&B run after the last step that was logged there.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
from pathlib import Path

from filelock import FileLock

from innerloop.service.work.folder import JobFolder, Mirrored

SECONDS_TO_END = 180.0
"""Given to W&B after the job's last values; a process that hangs must not stay for ever."""

Lines = queue.Queue[str | None]


def main(folder: JobFolder) -> None:
    """Passes on what comes until nothing comes any more."""
    lines: Lines = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    # The process of the attempt before may still be sending.
    folder.wandb.mkdir(exist_ok=True)
    with FileLock(folder.wandb / ".lock"):
        _mirror(folder, lines)


def _read(lines: Lines) -> None:
    """Takes what comes at once, however slow W&B is, and so sees the end of it."""
    for line in sys.stdin:
        lines.put(line)
    lines.put(None)
    time.sleep(SECONDS_TO_END)
    os._exit(1)


def _mirror(folder: JobFolder, lines: Lines) -> None:
    from innerloop.tracking.wandb import WandbTracker

    about = json.loads(lines.get() or "{}")
    before = folder.mirrored()
    last = before.step if before is not None else 0
    # Past step 0 the tracker continues the folder's run, if there is one: a job has one run.
    tracker = WandbTracker(folder.wandb, about["project"], about["experiment"], about["config"], start_step=1)
    if (run := tracker.run_id) is None:
        return
    folder.mirror(Mirrored(run, last))
    while (line := lines.get()) is not None:
        step, values = json.loads(line)
        # All values of a job come again when it goes on.
        if step > last:
            tracker.log(step, values)
            folder.mirror(Mirrored(run, step))
    tracker.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    main(JobFolder(Path(sys.argv[1])))
