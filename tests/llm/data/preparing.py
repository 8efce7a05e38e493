"""Small sources and a small preparation of the user's own files, for the tests beside this file."""

import json
from collections.abc import Mapping
from pathlib import Path

from innerloop.llm.data.prepare import Preparation, prepare
from innerloop.llm.data.presets.base import Source, SourceTask

TASKS = ("red", "green", "blue")


def write_files(folder: Path, rows: int = 30) -> Path:
    """Three tasks of ``rows`` rows each, and the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        lines = ({"prompt": f"{task} {number}", "response": f"{number}"} for number in range(rows))
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = folder / "task_config.json"
    config.write_text(json.dumps({task: {"input_file": f"{task}.jsonl"} for task in TASKS}))
    return config


def prepare_small(folder: Path, values: Mapping[str, object] | None = None) -> Preparation:
    """Prepares them into ``folder/out``, blue held out."""
    config = write_files(folder)
    usual = {"config": config, "output_dir": folder / "out", "holdout": ["blue"]}
    return prepare("custom", {**usual, **(values or {})})


def lines(path: Path, *records: object) -> None:
    """Writes JSON Lines; a text stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (record if isinstance(record, str) else json.dumps(record) for record in records)
    path.write_text("".join(f"{text}\n" for text in texts))


def task(source: Source, name: str) -> SourceTask:
    """One of a source's tasks."""
    return next(task for task in source.tasks if task.name == name)


def reasons(source: Source) -> list[tuple[str, int, str]]:
    """File, row and reason of each bad row."""
    return [(problem.file.name, problem.row, problem.reason) for problem in source.problems]


def problem(number: int, **changes: object) -> dict[str, object]:
    """A record of MATH."""
    usual = {"problem": f"What is {number}?", "solution": f"It is \\boxed{{{number}}}.", "subject": "Algebra"}
    return {**usual, "level": "Level 3", **changes}
