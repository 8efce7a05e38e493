"""The folder of prepared tasks: its layout, its manifest, and reading both.

``{folder}/{task}/support.parquet, query.parquet, test.parquet``, ``{folder}/manifest.json`` and
``{folder}/mixed/train.parquet``. A folder made by hand in the same layout reads as well, without a manifest
and with any of the accepted file formats. Writing is in ``writing``.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from innerloop.core.errors import InputError
from innerloop.llm.data.records import SUFFIXES
from innerloop.llm.data.rows import DEFAULT_KEYS, Row, RowKeys, refuse, report, scan_rows

Split = Literal["support", "query", "test"]
Role = Literal["train", "validation", "held_out"]
Grader = Literal["math", "number", "choice", "exact"]
SPLITS: tuple[Split, ...] = get_args(Split)
MANIFEST = "manifest.json"
MIXED = "mixed"
MIXED_FILE = "train.parquet"
MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class TaskData:
    """The rows of one task: what the inner loop learns from, what the outer loop, and what is tested on."""

    name: str
    support: tuple[Row, ...]
    query: tuple[Row, ...]
    test: tuple[Row, ...]

    def rows(self, split: Split) -> tuple[Row, ...]:
        """The rows of one split."""
        return {"support": self.support, "query": self.query, "test": self.test}[split]


@dataclass(frozen=True)
class SplitEntry:
    """What the manifest keeps of one file: its number of rows and the hash of their content."""

    rows: int
    content: str


@dataclass(frozen=True)
class TaskEntry:
    """What the manifest keeps of one task.

    Args:
        name: also the name of its folder.
        role: train, validation or held_out.
        grader: how answers are compared: math, number, choice or exact.
        support: the support pool; evaluation draws its shots from it.
        query: the query pool.
        test: the test set.
        dropped: rows left out because they stand elsewhere too, by reason.
    """

    name: str
    role: Role
    grader: Grader
    support: SplitEntry
    query: SplitEntry
    test: SplitEntry
    dropped: Mapping[str, int]

    def split(self, name: Split) -> SplitEntry:
        """The entry of one split."""
        return {"support": self.support, "query": self.query, "test": self.test}[name]


@dataclass(frozen=True)
class Manifest:
    """How a folder came about.

    Args:
        preset: its name on the command line.
        source: where the data come from.
        licence: of the data.
        seed: of every draw.
        settings: the other settings of the preparation, by name.
        versions: of this package and of the parquet writer.
        skipped: bad rows, by reason.
        tasks: in the order of preparation.
    """

    preset: str
    source: str
    licence: str
    seed: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    skipped: Mapping[str, int]
    tasks: tuple[TaskEntry, ...]

    def names(self, role: Role) -> tuple[str, ...]:
        """The tasks of a role."""
        return tuple(task.name for task in self.tasks if task.role == role)

    def task(self, name: str) -> TaskEntry:
        """The entry of a task.

        Raises:
            InputError: if there is none of that name.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        raise InputError(
            f"no prepared task '{name}'; there are: {', '.join(task.name for task in self.tasks)}"
        )

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        content = {"format": MANIFEST_FORMAT, **asdict(self)}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def load_task(
    directory: Path, name: str, keys: RowKeys = DEFAULT_KEYS, needs: Sequence[Split] = ()
) -> TaskData:
    """Reads the rows of one task.

    Args:
        directory: the prepared folder.
        name: of the task.
        keys: the column names, for files made by hand.
        needs: splits that must be there with rows in them; another one that is missing is empty.

    Raises:
        InputError: if the task or a needed split is missing, or a file cannot be read.
    """
    files = {split: split_file(directory, name, split) for split in SPLITS}
    if not any(files.values()):
        known = ", ".join(task_names(directory)) or "none"
        raise InputError(f"{directory}: no task '{name}'; the prepared tasks are: {known}")
    rows = {split: _rows(file, keys) for split, file in files.items()}
    for split in needs:
        if not rows[split]:
            raise InputError(f"{directory / name}: the task has no {split} rows; add {split}.parquet")
    return TaskData(name, *(rows[split] for split in SPLITS))


def load_manifest(directory: Path) -> Manifest:
    """Reads ``manifest.json``.

    Raises:
        InputError: if it is missing or damaged.
    """
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != MANIFEST_FORMAT:
            raise InputError(f"{path}: written by another version of innerloop; prepare the data again")
        return Manifest(**content | {"tasks": tuple(_task_entry(entry) for entry in content["tasks"])})
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; 'innerloop data prepare' writes it") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error}); prepare the data again") from error


def has_manifest(directory: Path) -> bool:
    """Whether the folder was prepared by this package, not by hand."""
    return (directory / MANIFEST).is_file()


def manifest_hash(directory: Path) -> str:
    """The hash of what the prepared tasks hold: equal data, equal hash, whatever the folder is called.

    Args:
        directory: a prepared folder; without a manifest the files themselves are read.

    Raises:
        InputError: if there is neither a manifest nor a task.
    """
    if has_manifest(directory):
        tasks = load_manifest(directory).tasks
        contents = {task.name: [task.split(split).content for split in SPLITS] for task in tasks}
    else:
        loaded = [load_task(directory, name) for name in task_names(directory)]
        contents = {task.name: [content_hash(task.rows(split)) for split in SPLITS] for task in loaded}
    if not contents:
        raise InputError(f"{directory}: holds no prepared task")
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def content_hash(rows: Sequence[Row]) -> str:
    """The hash of rows in their order, whatever file format holds them."""
    digest = hashlib.sha256()
    for row in rows:
        chat = [[message.role, message.content] for message in row.messages]
        line = json.dumps([row.prompt, row.response, chat, row.answer, row.metadata])
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def task_names(directory: Path) -> tuple[str, ...]:
    """The folders that hold a support, query or test file, by name."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder; 'innerloop data prepare' makes one")
    return tuple(
        sorted(
            folder.name
            for folder in directory.iterdir()
            if folder.is_dir() and any(split_file(directory, folder.name, split) for split in SPLITS)
        )
    )


def split_file(directory: Path, task: str, split: Split) -> Path | None:
    """The file of a split, whatever its format, or None if there is none."""
    candidates = (directory / task / f"{split}{suffix}" for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _rows(file: Path | None, keys: RowKeys) -> tuple[Row, ...]:
    if file is None:
        return ()
    scan = scan_rows(file, keys)
    if not scan.rows:
        refuse(scan.problems)
    report(scan.problems)
    return scan.rows


def _task_entry(content: Mapping[str, Any]) -> TaskEntry:
    entry = dict(content)
    for split in SPLITS:
        entry[split] = SplitEntry(**content[split])
    if entry["role"] not in get_args(Role) or entry["grader"] not in get_args(Grader):
        raise ValueError(f"role '{entry['role']}', grader '{entry['grader']}'")
    return TaskEntry(**entry)
