"""The process of a job, real but for its work: a light program that the job's description tells what to do.

``steps:20`` does so many steps, each saved, as long as no signal stops it, and goes on where it stopped. The
other words are what may go wrong.
"""

import os
import signal
import sys
import time
from dataclasses import replace

from innerloop.core.errors import InputError
from innerloop.core.files import write_whole
from innerloop.core.signals import StopRequest
from innerloop.core.tracking import JsonlTracker
from innerloop.service.jobs.job import Kind
from innerloop.service.kinds import KINDS
from innerloop.service.kinds.kind import Finished, Place, Results
from innerloop.service.kinds.tasks import TrainingRequest
from innerloop.service.work import child

SECONDS_A_STEP = 0.03


class Said(Results):
    """What comes of it."""

    steps: int


def run(request: TrainingRequest, place: Place) -> Finished[Said]:
    """Does what the words say, one after the other."""
    place.run.mkdir(exist_ok=True)
    done = 0
    with StopRequest() as stop:
        for word in request.description.split():
            name, _, value = word.partition(":")
            if name == "steps":
                done = _steps(int(value), place, stop)
            else:
                WORDS[name](value, place)
    return Finished(Said(steps=done), place.run)


def _steps(last: int, place: Place, stop: StopRequest) -> int:
    saved = place.run / "latest"
    start = int(saved.read_text()) if saved.exists() else 0
    tracker = JsonlTracker(place.run, start)
    for step in range(start + 1, last + 1):
        time.sleep(SECONDS_A_STEP)
        tracker.log(step, {"meta/loss": 1 / step, "perf/seconds": time.time()})
        write_whole(saved, str(step))
        stop.check()
    tracker.close()
    return last


def _crash(value: str, place: Place) -> None:
    """Ends with a status, so many times in all."""
    status, _, times = value.partition("x")
    counted = place.folder / "crashes"
    before = len(counted.read_text()) if counted.exists() else 0
    if not times or before < int(times):
        counted.write_text("." * (before + 1))
        print("half a line", end="", flush=True)
        os._exit(int(status))


def _fail(value: str, _: Place) -> None:
    raise InputError(f"no such {value}")


def _deaf(_value: str, place: Place) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (place.folder / "deaf").touch()
    time.sleep(600)


def _say(value: str, _: Place) -> None:
    print(f"{value} is {os.environ.get(value)}", flush=True)


def _damage(_: str, place: Place) -> None:
    with (place.run / "metrics.jsonl").open("a") as file:
        file.write("no row\n")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(600)


def _until(value: str, place: Place) -> None:
    """Waits for a file."""
    while not (place.folder / value).exists():
        time.sleep(0.02)


WORDS = {"until": _until, "crash": _crash, "fail": _fail, "deaf": _deaf, "say": _say, "damage": _damage}

if __name__ == "__main__":
    KINDS[Kind.TASKS] = replace(KINDS[Kind.TASKS], runs="__main__:run", results=Said)
    sys.exit(child.main(sys.argv[1:]))
