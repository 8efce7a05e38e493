"""Measures the losses around an adaptation."""

from collections.abc import Sequence

from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner.base import Learner
from innerloop.core.losses import TaskLosses
from innerloop.core.metagrad.base import MetaGradient, loss_before, support_loss_after
from innerloop.core.task import Task


def losses_of(tasks: Sequence[Task], result: MetaGradient) -> list[TaskLosses]:
    """The losses that came with a meta-gradient, one entry a task of the bundle."""
    columns = zip(
        result.support_loss.tolist(),
        result.query_loss_before.tolist(),
        result.query_loss.tolist(),
        strict=True,
    )
    return [TaskLosses(task.name, *row) for task, row in zip(tasks, columns, strict=True)]


def adapt_and_measure(learner: Learner, inner: InnerLoop, tasks: Sequence[Task]) -> list[TaskLosses]:
    """Adapts to each task, measures, and puts θ back. Not in the ledger: this is evaluation."""
    measured = []
    with learner.unaccounted():
        for start in range(0, len(tasks), learner.tasks_at_once):
            chunk = tasks[start : start + learner.tasks_at_once]
            task = learner.bundle(chunk)
            with learner.excursion() as theta:
                before = loss_before(learner, theta, task.query(theta))
                adapted = inner.run(learner, task, theta)
                support = support_loss_after(learner, adapted)
                after = learner.loss(adapted.params, task.query(adapted.params)).reshape(-1)
            for name, *row in zip(
                [member.name for member in chunk],
                support.tolist(),
                before.tolist(),
                after.tolist(),
                strict=True,
            ):
                measured.append(TaskLosses(name, *row))
    return measured
