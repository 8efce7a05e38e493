"""Reading the parts of a preset's source, from local files or from the hub, with every bad row accounted for.

Presets whose tasks are in the package or made on the spot do without it, and without the hub's libraries.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from innerloop.core.errors import InputError
from innerloop.llm.data.hub import hub_name, hub_records
from innerloop.llm.data.presets.base import Request
from innerloop.llm.data.records import Problem, Record, read_records
from innerloop.llm.data.rows import RowFault


def find_folder(request: Request, folder: str, needed: str) -> Path | None:
    """The local folder that holds a source's files, or None where no local copy was given.

    Args:
        request: its ``source_dir`` is either that folder or the one above it.
        folder: the folder's usual name.
        needed: a file or folder that must be in it.

    Raises:
        InputError: if a local copy was given and it is in neither place.
    """
    if request.source_dir is None:
        return None
    for candidate in (request.source_dir / folder, request.source_dir):
        if (candidate / needed).exists():
            return candidate
    raise InputError(f"--source-dir {request.source_dir}: neither {folder}/{needed} nor {needed} is there")


@dataclass(frozen=True)
class Part:
    """Where some records of a source are: a local file, or a split on the hub.

    Args:
        repository: owner and name on the hub.
        subset: its configuration there, if it has several.
        split: its split there.
        file: the local file, which is read instead if there is one.
    """

    repository: str
    subset: str | None
    split: str
    file: Path | None = None

    @property
    def place(self) -> Path:
        """What a report calls it."""
        return self.file or hub_name(self.repository, self.subset, self.split)

    def records(self) -> Iterator[Record | Problem]:
        """Its records in order."""
        if self.file is not None:
            return read_records(self.file)
        return hub_records(self.repository, self.subset, self.split)


Parsed = TypeVar("Parsed")


class LeftOut(Exception):  # noqa: N818 - it describes a record, and never reaches a user
    """Raised for a record that is sound but not for this task; carries the reason to count it by."""


class Collector:
    """Reads parts of a source and keeps count of what it does not take.

    Attributes:
        problems: the bad rows.
        left_out: sound rows that are not for the task, by reason.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.left_out: Counter[str] = Counter()

    def read(self, part: Part, parse: Callable[[Mapping[str, object]], Parsed | None]) -> list[Parsed]:
        """What ``parse`` makes of each record.

        Args:
            part: what to read.
            parse: gives a value, or None for a record of another task, or raises `LeftOut` or `RowFault`.
        """
        parsed: list[Parsed] = []
        for record in part.records():
            if isinstance(record, Problem):
                self.problems.append(record)
                continue
            try:
                value = parse(record.fields)
            except RowFault as fault:
                self.problems.append(Problem(part.place, record.row, fault.reason, fault.detail))
                continue
            except LeftOut as reason:
                self.left_out[str(reason)] += 1
                continue
            if value is not None:
                parsed.append(value)
        return parsed
