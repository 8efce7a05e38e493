"""Where metrics go. The core writes JSON lines always; other sinks stand in ``innerloop.tracking``."""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from innerloop.core.errors import InputError

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
        self.path = folder / METRICS_FILE
        with _failure_named(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                kept = [row for row in read_metrics(self.path) if row["step"] <= start_step]
                temporary = self.path.with_suffix(".tmp")
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
                temporary.replace(self.path)
            # Unbuffered, so that a line which a full disk refuses is not tried again on closing.
            self._file = self.path.open("ab", buffering=0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one line.

        Raises:
            InputError: if it cannot be written, for example on a full disk.
        """
        line = (json.dumps({"step": step, **metrics}) + "\n").encode()
        with _failure_named(self.path):
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

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
    """The rows of a metrics file. A half-written last line, left by a kill, is not a row.

    Raises:
        InputError: if another line is damaged.
    """
    rows = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number != len(lines):
                raise InputError(
                    f"{path}, line {number}, is not JSON: {error}; take that line out, or move the file away"
                ) from error
    return rows


@contextmanager
def _failure_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write the metrics file {path}: {error.strerror or error}; free some space or choose "
            "another trainer.default_local_dir, then run again to resume"
        ) from error
