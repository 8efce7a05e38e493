"""Accuracy on validation classes while training, read back from the runs of a comparison."""

import json
from dataclasses import dataclass
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.fewshot.artifacts import INFO_FILE

ACCURACY = "eval/accuracy"


@dataclass(frozen=True)
class Curve:
    """One run's.

    Args:
        name: of the run's folder.
        points: training episodes, increasing, and the accuracy after them, inductive.
    """

    name: str
    points: tuple[tuple[int, float], ...]


def read_curves(folder: Path) -> list[Curve]:
    """Those of the runs that are folders of a comparison, by name; runs that measured nothing are left out.

    Raises:
        InputError: a run is damaged.
    """
    curves = []
    for metrics in sorted(folder.glob("*/metrics.jsonl")):
        info = metrics.parent / "latest" / INFO_FILE
        if not info.exists():
            continue  # nothing finished yet, or not of few-shot training
        try:
            per_step = int(json.loads(info.read_text(encoding="utf-8"))["config"]["train"]["per_step"])
            rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
            points = tuple((row["step"] * per_step, row[ACCURACY]) for row in rows if ACCURACY in row)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"the run {metrics.parent} is damaged ({error}); train it again") from error
        if points:
            curves.append(Curve(metrics.parent.name, points))
    return curves
