"""A user's desk: a tiny model, a few small tasks and settings that train in seconds."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from innerloop.cli.main import main

WORDS = ("apple", "hammer", "violin", "salmon", "copper", "pepper", "button", "meadow", "candle", "pillow")


@dataclass(frozen=True)
class Workbench:
    """Where the desk's things are.

    Args:
        model: a model folder.
        data: prepared tasks: ``red`` and ``blue`` to train on, ``green`` held out.
        root: an empty folder to work in.
    """

    model: Path
    data: Path
    root: Path

    def settings(self, name: str, *more: str) -> list[str]:
        """Settings of a small run under ``root/name``, the last word winning."""
        return [
            f"model.partial_pretrain={self.model}",
            f"data.path={self.data}",
            "meta.tasks=[red,blue]",
            "meta.eval_tasks=[green]",
            "meta.num_inner_steps=2",
            "meta.inner_batch_size=2",
            "meta.query_batch_size=2",
            "meta.meta_batch_size=2",
            "trainer.total_steps=4",
            "trainer.save_freq=2",
            "trainer.test_freq=2",
            "trainer.device=cpu",
            f"trainer.default_local_dir={self.root / name}",
            *more,
        ]

    def train(self, config_name: str, name: str, *more: str) -> Path:
        """Trains and returns the run's folder."""
        assert main(["train", "--config-name", config_name, *self.settings(name, *more)]) == 0
        return self.root / name


def write_tasks(folder: Path) -> Path:
    """Prepared tasks as a user might make them by hand: JSON Lines in the folder layout."""
    for seed, task in enumerate(("red", "blue", "green")):
        rng = random.Random(seed)
        words = list(WORDS)
        rng.shuffle(words)
        for split, part in (("support", words[:5]), ("query", words[5:8]), ("test", words[8:])):
            rows = [{"prompt": f"{word}?", "response": rng.choice("AB")} for word in part]
            write_jsonl(folder / task / f"{split}.jsonl", rows)
    return folder


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    """Writes records, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path: Path) -> list[dict[str, float]]:
    """The records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
