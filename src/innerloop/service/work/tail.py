"""Reading files while another process appends to them."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from innerloop.service.jobs.job import LogLine, MetricValue

MOST_AT_ONCE = 2000
"""Lines taken in one reading, so that no report becomes too large."""

LONGEST_LINE = 4000
"""Letters of a line that are kept."""


class LineTail:
    """Gives the whole lines of a file that were not given before.

    Args:
        path: of the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._node: int | None = None

    def read(self) -> list[str]:
        """The next lines, in their order; those of a file put in this one's place, from its beginning."""
        try:
            with self._path.open("rb") as file:
                self._notice_another(file.fileno())
                file.seek(self._offset)
                lines: list[str] = []
                while len(lines) < MOST_AT_ONCE and (line := file.readline()).endswith(b"\n"):
                    self._offset += len(line)
                    lines.append(line.decode("utf-8", errors="replace").rstrip("\r\n"))
                return lines
        except FileNotFoundError:
            return []

    def _notice_another(self, descriptor: int) -> None:
        # A run that is resumed writes its metrics file anew, without the rows past its checkpoint.
        found = os.fstat(descriptor)
        if self._node not in (None, found.st_ino) or found.st_size < self._offset:
            self._offset = 0
        self._node = found.st_ino


class MetricTail:
    """Gives the values of a metrics file that were not given before.

    Args:
        path: of the file.
        named: the job's name for a metric of its run; none for one that is left out.
    """

    def __init__(self, path: Path, named: Callable[[str], str | None]) -> None:
        self._lines, self._named = LineTail(path), named

    def read(self) -> list[MetricValue]:
        """The next values."""
        values = []
        for line in self._lines.read():
            row = json.loads(line)
            step = int(row.pop("step"))
            for name, value in row.items():
                if (known := self._named(name)) is not None:
                    values.append(MetricValue(step, known, float(value)))
        return values


class LogTail:
    """Gives the lines of a log that were not given before, numbered.

    Args:
        path: of the log.
        done: lines that are in the store already.
    """

    def __init__(self, path: Path, done: int) -> None:
        self._lines, self._number, self._done = LineTail(path), 0, done

    def read(self) -> list[LogLine]:
        """The next lines."""
        found = []
        for line in self._lines.read():
            self._number += 1
            if self._number > self._done:
                # A database's text holds no NUL.
                found.append(LogLine(line[:LONGEST_LINE].replace("\0", "\ufffd"), self._number))
        return found
