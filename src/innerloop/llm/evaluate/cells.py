"""One cell of an evaluation: adapt a model on the shots of a task, score it on the test rows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from innerloop.core import params as vector
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner.base import Ledger
from innerloop.core.params import Params
from innerloop.core.sampler import IndexStream, derive_seed
from innerloop.core.task import Task
from innerloop.llm.adaptable import Adaptable
from innerloop.llm.data.prepared import TaskData
from innerloop.llm.data.rows import Row
from innerloop.llm.evaluate.answers import Respondent
from innerloop.llm.evaluate.graders import GraderKind
from innerloop.llm.evaluate.scoring import Scores, TestSet, make_test_set, score_points
from innerloop.llm.tasks import shots_task


@dataclass(frozen=True)
class EvaluatedTask:
    """A task as evaluation uses it.

    Args:
        data: its rows.
        grader: how answers are compared.
        tests: the test rows, without shots in front.
    """

    data: TaskData
    grader: GraderKind
    tests: TestSet

    @property
    def name(self) -> str:
        """The task's name."""
        return self.data.name


@dataclass(frozen=True)
class CellResult:
    """What a cell came to and what it cost.

    Args:
        scores: the marks on the test rows.
        seconds: adapting and scoring.
        ledger: adapting alone.
    """

    scores: Scores
    seconds: float
    ledger: Ledger


def adapt_and_score(
    model: Adaptable,
    task: EvaluatedTask,
    draws: Sequence[Sequence[int]],
    inner: InnerLoop,
    batch_size: int,
    seed: int,
) -> list[CellResult]:
    """Adapts on the shots of each of several runs, scores the adapted models, and puts the model back.

    The runs are scored together, so each is charged an equal share of that.
    """
    points: list[Params] = []
    spent: list[tuple[float, Ledger]] = []
    for shots in draws:
        began, before = time.perf_counter(), model.learner.ledger.state_dict()
        with model.learner.excursion() as theta:
            episode = shots_episode(model, task, shots, inner.steps, batch_size, seed)
            point = inner.run(model.learner, episode, theta).params
            points.append(vector.cloned(point))
        spent.append((time.perf_counter() - began, _spent(model, before)))
    began = time.perf_counter()
    with model.learner.excursion():
        scores = score_points(_respondent(model), points, task.tests)
    share = (time.perf_counter() - began) / len(draws)
    return [CellResult(one, own + share, ledger) for one, (own, ledger) in zip(scores, spent, strict=True)]


def score_unadapted(model: Adaptable, tests: TestSet) -> CellResult:
    """Scores the model as it is: no shots, or shots in the prompt."""
    began = time.perf_counter()
    with model.learner.excursion() as theta:
        scores = score_at(model, theta, tests)
    return CellResult(scores, time.perf_counter() - began, Ledger())


def score_along(
    model: Adaptable,
    task: EvaluatedTask,
    shots: Sequence[int],
    inner: InnerLoop,
    batch_size: int,
    seed: int,
    steps: Sequence[int],
) -> dict[int, Scores]:
    """The scores after each of several numbers of steps of one adaptation."""
    found: dict[int, Scores] = {}

    def watch(taken: int, _loss: Tensor, params: Params) -> None:
        if taken in steps:
            found[taken] = score_at(model, params, task.tests)

    with model.learner.excursion() as theta:
        episode = shots_episode(model, task, shots, inner.steps, batch_size, seed)
        inner.run(model.learner, episode, theta, watch=watch)
    return found


def shots_episode(
    model: Adaptable, task: EvaluatedTask, shots: Sequence[int], steps: int, batch_size: int, seed: int
) -> Task:
    """The shots as an episode: a batch of them a step."""
    rows = [task.data.support[index] for index in shots]
    tokens = model.batcher.tokenize(rows, f"task '{task.name}', support")
    return shots_task(task.name, tokens, steps, batch_size, model.batcher, seed)


def in_context_tests(
    model: Adaptable, task: EvaluatedTask, shots: Sequence[int], max_new_tokens: int | None, seed: int
) -> TestSet:
    """The test rows with the shots in front, in an order that does not group them by class."""
    order = IndexStream(len(shots), derive_seed(seed, task.name, "order")).take(len(shots))
    rows: list[Row] = [task.data.support[shots[index]] for index in order]
    return make_test_set(task.tests.rows, rows, task.grader, model.batcher, max_new_tokens)


def score_at(model: Adaptable, params: Params, tests: TestSet) -> Scores:
    """The scores with the model holding a point."""
    (scores,) = score_points(_respondent(model), [params], tests)
    return scores


def _respondent(model: Adaptable) -> Respondent:
    return Respondent(model.loaded, model.batcher, model.learner)


def _spent(model: Adaptable, before: dict[str, int]) -> Ledger:
    after = model.learner.ledger.state_dict()
    return Ledger(**{name: after[name] - before[name] for name in after})
