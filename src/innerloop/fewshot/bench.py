"""The comparison of methods: trains and tests those named, and reads back all that was recorded."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from innerloop.fewshot.config import load_config
from innerloop.fewshot.evaluate import EvaluationSettings, evaluate
from innerloop.fewshot.records import Record, read_records, record_path
from innerloop.fewshot.train import train


def run(
    names: Sequence[str],
    output_dir: Path,
    overrides: Sequence[str],
    progress: Callable[[str, int, int], None],
) -> list[Record]:
    """Trains and tests packaged settings one after another; what is done already is not done again.

    Args:
        names: of packaged settings.
        output_dir: a folder for each goes here.
        overrides: ``key=value`` words over each of them.
        progress: told of each test's episodes.

    Raises:
        InputError: as :func:`train` and :func:`evaluate`; settings are checked before the first run starts.
    """
    configs = {name: load_config(name, None, overrides) for name in names}
    for name, config in configs.items():
        folder = output_dir / name
        test = config.test
        cells = (record_path(folder / "test", ways, test.shots, test.within_alphabet) for ways in test.ways)
        if all(cell.exists() for cell in cells):
            continue
        trainer = replace(config.trainer, default_local_dir=str(folder))
        train(replace(config, trainer=trainer))
        # The folder's own name: where it lies is nothing to whoever repeats the run.
        words = ["--set", *overrides] if overrides else []
        command = shlex.join(
            ["innerloop", "fewshot", "bench", name, "--output-dir", output_dir.resolve().name, *words]
        )
        settings = EvaluationSettings(folder, folder / "test", command=command)
        evaluate(settings, lambda done, total, name=name: progress(name, done, total))  # type: ignore[misc]
    return read_records(output_dir)
