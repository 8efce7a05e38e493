"""The process that talks to W&B for one job: ``python -m innerloop.service.work.wandb_process FOLDER``.

The first line of its input tells of the job, each of the others holds a step and its values.
"""

import json
import sys
from pathlib import Path

from innerloop.service.work.folder import JobFolder


def main(folder: JobFolder) -> None:
    """Passes on what comes until nothing comes any more."""
    from innerloop.tracking.wandb import WandbTracker

    about = json.loads(sys.stdin.readline())
    tracker = WandbTracker(
        folder.wandb, about["project"], about["experiment"], about["config"], about["start_step"]
    )
    for line in sys.stdin:
        step, values = json.loads(line)
        tracker.log(step, values)
    tracker.close()


if __name__ == "__main__":
    main(JobFolder(Path(sys.argv[1])))
