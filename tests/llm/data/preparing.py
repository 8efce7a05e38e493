"""A small preparation of the user's own files, for the tests beside this file."""

import json
from collections.abc import Mapping
from pathlib import Path

from innerloop.llm.data.prepare import Preparation, prepare

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
