"""Choosing a method's adaptation rate and steps from a grid, on validation tasks only."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from innerloop.llm.adaptable import Adaptable
from innerloop.llm.evaluate.cells import EvaluatedTask, score_along
from innerloop.llm.evaluate.settings import AdaptationGrid
from innerloop.llm.evaluate.shots import draw_shots

SELECTION_FILE = "selection.json"


@dataclass(frozen=True)
class Candidate:
    """One point of the grid and its mean over validation tasks and budgets.

    Args:
        learning_rate: the rate; none is the method's own (learned rates, for example).
        steps: the steps.
        accuracy: mean share of right answers.
        loss: mean loss, which decides between equals.
    """

    learning_rate: float | None
    steps: int
    accuracy: float
    loss: float


def choose_adaptation(
    model: Adaptable,
    grid: AdaptationGrid,
    tasks: Sequence[EvaluatedTask],
    n_shots: Sequence[int],
    batch_size: int,
    seed: int,
    output_dir: Path,
) -> Candidate:
    """The best candidate by accuracy, then by loss. All candidates are written to ``selection.json``.

    A finished selection is read back instead of being made again.

    Args:
        model: the method's model.
        grid: what to choose from.
        tasks: the validation tasks.
        n_shots: the budgets to average over.
        batch_size: shots a step takes.
        seed: of the shots; the evaluation's own, so that every method sees the same ones.
        output_dir: the method's folder.
    """
    path = output_dir / SELECTION_FILE
    if path.exists():
        candidates = [Candidate(**entry) for entry in json.loads(path.read_text())]
    else:
        candidates = _try_all(model, grid, tasks, [count for count in n_shots if count], batch_size, seed)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps([asdict(candidate) for candidate in candidates], indent=1))
        temporary.replace(path)
    return max(candidates, key=lambda candidate: (candidate.accuracy, -candidate.loss))


def _try_all(
    model: Adaptable,
    grid: AdaptationGrid,
    tasks: Sequence[EvaluatedTask],
    n_shots: Sequence[int],
    batch_size: int,
    seed: int,
) -> list[Candidate]:
    own = model.inner_loop()
    step_counts = grid.steps or (own.steps,)
    candidates = []
    for rate in grid.learning_rates or (None,):
        inner = model.inner_loop(rate, max(step_counts))
        # One adaptation of the longest length passes through all the shorter ones.
        trajectories = [
            score_along(
                model,
                task,
                draw_shots(task.name, task.data.support, count, 0, seed),
                inner,
                batch_size,
                seed,
                step_counts,
            )
            for task in tasks
            for count in n_shots
        ]
        candidates += [
            Candidate(
                learning_rate=rate,
                steps=steps,
                accuracy=fmean(scores[steps].accuracy for scores in trajectories),
                loss=fmean(scores[steps].loss for scores in trajectories),
            )
            for steps in step_counts
        ]
    return candidates
