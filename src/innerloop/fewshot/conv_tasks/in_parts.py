"""Strategies that take a bundle a few tasks at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from innerloop.core import params as vector
from innerloop.core.learner.base import Learner
from innerloop.core.losses import TaskLosses
from innerloop.core.metagrad import MetaGradient, Strategy
from innerloop.core.params import Params
from innerloop.core.task import Task, TaskStack
from innerloop.fewshot.conv_tasks.learner import ConvTasksLearner
from innerloop.fewshot.conv_tasks.slices import for_each


class InParts(Strategy):
    """A strategy on parts of a bundle, beside each other; another learner's bundles it takes whole.

    Tasks have nothing to do with each other, so the sum over tasks is the sum over parts. What belongs to the
    few tasks of a part, points and gradients above all, stays in a core's caches between operations.

    Args:
        strategy: the meta-gradient.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy, self.inner = strategy, strategy.inner
        self.learns_rates, self.keeps_buffers = strategy.learns_rates, strategy.keeps_buffers
        self.least_steps = strategy.least_steps

    def __call__(self, learner: Learner, task: Task, total: Params | None = None) -> MetaGradient:
        """The meta-gradient of one task or bundle."""
        if not isinstance(learner, ConvTasksLearner) or not isinstance(task, TaskStack):
            return self._strategy(learner, task, total)
        parts = learner.parts(task.tasks)
        if len(parts) == 1:
            return self._strategy(learner, task, total)
        found = for_each(
            lambda part: self._strategy(part[0], part[0].bundle(part[1])), parts, torch.device("cpu")
        )
        learner.account([part for part, _ in parts])
        gradient = _sum([each.gradient for each in found])
        if total is not None:
            vector.add_(total, gradient)
        return MetaGradient(
            gradient=gradient if total is None else total,
            rate_gradient=_sum([each.rate_gradient for each in found]),
            support_loss=_losses([each.support_loss for each in found]),
            query_loss_before=_losses([each.query_loss_before for each in found]),
            query_loss=torch.cat([each.query_loss for each in found]),
            states=[state for each in found for state in each.states],
            extras={name: torch.cat([each.extras[name] for each in found]) for name in found[0].extras},
        )

    def metrics(self, losses: Sequence[TaskLosses]) -> dict[str, float]:
        """The strategy's."""
        return self._strategy.metrics(losses)


def _losses(parts: Sequence[Tensor | None]) -> Tensor | None:
    measured = [part for part in parts if part is not None]
    return torch.cat(measured) if measured else None


def _sum(parts: Sequence[Params]) -> Params:
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
