"""Reading files while another process appends to them."""

import codecs
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from innerloop.core.errors import InputError
from innerloop.service.jobs.job import LogLine, MetricValue

MOST_AT_ONCE = 2000
"""Lines taken in one reading, so that no report becomes too large."""

MOST_ROWS_AT_ONCE = 200
"""The same of metrics, whose rows hold a value of each."""

LONGEST_LINE = 4000
"""Bytes of a log's line; a longer one goes on in the next."""

LONGEST_ROW = 2**20
"""Bytes of a row of metrics; a longer one is no such row."""


class LineTail:
    """Gives the whole lines of a file that were not given before.

    Args:
        path: of the file; it need not be there yet.
        longest: bytes of a line; a longer one comes in pieces of about that length. Where they are cut
            depends on the file alone: whoever reads it from its beginning finds the same pieces.
        most: lines given at once.
    """

    def __init__(self, path: Path, longest: int, most: int) -> None:
        self._path, self._longest, self._most = path, longest, most
        self._offset = 0
        self._node: int | None = None

    def read(self, ended: bool = False) -> list[str]:
        """The next lines, in their order; those of a file put in this one's place, from its beginning.

        Args:
            ended: whether nothing is written any more, so that what has no line's end is a line, too.
        """
        try:
            with self._path.open("rb") as file:
                self._notice_another(file.fileno())
                file.seek(self._offset)
                lines: list[str] = []
                while len(lines) < self._most and (line := self._next(file, ended)) is not None:
                    lines.append(line)
                return lines
        except FileNotFoundError:
            return []

    def _next(self, file: BinaryIO, ended: bool) -> str | None:
        file.seek(self._offset)
        line = file.readline(self._longest)
        whole = line.endswith(b"\n")
        if not line or not (whole or ended or len(line) == self._longest):
            return None
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = decoder.decode(line, final=whole or len(line) < self._longest)
        # A letter that the cut goes through belongs to the next piece.
        self._offset += len(line) - len(decoder.getstate()[0])
        return text.rstrip("\r\n")

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
        named: gives a metric's name in the store; none for one that is not kept.
    """

    def __init__(self, path: Path, named: Callable[[str], str | None]) -> None:
        self._path, self._named = path, named
        self._lines = LineTail(path, LONGEST_ROW, MOST_ROWS_AT_ONCE)

    def read(self) -> list[MetricValue]:
        """The next values.

        Raises:
            InputError: a row is damaged.
        """
        try:
            return [value for line in self._lines.read() for value in self._values(line)]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{self._path} has a damaged row ({type(error).__name__}: {error})") from error

    def _values(self, line: str) -> list[MetricValue]:
        row = json.loads(line)
        step = int(row.pop("step"))
        named = [(self._named(name), float(value)) for name, value in row.items()]
        return [MetricValue(step, name, value) for name, value in named if name is not None]


class LogTail:
    """Gives the lines of a log that were not given before, numbered.

    Args:
        path: of the log.
        done: lines that are in the store already.
    """

    def __init__(self, path: Path, done: int) -> None:
        self._lines = LineTail(path, LONGEST_LINE, MOST_AT_ONCE)
        self._number, self._done = 0, done

    def read(self, ended: bool = False) -> list[LogLine]:
        """The next lines.

        Args:
            ended: see :meth:`LineTail.read`.
        """
        found = []
        for line in self._lines.read(ended):
            self._number += 1
            if self._number > self._done:
                # Of a line that was written over again and again, as progress bars are, the last is left.
                shown = line.rpartition("\r")[2]
                # A database's text holds no NUL.
                found.append(LogLine(shown.replace("\0", "\ufffd"), self._number))
        return found
