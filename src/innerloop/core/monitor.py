"""Measures the losses around an adaptation."""

from collections.abc import Sequence

from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner.base import Learner
from innerloop.core.losses import TaskLosses
from innerloop.core.metagrad.base import MetaGradient
from innerloop.core.parallel import World
from innerloop.core.task import Task


def losses_of(tasks: Sequence[Task], result: MetaGradient) -> list[TaskLosses]:
    """The losses that came with a meta-gradient, one entry a task of the bundle."""
    unknown = [None] * len(tasks)
    support, before = (
        unknown if column is None else column.tolist()
        for column in (result.support_loss, result.query_loss_before)
    )
    rows = zip(support, before, result.query_loss.tolist(), strict=True)
    return [TaskLosses(task.name, *row) for task, row in zip(tasks, rows, strict=True)]


def adapt_and_measure(
    learner: Learner, inner: InnerLoop, tasks: Sequence[Task], world: World | None = None
) -> list[TaskLosses]:
    """Adapts to each task, measures, and puts θ back. Not in the ledger: this is evaluation.

    Args:
        learner: runs the model.
        inner: the inner loop.
        tasks: what to adapt to.
        world: the processes that share the tasks out; each must come here, and each is given all losses.
    """
    world = world or World()
    measured: dict[int, TaskLosses] = {}
    turns = world.turns(len(tasks), at_least_one=False)
    with learner.unaccounted():
        for start in range(0, len(turns), learner.tasks_at_once):
            chunk = turns[start : start + learner.tasks_at_once]
            members = [tasks[turn.index] for turn in chunk]
            task = learner.bundle(members)
            with learner.excursion() as theta:
                before = learner.loss(theta, task.query(theta))
                adapted = inner.run(learner, task, theta)
                support = learner.loss(adapted.params, adapted.batches[-1])
                after = learner.loss(adapted.params, task.query(adapted.params))
            columns = zip(*(loss.reshape(-1).tolist() for loss in (support, before, after)), strict=True)
            for turn, member, row in zip(chunk, members, columns, strict=True):
                measured[turn.index] = TaskLosses(member.name, *row)
    everyone = {index: losses for heard in world.gather(measured) for index, losses in heard.items()}
    return [everyone[index] for index in sorted(everyone)]
