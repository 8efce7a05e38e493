"""The comparison of methods: trains and tests those named, and makes a table of all that was recorded."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.fewshot.config import load_config
from innerloop.fewshot.evaluate import EvaluationSettings, evaluate
from innerloop.fewshot.published import INSTANCES, OMNIGLOT
from innerloop.fewshot.records import Record, read_records, record_path
from innerloop.fewshot.train import train

BEGIN, END = "<!-- few-shot table: begin -->", "<!-- few-shot table: end -->"
HEADER = (
    "method",
    "N-way K-shot",
    "inductive",
    "transductive",
    "published",
    "test episodes",
    "training episodes",
    "seconds",
    "parameters",
    "seed",
)


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
        cells = [record_path(folder / "test", ways, config.test.shots) for ways in config.test.ways]
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


def markdown(records: Iterable[Record]) -> str:
    """The table, a row a record, and the command of each row below it."""
    ordered = sorted(
        records, key=lambda record: (record.ways, record.shots, record.method, record.train_seed)
    )
    rows = [HEADER, ("---",) * len(HEADER), *(_row(record) for record in ordered)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    data = sorted({record.data for record in ordered})
    commands = "\n".join(dict.fromkeys(record.command for record in ordered))
    return (
        "Accuracy in per cent and half the width of its 95 % interval. Inductive: no query's answer depends "
        "on another query. Transductive: batch norm sees an episode's queries together, as in the published "
        f"figures marked (T). Tested on: {'; '.join(data)}.\n\n{table}\n\n{_instances(ordered)}"
        f"<!-- no-run: hours -->\n```bash\n{commands}\n```\n"
    )


def _instances(records: Sequence[Record]) -> str:
    """The table of those that learn while they read; nothing if there are none."""
    lines = []
    for record in records:
        for instance, (mean, half) in enumerate(record.instances, start=1):
            source, figures = INSTANCES.get(record.method, ("", {}))
            known = record.data.startswith("Omniglot") and instance in figures
            published = f"{figures[instance]:.1f}, {source}" if known else "-"
            cells = (record.method, f"{record.ways}-way", f"{instance}", _per_cent(mean, half), published)
            lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return ""
    head = "| method | classes | image of its class | accuracy | published |\n|---|---|---|---|---|\n"
    return (
        "Accuracy on the images of a sequence, by how often their class has come; the first can only be "
        f"guessed among the classes that have not.\n\n{head}" + "\n".join(lines) + "\n\n"
    )


def put_into(document: Path, table: str) -> None:
    """Replaces what stands between the two marks of a document.

    Raises:
        InputError: the document or the marks are not there.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {document}: {error.strerror or error}") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{document} lacks the lines '{BEGIN}' and '{END}', between which the table goes")
    partial = document.with_name(f".{document.name}.partial")
    partial.write_text(f"{before}{begin}\n{table}{end}{after}", encoding="utf-8")
    partial.replace(document)


def _row(record: Record) -> tuple[str, ...]:
    source = OMNIGLOT.get(record.method) if record.data.startswith("Omniglot") else None
    figure = source.accuracy.get((record.ways, record.shots)) if source is not None else None
    published = "-"
    if source is not None and figure is not None:
        published = f"{figure:.1f}{' (T)' if source.transductive else ''}, {source.source}"
    return (
        record.method,
        f"{record.ways}-way {record.shots}-shot",
        _per_cent(record.inductive, record.inductive_half),
        _per_cent(record.transductive, record.transductive_half),
        published,
        f"{record.episodes}",
        f"{record.training.episodes}",
        f"{record.training.seconds:.0f}",
        f"{record.training.parameters}",
        f"{record.train_seed}",
    )


def _per_cent(mean: float, half: float) -> str:
    return f"{100 * mean:.1f} ± {100 * half:.1f}"
