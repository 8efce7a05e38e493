"""From a preset to a prepared folder: ask the preset, split, write, check, and put the folder in place.

Each step is another module's; here is their order and what the manifest says about it.
"""

import importlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

import innerloop
from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import PrepareOptions, Preset, build, preset_called, settings
from innerloop.llm.data.prepared import (
    MANIFEST,
    MIXED,
    MIXED_FILE,
    SPLITS,
    Manifest,
    SplitEntry,
    TaskEntry,
    content_hash,
)
from innerloop.llm.data.presets.base import Request, Source, nearest
from innerloop.llm.data.records import Problem
from innerloop.llm.data.rows import Message, Row, json_text, refuse
from innerloop.llm.data.splits import Shares, SplitTask, split
from innerloop.llm.data.starter_configs import write_starter_configs
from innerloop.llm.data.validate import Validation, validate
from innerloop.llm.data.writing import replacing, write_rows

NOT_IN_MANIFEST = ("output_dir", "source_dir", "seed", "strict", "validate")


@dataclass(frozen=True)
class Preparation:
    """What was prepared.

    Args:
        directory: the folder.
        manifest: what is in it.
        problems: the bad rows that were skipped.
        validation: the outcome of the check, if one was asked for.
    """

    directory: Path
    manifest: Manifest
    problems: tuple[Problem, ...]
    validation: Validation | None


def prepare(preset: str, values: Mapping[str, object]) -> Preparation:
    """Prepares a folder of tasks.

    Args:
        preset: its name on the command line.
        values: settings by name with underscores: those of `PrepareOptions` and those of the preset.

    Raises:
        InputError: for an unknown preset or setting, a bad value, a source that cannot be read, a bad row
            under ``strict``, a task left without rows, a folder that holds something else, or, under
            ``validate``, a leak or damage. Then nothing is written.
    """
    found = preset_called(preset)
    known = [one.name for options in (PrepareOptions, found.options) for one in settings(options)]
    for name in values:
        if name not in known:
            raise InputError(f"the preset '{preset}' has no setting '{name}'{nearest(name, known)}")
    options = build(PrepareOptions, values)
    own: object = build(found.options, values)
    if options.output_dir is None:
        raise InputError("name the folder to write with --output-dir")
    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}; it must not be negative")
    shares = Shares(options.support_ratio, options.query_ratio, options.max_samples)
    source = _load(found, options, own)
    if options.strict:
        refuse(source.problems)
    tasks = split(_with_system(source, options.system), shares, options.seed)
    manifest = _manifest(source, options, own, tasks)
    with replacing(options.output_dir) as folder:
        _write(folder, tasks, manifest, options)
        validation = validate(folder) if options.validate else None
        if validation is not None:
            validation.require_sound()
    return Preparation(options.output_dir, manifest, source.problems, validation)


def _load(preset: Preset, options: PrepareOptions, own: object) -> Source:
    request = Request(
        source_dir=options.source_dir,
        seed=options.seed,
        tasks=options.tasks,
        skip=options.skip,
        holdout=options.holdout,
        validation=options.validation,
        max_samples=options.max_samples,
    )
    if options.source_dir is not None and not options.source_dir.is_dir():
        raise InputError(f"--source-dir {options.source_dir}: no such folder")
    source: Source = importlib.import_module(f"innerloop.llm.data.presets.{preset.module}").tasks(
        request, own
    )
    for task in source.tasks:
        if task.name == MIXED or task.name != Path(task.name).name or task.name.startswith("."):
            raise InputError(
                f"'{task.name}' cannot be a task: its name becomes a folder, and '{MIXED}' is taken"
            )
    return source


def _with_system(source: Source, system: str | None) -> Source:
    """The source with a system turn before every chat that has none."""
    if system is None:
        return source

    def add(rows: Sequence[Row]) -> tuple[Row, ...]:
        turn = Message("system", system)
        return tuple(
            row if row.messages[0].role == "system" else replace(row, messages=(turn, *row.messages))
            for row in rows
        )

    return replace(
        source,
        tasks=tuple(
            replace(task, pool=add(task.pool), test=None if task.test is None else add(task.test))
            for task in source.tasks
        ),
    )


def _manifest(source: Source, options: PrepareOptions, own: object, tasks: Sequence[SplitTask]) -> Manifest:
    chosen = {
        one.name: _plain(getattr(holder, one.name))
        for holder in (options, own)
        for one in settings(type(holder))
        if one.name not in NOT_IN_MANIFEST
    }
    return Manifest(
        preset=source.preset,
        source=source.origin,
        licence=source.licence,
        seed=options.seed,
        settings=chosen,
        versions={"innerloop": innerloop.__version__, "pyarrow": pa.__version__},
        skipped=dict(sorted(Counter(problem.reason for problem in source.problems).items())),
        tasks=tuple(_entry(task) for task in tasks),
    )


def _plain(value: object) -> object:
    """A setting as JSON has it; of a path the name alone, so that the same data give the same manifest."""
    if isinstance(value, Path):
        return value.name
    return list(value) if isinstance(value, tuple) else value


def _entry(task: SplitTask) -> TaskEntry:
    support, query, test = (
        SplitEntry(len(rows), content_hash(rows)) for rows in (task.data.rows(name) for name in SPLITS)
    )
    return TaskEntry(
        task.data.name, task.source.role, task.source.grader, support, query, test, dict(task.dropped)
    )


def _write(folder: Path, tasks: Sequence[SplitTask], manifest: Manifest, options: PrepareOptions) -> None:
    for task in tasks:
        for name in SPLITS:
            write_rows(folder / task.data.name / f"{name}.parquet", task.data.rows(name))
    write_rows(folder / MIXED / MIXED_FILE, _mixed(tasks, options.seed))
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    assert options.output_dir is not None
    write_starter_configs(folder, manifest, options.output_dir)


def _mixed(tasks: Sequence[SplitTask], seed: int) -> list[Row]:
    """What the training tasks learn from, in random order, each row with its task's name in the metadata."""
    rows = [
        replace(row, metadata=json_text({**row.fields, "task": task.data.name}))
        for task in tasks
        if task.source.role == "train"
        for row in (*task.data.support, *task.data.query)
    ]
    random.Random(f"{seed}/{MIXED}").shuffle(rows)
    return rows
