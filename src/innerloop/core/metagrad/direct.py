"""No inner loop: the gradient of the episode's own loss."""

from collections.abc import Sequence
from statistics import fmean

from innerloop.core import params as vector
from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner.base import Learner
from innerloop.core.losses import TaskLosses
from innerloop.core.metagrad.base import MetaGradient, Strategy
from innerloop.core.params import Params
from innerloop.core.task import Task


class Direct(Strategy):
    """∇Q(θ), for models that adapt in their forward pass: a metric, a memory, a learned optimizer.

    The query batch is a whole episode, support set included, and its loss says how well the model classifies
    the queries given the support. Unlike the strategies with an inner loop this one keeps what the pass
    writes into the module's buffers: batch norm gathers its running statistics as in ordinary training.
    """

    keeps_buffers = True
    least_steps = 0

    def __init__(self) -> None:
        super().__init__(InnerLoop(SGD(), LearningRates(0.0, [], 0), steps=0))

    def __call__(self, learner: Learner, task: Task, total: Params | None = None) -> MetaGradient:
        """The gradient of one episode's loss."""
        theta = {name: p.detach() for name, p in learner.theta.items()}
        gradient = vector.zeros_like(theta) if total is None else total
        loss = learner.add_gradient(theta, task.query(theta), gradient).detach().reshape(-1)
        return MetaGradient(
            gradient=gradient,
            rate_gradient={},
            support_loss=loss,
            query_loss_before=loss,
            query_loss=loss,
        )

    def metrics(self, losses: Sequence[TaskLosses]) -> dict[str, float]:
        """The mean loss of the episodes."""
        return {"train/loss": fmean(entry.query_loss for entry in losses)}
