"""Measures the losses around an adaptation."""

from collections.abc import Sequence

from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner.base import Learner
from innerloop.core.losses import TaskLosses
from innerloop.core.metagrad.base import MetaGradient, loss_before, support_loss_after
from innerloop.core.parallel import World
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
                before = loss_before(learner, theta, task.query(theta))
                adapted = inner.run(learner, task, theta)
                support = support_loss_after(learner, adapted)
                after = learner.loss(adapted.params, task.query(adapted.params)).reshape(-1)
            columns = zip(support.tolist(), before.tolist(), after.tolist(), strict=True)
            for turn, member, row in zip(chunk, members, columns, strict=True):
                measured[turn.index] = TaskLosses(member.name, *row)
    everyone = {index: losses for heard in world.gather(measured) for index, losses in heard.items()}
    return [everyone[index] for index in sorted(everyone)]
