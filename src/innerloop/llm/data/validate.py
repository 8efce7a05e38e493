"""Checking a folder of prepared tasks: counts, token lengths, duplicates, damage and leaks.

The folder may also be made by hand. What counts as a leak is in ``leaks``; nothing is mended here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

import yaml  # type: ignore[import-untyped]
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from innerloop.core.errors import InputError
from innerloop.llm.data.leaks import across_splits, duplicates, into_training
from innerloop.llm.data.prepared import (
    MIXED,
    MIXED_FILE,
    SPLITS,
    Manifest,
    Split,
    TaskData,
    content_hash,
    has_manifest,
    load_manifest,
    split_file,
    task_names,
)
from innerloop.llm.data.rows import DEFAULT_KEYS, Row, RowKeys, scan_rows
from innerloop.llm.data.starter_configs import CONFIG_PATTERN
from innerloop.llm.data.tokens import token_count
from innerloop.llm.sources import ALIASES, find_model


@dataclass(frozen=True)
class Lengths:
    """Tokens of a task's rows, chat template and EOS included."""

    shortest: int
    median: int
    longest: int


@dataclass(frozen=True)
class TaskCheck:
    """What was found in one task.

    Args:
        name: of the task.
        role: train, validation or held_out; None in a folder without a manifest.
        rows: good rows in each split.
        duplicates: rows whose content stands earlier in the same split.
        lengths: of all rows, if a tokenizer was given.
    """

    name: str
    role: str | None
    rows: Mapping[Split, int]
    duplicates: int
    lengths: Lengths | None


@dataclass(frozen=True)
class Validation:
    """The outcome.

    Args:
        tasks: each task's counts.
        findings: what is wrong, one line each; none in a sound folder.
    """

    tasks: tuple[TaskCheck, ...]
    findings: tuple[str, ...]

    def require_sound(self) -> None:
        """Does nothing in a sound folder.

        Raises:
            InputError: naming the first finding and how many there are.
        """
        if self.findings:
            more = f" (and {len(self.findings) - 1} more findings)" if len(self.findings) > 1 else ""
            raise InputError(f"{self.findings[0]}{more}")


def validate(
    directory: Path, tokenizer: PreTrainedTokenizerBase | None = None, keys: RowKeys = DEFAULT_KEYS
) -> Validation:
    """Checks a folder.

    Args:
        directory: prepared here, or by hand in the same layout.
        tokenizer: measures token lengths, if given.
        keys: the column names of files made by hand.

    Raises:
        InputError: if there is no task in it at all, or its manifest is damaged.
    """
    names = task_names(directory)
    if not names:
        raise InputError(f"{directory}: holds no prepared task")
    damage: list[str] = []
    tasks = [
        TaskData(name, *(_scan(split_file(directory, name, split), keys, damage) for split in SPLITS))
        for name in names
    ]
    mixed_file = directory / MIXED / MIXED_FILE
    mixed = _scan(mixed_file if mixed_file.exists() else None, keys, damage)
    manifest = load_manifest(directory) if has_manifest(directory) else None
    roles = {entry.name: entry.role for entry in manifest.tasks} if manifest else {}
    trained = [task for task in tasks if roles.get(task.name, "train") == "train"]
    kept_out = [task for task in tasks if task not in trained]
    findings = chain(
        damage,
        _differences(manifest, tasks) if manifest else (),
        across_splits(tasks),
        into_training(trained, kept_out, mixed),
        _config_leaks(directory, [task.name for task in kept_out]),
    )
    checks = (
        TaskCheck(
            name=task.name,
            role=roles.get(task.name),
            rows={split: len(task.rows(split)) for split in SPLITS},
            duplicates=sum(duplicates(task.rows(split)) for split in SPLITS),
            lengths=_lengths(task, tokenizer) if tokenizer is not None else None,
        )
        for task in tasks
    )
    return Validation(tuple(checks), tuple(findings))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, by its alias, folder, GGUF file or hub id.

    Raises:
        InputError: if there is none.
    """
    converted = name in ALIASES or name.endswith(".gguf")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            find_model(name).folder if converted else name
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"cannot load a tokenizer from '{name}': {reason}") from error
    return tokenizer


def _scan(file: Path | None, keys: RowKeys, damage: list[str]) -> tuple[Row, ...]:
    """The good rows of a file; what is wrong in it is added to the damage."""
    if file is None:
        return ()
    try:
        scan = scan_rows(file, keys)
    except InputError as error:
        damage.append(str(error))
        return ()
    damage += map(str, scan.problems)
    return scan.rows


def _differences(manifest: Manifest, tasks: Sequence[TaskData]) -> Iterator[str]:
    """Where the files are no longer what the manifest says."""
    there = {task.name: task for task in tasks}
    for entry in manifest.tasks:
        task = there.pop(entry.name, None)
        if task is None:
            yield f"{entry.name}: stands in the manifest, but its folder is missing"
            continue
        for split in SPLITS:
            rows, listed = task.rows(split), entry.split(split)
            if len(rows) != listed.rows:
                yield f"{entry.name}/{split}: {len(rows)} rows, {listed.rows} in the manifest"
            elif content_hash(rows) != listed.content:
                yield f"{entry.name}/{split}: the rows are not those that the manifest lists"
    yield from (f"{name}: not in the manifest; prepare it with the others" for name in there)


def _config_leaks(directory: Path, kept_out: Sequence[str]) -> Iterator[str]:
    for path in sorted(directory.glob(CONFIG_PATTERN)):
        try:
            trained = (yaml.safe_load(path.read_text(encoding="utf-8")) or {})["meta"]["tasks"]
            names = [task["name"] if isinstance(task, dict) else task for task in trained]
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            yield f"{path}: no configuration with meta.tasks ({' '.join(str(error).split())})"
            continue
        for name in names:
            if name in kept_out:
                yield f"leak: {path} trains on '{name}', which is kept out of training"


def _lengths(task: TaskData, tokenizer: PreTrainedTokenizerBase) -> Lengths | None:
    lengths = [token_count(row, tokenizer) for split in SPLITS for row in task.rows(split)]
    return Lengths(min(lengths), round(median(lengths)), max(lengths)) if lengths else None
