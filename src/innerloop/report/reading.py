"""Reads evaluation folders into a `Study`: results.jsonl, method.json and the training's metrics.jsonl.

A damaged line is skipped and counted in the study's notes; a folder that cannot be used is an InputError.
Nothing is compared here.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.report.study import (
    LEDGER_FIELDS,
    Adaptation,
    Cell,
    JsonValue,
    Ledger,
    Method,
    Series,
    Study,
    Training,
)

RESULTS_FILE = "results.jsonl"
METHOD_FILE = "method.json"
TRAINING_KEYS = (
    "meta/avg_adaptation_gap",
    "eval/avg_adaptation_gap",
    "meta/avg_adaptation_gain",
    "eval/avg_adaptation_gain",
    "meta/loss",
    "train/loss",
    "eval/loss",
)
"""The tracked averages that become curves; what each means is in `innerloop.core.monitor`."""

Record = dict[str, JsonValue]


@dataclass(frozen=True)
class _Folder:
    """One evaluation folder as read, before the folders are reconciled with one another."""

    method: Method
    metric: str
    higher_is_better: bool | None
    budget_name: str
    notes: tuple[str, ...]


def read_study(folders: Sequence[Path], metric: str | None = None) -> Study:
    """Reads evaluation folders, or folders of evaluation folders.

    Args:
        folders: each holds results.jsonl and method.json, or has direct subfolders that do.
        metric: the quantity to compare; by default the one every method.json names. Higher is better unless
            method.json's `higher_is_better` says otherwise or the name tells of a loss, error or regret.

    Returns:
        The study, challengers before controls, otherwise in the order given.

    Raises:
        InputError: no folder, one that does not exist or holds no usable result, a method.json that is
            missing or broken, folders that name different metrics or budgets, or a metric that a folder
            never measured.
    """
    paths = [path for folder in folders for path in _evaluation_folders(Path(folder))]
    if not paths:
        raise InputError("no evaluation folder given; name at least one folder that 'evaluate' wrote")
    for path, count in Counter(path.resolve() for path in paths).items():
        if count > 1:
            raise InputError(f"'{path}' is given {count} times; name each evaluation folder once")
    read = [_read_folder(path) for path in paths]
    compared = metric or _agreed("metrics", {folder.method.folder: folder.metric for folder in read})
    directions = {
        folder.higher_is_better
        for folder in read
        if folder.metric == compared and folder.higher_is_better is not None
    }
    if len(directions) > 1:
        raise InputError(f"the folders disagree on whether a higher '{compared}' is better; mend method.json")
    methods, notes = [], [note for folder in read for note in folder.notes]
    for method in _told_apart([folder.method for folder in read]):
        notes += _check_metric(method, compared)
        methods.append(method)
    return Study(
        methods=tuple(sorted(methods, key=lambda method: method.control)),
        metric=compared,
        higher_is_better=directions.pop() if directions else _rises_with_quality(compared),
        budget_name=_agreed("budgets", {folder.method.folder: folder.budget_name for folder in read}),
        notes=tuple(notes),
    )


def _rises_with_quality(metric: str) -> bool:
    return not any(word in metric.lower() for word in ("loss", "error", "regret", "perplexity"))


def _evaluation_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"no such folder: '{folder}'")
    if (folder / RESULTS_FILE).exists() or (folder / METHOD_FILE).exists():
        return [folder]
    inside = sorted(path.parent for path in folder.glob(f"*/{RESULTS_FILE}"))
    if not inside:
        raise InputError(f"no {RESULTS_FILE} in '{folder}' nor in its subfolders; run 'evaluate' first")
    return inside


def _agreed(what: str, named: dict[Path, str]) -> str:
    if len(set(named.values())) > 1:
        listed = ", ".join(f"'{name}' in '{path}'" for path, name in named.items())
        raise InputError(f"the folders measure different {what}: {listed}; compare like with like")
    return next(iter(named.values()))


def _told_apart(methods: Sequence[Method]) -> list[Method]:
    """Gives methods of the same name the folder's name, or its whole path, beside their own."""
    for name in (lambda path: path.resolve().name, str):
        keys = Counter(method.key for method in methods)
        labels = Counter(method.label for method in methods)
        methods = [
            method
            if keys[method.key] == labels[method.label] == 1
            else replace(
                method,
                key=f"{method.key}@{name(method.folder)}",
                label=f"{method.label} ({name(method.folder)})",
            )
            for method in methods
        ]
    return list(methods)


def _check_metric(method: Method, metric: str) -> list[str]:
    """Refuses a method without one finite value; notes how many of its results have none."""
    usable = sum(math.isfinite(cell.metrics.get(metric, math.nan)) for cell in method.cells)
    if not usable:
        names = ", ".join(sorted({name for cell in method.cells for name in cell.metrics})) or "no metric"
        raise InputError(f"no finite '{metric}' in '{method.folder / RESULTS_FILE}'; it has {names}")
    lost = len(method.cells) - usable
    return (
        [f"{method.label}: {lost} of {len(method.cells)} results have no finite {metric} and are left out."]
        if lost
        else []
    )


def _read_folder(folder: Path) -> _Folder:
    about = _read_object(folder / METHOD_FILE)
    where = f"'{folder / METHOD_FILE}'"
    name = _text(about, "method", where)
    label = _optional_text(about, "label", where) or name
    cells, notes = _read_cells(folder / RESULTS_FILE, label)
    training, training_notes = _read_training(about.get("training"), folder, label)
    higher = about.get("higher_is_better")
    config, versions = about.get("config"), about.get("versions")
    method = Method(
        key=name,
        label=label,
        control=about.get("control") is True,
        folder=folder,
        cells=cells,
        ledger=_ledger(about.get("ledger"), where),
        adaptation=_adaptation(about.get("adaptation"), where),
        training=training,
        seed=_whole(about.get("seed")),
        config=config if isinstance(config, dict) else {},
        versions={k: str(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
    )
    return _Folder(
        method=method,
        metric=_text(about, "metric", where),
        higher_is_better=higher if isinstance(higher, bool) else None,
        budget_name=_optional_text(about, "budget_name", where) or "shots",
        notes=(*notes, *training_notes),
    )


def _read_object(path: Path) -> Record:
    try:
        record = json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not valid JSON ({error}); evaluate the method again") from error
    if not isinstance(record, dict):
        raise InputError(f"'{path}' holds no JSON object; evaluate the method again")
    return record


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise InputError(f"cannot read '{path}': {reason}; evaluate the method again") from error


def _read_lines(path: Path) -> Iterator[Record | None]:
    """Every line that is not blank: its object, or None where it holds none."""
    for line in _read_bytes(path).split(b"\n"):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            yield record if isinstance(record, dict) else None


def _read_cells(path: Path, label: str) -> tuple[tuple[Cell, ...], list[str]]:
    cells: dict[tuple[str, int, int], Cell] = {}
    damaged = repeated = 0
    for record in _read_lines(path):
        cell = _cell(record) if record is not None else None
        if cell is None:
            damaged += 1
            continue
        place = (cell.task, cell.budget, cell.run)
        repeated += place in cells
        cells[place] = cell
    if not cells:
        unreadable = f" ({damaged} damaged lines)" if damaged else ""
        raise InputError(f"no results in '{path}'{unreadable}; evaluate the method first")
    notes = []
    if damaged:
        notes.append(f"{label}: {damaged} damaged {_lines(damaged)} of {path.name} skipped.")
    if repeated:
        notes.append(f"{label}: {repeated} repeated {_lines(repeated)} of {path.name}; the last one counts.")
    return tuple(cells.values()), notes


def _lines(count: int) -> str:
    return "line" if count == 1 else "lines"


def _cell(record: Record) -> Cell | None:
    task, budget, run = record.get("task"), _whole(record.get("budget")), _whole(record.get("run"))
    metrics = record.get("metrics")
    if not isinstance(task, str) or not _printable(task) or not isinstance(metrics, dict):
        return None
    if budget is None or run is None or budget < 0:
        return None
    measured = {name: _number(value) for name, value in metrics.items()}
    return Cell(
        task=task,
        budget=budget,
        run=run,
        metrics={name: math.nan if value is None else value for name, value in measured.items()},
        rows=_whole(record.get("rows")),
        seconds=_number(record.get("seconds")),
        tokens=_whole(record.get("tokens")),
        gradient_passes=_whole(record.get("gradient_passes")),
    )


def _read_training(about: JsonValue, folder: Path, label: str) -> tuple[Training | None, list[str]]:
    name = about.get("metrics_file") if isinstance(about, dict) else None
    if not isinstance(name, str) or not name:
        return None, []
    path = folder / name
    if not path.is_file():
        return None, [f"{label}: the training metrics '{name}' are not there, so its training is not drawn."]
    curves: dict[str, dict[int, float]] = {key: {} for key in TRAINING_KEYS}
    damaged = 0
    for record in _read_lines(path):
        step = _whole(record.get("step")) if record is not None else None
        if record is None or step is None:
            damaged += 1
            continue
        for key, points in curves.items():
            value = _number(record.get(key))
            if value is not None and math.isfinite(value):
                points[step] = value
    series = {
        key: Series(tuple(sorted(points)), tuple(points[step] for step in sorted(points)))
        for key, points in curves.items()
        if points
    }
    notes = [f"{label}: {damaged} damaged {_lines(damaged)} of {path.name} skipped."] if damaged else []
    return Training(series), notes


def _ledger(about: JsonValue, where: str) -> Ledger:
    if about is None:
        return Ledger()
    if not isinstance(about, dict):
        raise InputError(f"'ledger' in {where} is no object; evaluate the method again")
    amounts = {field: _number(about.get(field)) for field in LEDGER_FIELDS}
    return Ledger(**{field: amount for field, amount in amounts.items() if _is_amount(amount)})


def _is_amount(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value >= 0


def _adaptation(about: JsonValue, where: str) -> Adaptation:
    if about is None:
        return Adaptation()
    if not isinstance(about, dict):
        raise InputError(f"'adaptation' in {where} is no object; evaluate the method again")
    return Adaptation(
        rule=_optional_text(about, "rule", where),
        learning_rate=about.get("learning_rate"),
        steps=about.get("steps"),
        chosen_on=_optional_text(about, "chosen_on", where),
    )


def _text(record: Record, key: str, where: str) -> str:
    value = _optional_text(record, key, where)
    if not value:
        raise InputError(f"'{key}' is missing in {where}; evaluate the method again")
    return value


def _optional_text(record: Record, key: str, where: str) -> str | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not _printable(value):
        raise InputError(f"'{key}' in {where} must be text, got {value!r}")
    return value


def _printable(text: str) -> bool:
    """False for blank text and for a lone surrogate, which JSON can spell and no file can hold."""
    return bool(text.strip()) and not any("\ud800" <= character <= "\udfff" for character in text)


def _whole(value: JsonValue) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _number(value: JsonValue) -> float | None:
    """A JSON number as a float; None for anything else, and for an integer beyond a float's range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
