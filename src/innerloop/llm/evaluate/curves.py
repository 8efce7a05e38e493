"""Few-shot adaptation curves: every task, budget and run of one method, resumable cell by cell."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from innerloop.core.checkpoint import RunState
from innerloop.core.errors import InputError
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.tracking import METRICS_FILE, read_metrics
from innerloop.llm.adaptable import Adaptable, load_adaptable
from innerloop.llm.config import Config, to_dict
from innerloop.llm.data.prepared import has_manifest, load_manifest, load_task
from innerloop.llm.episodes import row_keys
from innerloop.llm.evaluate.cells import (
    CellResult,
    EvaluatedTask,
    adapt_and_score,
    in_context_tests,
    score_unadapted,
)
from innerloop.llm.evaluate.graders import GraderKind
from innerloop.llm.evaluate.scoring import make_test_set
from innerloop.llm.evaluate.selection import choose_adaptation
from innerloop.llm.evaluate.settings import CONTROLS, EvaluationSettings
from innerloop.llm.evaluate.shots import draw_shots, has_classes
from innerloop.llm.versions import library_versions

RESULTS_FILE = "results.jsonl"
METHOD_FILE = "method.json"

Progress = Callable[[int, int, str], None]
"""Told the cells done, the cells in all, and what is being done."""


@dataclass(frozen=True)
class Cell:
    """A task, a budget of shots and a run."""

    task: str
    shots: int
    run: int


def evaluate(
    settings: EvaluationSettings, config: Config | None = None, progress: Progress = lambda *_: None
) -> Path:
    """Evaluates one method and returns its folder, which ``innerloop report`` reads.

    Finished cells stand in ``results.jsonl`` already and are not made again.

    Args:
        settings: what to evaluate on what.
        config: how to adapt a model that carries no settings of its own.
        progress: told how far it is.

    Raises:
        InputError: the model, the data or a setting is wrong, or the folder holds another evaluation.
    """
    model = load_adaptable(settings.model_path, config, tokenizer_path=settings.tokenizer_path)
    tasks = {name: _task(settings, model, name) for name in _task_names(settings)}
    cells = list(_cells(settings, tasks))
    for cell in cells:  # every draw is checked before the first is paid for
        draw_shots(cell.task, tasks[cell.task].data.support, cell.shots, cell.run, settings.seed)
    _begin(settings, model)
    batch_size = settings.adaptation_batch_size or model.config.meta.inner_batch_size
    done = _finished(settings)
    inner = model.inner_loop(settings.adaptation_lr, settings.adaptation_steps)
    if settings.grid is not None and settings.model_type != "icl":
        progress(len(done), len(cells), "choosing rate and steps on validation tasks")
        validation = [_task(settings, model, name) for name in settings.grid.tasks]
        best = choose_adaptation(
            model, settings.grid, validation, settings.n_shots, batch_size, settings.seed, settings.output_dir
        )
        inner = model.inner_loop(best.learning_rate, best.steps)
    with (settings.output_dir / RESULTS_FILE).open("a") as results:
        for (name, shots), runs in _grouped(cell for cell in cells if cell not in done):
            numbers = ", ".join(str(cell.run) for cell in runs)
            progress(len(done), len(cells), f"{name}, {shots} shots, run {numbers}")
            found = _run(settings, model, tasks[name], runs, inner, batch_size)
            for cell, result in zip(runs, found, strict=True):
                results.write(json.dumps(_record(cell, tasks[name], result)) + "\n")
            results.flush()
            done.update(runs)
    _write_method(settings, model, inner, tasks)
    progress(len(cells), len(cells), "done")
    return settings.output_dir


def _task_names(settings: EvaluationSettings) -> tuple[str, ...]:
    if settings.tasks:
        return settings.tasks
    names = load_manifest(settings.data_dir).names("held_out")
    if not names:
        raise InputError(f"{settings.data_dir} holds out no task; name some with --eval-tasks")
    return names


def _task(settings: EvaluationSettings, model: Adaptable, name: str) -> EvaluatedTask:
    data = load_task(settings.data_dir, name, row_keys(model.config), needs=("support", "test"))
    grader: GraderKind = "exact"
    if has_manifest(settings.data_dir):
        grader = load_manifest(settings.data_dir).task(name).grader
    rows = data.test if settings.max_test_samples == -1 else data.test[: settings.max_test_samples]
    return EvaluatedTask(
        data, grader, make_test_set(rows, (), grader, model.batcher, settings.max_new_tokens)
    )


def _cells(settings: EvaluationSettings, tasks: Mapping[str, EvaluatedTask]) -> Iterator[Cell]:
    for name in tasks:
        for shots in sorted(set(settings.n_shots)):
            # Without shots nothing is drawn, so every run would be the same.
            for run in range(settings.n_runs if shots else 1):
                yield Cell(name, shots, run)


def _grouped(cells: Iterable[Cell]) -> Iterator[tuple[tuple[str, int], list[Cell]]]:
    """The runs of one task and budget together: they are decoded in one batch."""
    for key, runs in groupby(cells, key=lambda cell: (cell.task, cell.shots)):
        yield key, list(runs)


def _run(
    settings: EvaluationSettings,
    model: Adaptable,
    task: EvaluatedTask,
    runs: Sequence[Cell],
    inner: InnerLoop,
    batch_size: int,
) -> list[CellResult]:
    """The results of several runs of one task and budget."""
    if not runs[0].shots:
        return [score_unadapted(model, task.tests) for _ in runs]
    draws = [draw_shots(task.name, task.data.support, c.shots, c.run, settings.seed) for c in runs]
    if settings.model_type == "icl":
        limit, seed = settings.max_new_tokens, settings.seed
        return [score_unadapted(model, in_context_tests(model, task, shots, limit, seed)) for shots in draws]
    return adapt_and_score(model, task, draws, inner, batch_size, settings.seed)


def _record(cell: Cell, task: EvaluatedTask, result: CellResult) -> dict[str, object]:
    scores = asdict(result.scores)
    tokens = int(scores.pop("tokens"))
    return {
        "task": cell.task,
        "budget": cell.shots,
        "run": cell.run,
        "metrics": scores,
        "rows": len(task.tests.rows),
        "seconds": round(result.seconds, 3),
        "tokens": tokens + result.ledger.units,
        "gradient_passes": result.ledger.gradient_passes,
    }


def _finished(settings: EvaluationSettings) -> set[Cell]:
    path = settings.output_dir / RESULTS_FILE
    if not path.exists():
        return set()
    rows = read_metrics(path)
    # A half-written last line is dropped, so that the next cell begins on a line of its own.
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    temporary.replace(path)
    return {Cell(str(row["task"]), int(row["budget"]), int(row["run"])) for row in rows}


def _begin(settings: EvaluationSettings, model: Adaptable) -> None:
    """Makes the folder, or checks that what it holds is this same evaluation, begun before."""
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    path = settings.output_dir / "settings.json"
    asked = json.loads(json.dumps(_identity(settings, model), default=str))
    if path.exists():
        if json.loads(path.read_text()) != asked:
            raise InputError(
                f"{settings.output_dir} holds an evaluation with other settings; choose another --output-dir"
            )
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asked, indent=1))
    temporary.replace(path)


def _identity(settings: EvaluationSettings, model: Adaptable) -> dict[str, object]:
    # More tasks, budgets or runs extend an evaluation; everything else makes it another one.
    extensible = {"tasks", "n_shots", "n_runs", "output_dir"}
    kept = {key: value for key, value in asdict(settings).items() if key not in extensible}
    return {**kept, "checkpoint": str(model.folder.resolve())}


def _write_method(
    settings: EvaluationSettings,
    model: Adaptable,
    inner: InnerLoop,
    tasks: Mapping[str, EvaluatedTask],
) -> None:
    per_class = all(has_classes(task.data.support) for task in tasks.values())
    shown = {
        "method": settings.name or settings.model_type,
        "label": settings.label,
        "control": settings.model_type in CONTROLS,
        "metric": "accuracy",
        "budget_name": "shots per class" if per_class else "shots",
        "training": {"metrics_file": _metrics_file(model)},
        "ledger": _training_ledger(model),
        "adaptation": None
        if settings.model_type == "icl"
        else {
            "rule": model.config.meta.inner_rule,
            "learning_rate": "learned" if inner.rates.learned else inner.rates.value,
            "steps": inner.steps,
            "chosen_on": None if settings.grid is None else ", ".join(settings.grid.tasks),
        },
        "seed": settings.seed,
        "config": to_dict(model.config),
        "versions": library_versions(),
    }
    path = settings.output_dir / METHOD_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(shown, indent=1))
    temporary.replace(path)


def _metrics_file(model: Adaptable) -> str | None:
    path = model.folder.resolve().parent / METRICS_FILE
    return str(path) if model.info is not None and path.exists() else None


def _training_ledger(model: Adaptable) -> dict[str, float]:
    """What the training cost; nothing for a model that was not trained here."""
    if model.info is None:
        return {"gradient_passes": 0, "forward_passes": 0, "tokens": 0, "seconds": 0.0}
    folder = model.folder.resolve()
    state = RunState.read_values(folder)
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    peaks = [row.get("perf/peak_memory_bytes", 0) for row in read_metrics(folder.parent / METRICS_FILE)]
    return {
        "gradient_passes": state["ledger"]["gradient_passes"],
        "hessian_products": state["ledger"]["hessian_products"],
        "forward_passes": state["ledger"]["forward_passes"],
        "tokens": state["ledger"]["units"],
        "seconds": state["seconds"],
        "peak_memory_bytes": max(peaks, default=0),
        "trained_parameters": sum(p.numel() for p in model.learner.theta.values()),
        "checkpoint_bytes": weights,
    }
