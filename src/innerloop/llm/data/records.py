"""Raw records of parquet, JSON, JSON Lines and CSV files, one at a time, each with its row number.

What a record means is decided in ``rows``. A file that cannot be read at all is an ``InputError`` here; a
record that cannot be read is yielded as a ``Problem``, so that the caller counts it.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from innerloop.core.errors import InputError

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
BATCH_ROWS = 1024


@dataclass(frozen=True)
class Problem:
    """One row that was skipped.

    Args:
        file: the file the row stands in.
        row: its number, counted from 1: the line for JSON Lines, the record for the other formats (a CSV
            header is not a record).
        reason: the kind of damage, in words that stay the same, so that problems can be counted by it.
        detail: what was found in this row.
    """

    file: Path
    row: int
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.reason}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True)
class Record:
    """One readable record and its row number."""

    row: int
    fields: Mapping[str, object]


def read_records(path: Path) -> Iterator[Record | Problem]:
    """Yields every record of a file in order.

    Args:
        path: a ``.parquet``, ``.jsonl``, ``.json`` (a list, or JSON Lines under that name) or ``.csv`` file.

    Raises:
        InputError: if the file is missing, is of no known format, or is broken as a whole.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; a data file is needed"
        )
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path)
    if suffix == ".csv":
        return _csv(path)
    if suffix == ".jsonl":
        return _json_lines(path)
    if suffix == ".json":
        return _json(path) if _starts_with_bracket(path) else _json_lines(path)
    raise InputError(f"{path}: unknown kind of file '{suffix}'; known are {', '.join(SUFFIXES)}")


def _parquet(path: Path) -> Iterator[Record | Problem]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for fields in batch.to_pylist():
                    row += 1
                    yield Record(row, fields)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable parquet file after row {row} ({_brief(error)})") from error


def _json_lines(path: Path) -> Iterator[Record | Problem]:
    # Bytes that are not UTF-8 become lone surrogates, which the check of each text then reports by row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
        for row, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Problem(path, row, "broken JSON", _brief(error))
                continue
            yield _record(path, row, value)


def _json(path: Path) -> Iterator[Record | Problem]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: broken JSON ({_brief(error)})") from error
    for row, value in enumerate(values, start=1):
        yield _record(path, row, value)


def _csv(path: Path) -> Iterator[Record | Problem]:
    row = 0
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise InputError(f"{path}: the header names a column twice: {', '.join(header)}")
            for values in reader:
                if not values:
                    continue
                row += 1
                if len(values) != len(header):
                    detail = f"{len(values)} fields under {len(header)} columns"
                    yield Problem(path, row, "wrong number of fields", detail)
                    continue
                yield Record(row, dict(zip(header, values, strict=True)))
        except csv.Error as error:
            raise InputError(f"{path}, row {row + 1}: broken CSV ({_brief(error)})") from error


def _record(path: Path, row: int, value: object) -> Record | Problem:
    if isinstance(value, dict):
        return Record(row, value)
    return Problem(path, row, "not a JSON object", f"a {type(value).__name__}")


def _starts_with_bracket(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        return next((line.lstrip() for line in file if line.strip()), "").startswith("[")


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
