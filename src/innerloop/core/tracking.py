"""Where metrics go. The core writes JSON lines always; other sinks stand in ``innerloop.tracking``."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

METRICS_FILE = "metrics.jsonl"


class Tracker(Protocol):
    """Takes the metrics of each step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of one step, counted from 1."""

    def close(self) -> None:
        """Nothing follows."""


class JsonlTracker:
    """One JSON object a step, appended and flushed at once.

    Args:
        folder: where ``metrics.jsonl`` is; made if missing.
        start_step: the step the run starts after. Rows past it were written by a run that died before
            saving; they are dropped, and so is a half-written last line.
    """

    def __init__(self, folder: Path, start_step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS_FILE
        if self.path.exists():
            kept = [row for row in read_metrics(self.path) if row["step"] <= start_step]
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
            temporary.replace(self.path)
        self._file = self.path.open("a")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one line."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Forces the lines to disk."""
        os.fsync(self._file.fileno())
        self._file.close()


class Fanout:
    """Passes every step's metrics to several trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = tuple(trackers)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """To each tracker in turn."""
        for tracker in self.trackers:
            tracker.log(step, metrics)

    def close(self) -> None:
        """Each tracker in turn."""
        for tracker in self.trackers:
            tracker.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file. A half-written last line, left by a kill, is not a row."""
    rows = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number != len(lines) - 1:
                raise
    return rows
