"""What is measured around an adaptation, and under which names."""

import pytest
import torch
from torch import Tensor

from core.toy import LEARNERS, first_order, inner_loop, network, regression
from innerloop.core.inner import SGD
from innerloop.core.losses import TaskLosses, average_metrics, task_metrics
from innerloop.core.monitor import adapt_and_measure, losses_of
from innerloop.core.task import FixedTask

EASY = TaskLosses("easy", support_loss=1.0, query_loss_before=4.0, query_loss=2.0)
HARD = TaskLosses("hard", support_loss=2.0, query_loss_before=5.0, query_loss=6.0)


def test_gap_and_gain() -> None:
    assert EASY.adaptation_gap == 1.0  # query minus support loss, both after
    assert EASY.adaptation_gain == 2.0  # query loss before minus after
    assert HARD.adaptation_gap == 4.0
    assert HARD.adaptation_gain == -1.0  # adapting can hurt, and then it says so


def test_names_per_task() -> None:
    assert task_metrics([EASY, HARD], "eval/") == {
        "eval/easy/support_loss": 1.0,
        "eval/easy/query_loss": 2.0,
        "eval/easy/adaptation_gap": 1.0,
        "eval/easy/adaptation_gain": 2.0,
        "eval/hard/support_loss": 2.0,
        "eval/hard/query_loss": 6.0,
        "eval/hard/adaptation_gap": 4.0,
        "eval/hard/adaptation_gain": -1.0,
    }


def test_a_task_met_several_times_is_averaged() -> None:
    again = TaskLosses("easy", support_loss=3.0, query_loss_before=4.0, query_loss=3.0)
    assert task_metrics([EASY, again]) == {
        "easy/support_loss": 2.0,
        "easy/query_loss": 2.5,
        "easy/adaptation_gap": 0.5,
        "easy/adaptation_gain": 1.5,
    }


def test_averages_are_over_tasks() -> None:
    assert average_metrics([EASY, HARD], "meta/") == {
        "meta/loss": 4.0,
        "meta/avg_support_loss": 1.5,
        "meta/avg_adaptation_gap": 2.5,
        "meta/avg_adaptation_gain": 0.5,
    }


def test_what_was_not_measured_has_no_figure() -> None:
    unwatched = TaskLosses("easy", support_loss=None, query_loss_before=None, query_loss=4.0)
    assert unwatched.adaptation_gap is None
    assert unwatched.adaptation_gain is None
    assert task_metrics([unwatched]) == {"easy/query_loss": 4.0}
    assert average_metrics([unwatched], "meta/") == {"meta/loss": 4.0}
    assert average_metrics([unwatched, EASY], "meta/") == {
        "meta/loss": 3.0,
        "meta/avg_support_loss": 1.0,
        "meta/avg_adaptation_gap": 1.0,
        "meta/avg_adaptation_gain": 2.0,
    }


def numbers(entry: TaskLosses) -> tuple[float | None, float | None, float]:
    return entry.support_loss, entry.query_loss_before, entry.query_loss


def adapted_by_hand(task: FixedTask, weight: Tensor, bias: Tensor, rate: float) -> TaskLosses:
    """Two gradient steps on w·x + c, each gradient of mean √(1 + e²) − 1 written out."""

    def value(batch: tuple[Tensor, Tensor]) -> float:
        inputs, targets = batch
        return float(((inputs @ weight + bias - targets) ** 2 + 1).sqrt().mean() - 1)

    before = value(task.query_batch)
    for inputs, targets in task.support_batches:
        error = inputs @ weight + bias - targets
        pull = error / (error**2 + 1).sqrt() / len(targets)
        weight, bias = weight - rate * inputs.T @ pull, bias - rate * pull.sum()
    return TaskLosses(task.name, value(task.support_batches[-1]), before, value(task.query_batch))


@pytest.mark.parametrize("learner_name", LEARNERS)
def test_measuring_adapts_and_leaves_no_trace(learner_name: str) -> None:
    module = network()
    learner = LEARNERS[learner_name](module, "reverse")
    tasks = [regression(f"task {i}", offset, seed=i) for i, offset in enumerate((-1.0, 0.0, 0.5, 1.0))]
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    measured = adapt_and_measure(learner, inner_loop(module, SGD(), rate=0.2), tasks)

    for task, entry in zip(tasks, measured, strict=True):
        expected = adapted_by_hand(task, before["weight"].flatten(), before["bias"], rate=0.2)
        assert entry.task == task.name
        assert numbers(entry) == pytest.approx(numbers(expected), rel=1e-5)
    assert set(learner.ledger.state_dict().values()) == {0}
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_bundle_is_taken_apart_in_order() -> None:
    module = network()
    learner = LEARNERS["vmap-3"](module, "reverse")
    tasks = [regression(name, offset, seed=1) for name, offset in (("a", -1.0), ("b", 0.0), ("c", 2.0))]
    together = losses_of(tasks, first_order(module)(learner, learner.bundle(tasks)))
    assert [entry.task for entry in together] == ["a", "b", "c"]
    for task, entry in zip(tasks, together, strict=True):
        (alone,) = losses_of([task], first_order(module)(learner, learner.bundle([task])))
        assert numbers(entry) == pytest.approx(numbers(alone), rel=1e-5)
