"""Tasks of the user's own files, listed in a ``task_config.json``.

``{task: {input_file, support_ratio, max_samples, ...}}``; a relative ``input_file`` is looked up beside the
list (or in ``--source-dir``), then in the working directory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, get_args

from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import CustomOptions, settings
from innerloop.llm.data.prepared import Grader
from innerloop.llm.data.presets.base import (
    Request,
    Source,
    SourceTask,
    SplitPlan,
    choose,
    nearest,
)
from innerloop.llm.data.records import Problem
from innerloop.llm.data.rows import DEFAULT_KEYS, RowKeys, scan_rows


@dataclass(frozen=True)
class FileTask:
    """The entry of one task. Ratios left out are those of the whole preparation."""

    input_file: Annotated[str, "a parquet, jsonl, json or csv file"] = ""
    support_ratio: Annotated[float | None, "fraction of the rows for the support pool"] = None
    query_ratio: Annotated[float | None, "fraction for the query pool; half of what support leaves"] = None
    max_samples: Annotated[int, "at most so many rows; -1 keeps all"] = -1
    prompt_key: Annotated[str, "the column of the prompt"] = DEFAULT_KEYS.prompt
    response_key: Annotated[str, "the column of the response"] = DEFAULT_KEYS.response
    messages_key: Annotated[str, "the column of the chat; '' leaves it unread"] = DEFAULT_KEYS.messages
    answer_key: Annotated[str, "the column of what a grader compares"] = DEFAULT_KEYS.answer
    grader: Annotated[str, "math, number, choice or exact"] = "exact"


def tasks(request: Request, options: CustomOptions) -> Source:
    """One task for every entry of the list.

    Raises:
        InputError: if the list is missing or damaged, names an unknown key, or a file of it cannot be read.
    """
    if options.config is None:
        raise InputError("the preset custom needs --config task_config.json")
    entries = _read_list(options.config)
    roles = choose(tuple(entries), request)
    problems: list[Problem] = []
    made: list[SourceTask] = []
    for name, role in roles.items():
        entry = entries[name]
        keys = RowKeys(entry.prompt_key, entry.response_key, entry.messages_key, entry.answer_key)
        scan = scan_rows(_find(entry.input_file, name, options.config, request.source_dir), keys)
        problems += scan.problems
        plan = SplitPlan(
            entry.support_ratio,
            entry.query_ratio,
            options.support_size,
            options.query_size,
            entry.max_samples,
        )
        grader = next(known for known in get_args(Grader) if known == entry.grader)
        made.append(SourceTask(name, scan.rows, grader, role, plan=plan))
    return Source(
        preset="custom",
        origin=f"the files listed in {options.config.name}",
        licence="not stated",
        tasks=tuple(made),
        problems=tuple(problems),
        balance=options.balance,
    )


def _read_list(path: Path) -> dict[str, FileTask]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: broken JSON ({error})") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: must be an object with one entry a task: {{task: {{input_file: ...}}}}")
    return {name: _entry(path, name, values) for name, values in content.items()}


def _entry(path: Path, task: str, values: object) -> FileTask:
    where = f"{path}, task '{task}'"
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: must be an object with an input_file")
    known = [field.name for field in fields(FileTask)]
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'{nearest(key, known)}")
    try:
        read = {one.name: one.read(values[one.name]) for one in settings(FileTask) if one.name in values}
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    entry = FileTask(**read)  # type: ignore[arg-type]  # each value was read as its field's type
    if not entry.input_file:
        raise InputError(f"{where}: names no input_file")
    if entry.grader not in get_args(Grader):
        raise InputError(f"{where}: unknown grader '{entry.grader}'{nearest(entry.grader, get_args(Grader))}")
    if entry.query_ratio is not None and entry.support_ratio is None:
        raise InputError(f"{where}: query_ratio without support_ratio; give both")
    if entry.max_samples < -1 or entry.max_samples == 0:
        raise InputError(f"{where}: max_samples is {entry.max_samples}; it must be positive, or -1 for all")
    return entry


def _find(file: str, task: str, config: Path, source_dir: Path | None) -> Path:
    places = (source_dir or config.parent, Path())
    for place in places:
        if (place / file).exists():
            return place / file
    tried = " nor ".join(dict.fromkeys(str(place / file) for place in places))
    raise InputError(f"{config}, task '{task}': the input_file is missing; neither {tried} is there")
