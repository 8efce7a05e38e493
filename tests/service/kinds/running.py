"""Jobs small enough to run in a test: the documentation's examples, on a model that is made on the spot."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from innerloop.core.tracking import JsonlTracker, read_metrics
from innerloop.service.jobs.job import Kind
from innerloop.service.kinds import KINDS
from innerloop.service.kinds.kind import Finished, Place, SourceJob

TINY_MODEL = "tiny-llama"
"""A folder of the library that the fixture makes."""


def body(kind: Kind, **changes: object) -> dict[str, object]:
    """The kind's example, with the tiny model where it names one, and with changes; ``None`` takes out."""
    example = dict(KINDS[kind].example)
    if "model" in example:
        example["model"] = TINY_MODEL
    return {key: value for key, value in {**example, **changes}.items() if value is not None}


def run(kind: Kind, place: Place, **changes: object) -> Finished[Any]:
    """Runs the example, changed so, in this process."""
    job = KINDS[kind]
    return job.load()(job.request.model_validate(body(kind, **changes)), place)


def source(kind: Kind, finished: Finished[Any], **changes: object) -> SourceJob:
    """A job that was run, as another one is given it."""
    settings = KINDS[kind].request.model_validate(body(kind, **changes)).model_dump(mode="json")
    return SourceJob(settings, finished.model)


@contextmanager
def stopped_at(step: int, by: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """Sends this process a signal when the metrics of a step are written."""
    real = JsonlTracker.log

    def log_and_signal(self: JsonlTracker, number: int, metrics: Mapping[str, float]) -> None:
        real(self, number, metrics)
        if number == step:
            os.kill(os.getpid(), by)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonlTracker, "log", log_and_signal)
        yield


def untimed(value: Any) -> Any:
    """Results or rows without what a clock or the machine's memory had a part in."""
    if isinstance(value, dict):
        return {
            key: untimed(entry)
            for key, entry in value.items()
            if not key.startswith("perf/") and key != "training_seconds"
        }
    return [untimed(entry) for entry in value] if isinstance(value, list) else value


def untimed_results(finished: Finished[Any]) -> Any:
    """The results as JSON has them, untimed."""
    return untimed(finished.results.model_dump(mode="json"))


def untimed_rows(place: Place) -> Any:
    """The rows of the metrics file, untimed."""
    return untimed(read_metrics(place.run / "metrics.jsonl"))


def library(folder: Path, model: Path) -> Path:
    """A library that holds the tiny model."""
    (folder / "models").mkdir(parents=True)
    (folder / "models" / TINY_MODEL).symlink_to(model)
    return folder
