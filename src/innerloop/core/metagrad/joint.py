"""Joint training: the control that does not meta-learn."""

from collections.abc import Sequence
from statistics import fmean

import torch

from innerloop.core import params as vector
from innerloop.core.learner.base import Learner
from innerloop.core.losses import TaskLosses, task_metrics
from innerloop.core.metagrad.base import MetaGradient, Strategy, loss_before
from innerloop.core.params import Params
from innerloop.core.task import Task


class Joint(Strategy):
    """The mean gradient, at θ, of the K support batches and the query batch.

    One step of ordinary multi-task training that reads the same rows with the same number of forward and
    backward passes as :class:`FirstOrder` does in one meta-step.
    """

    def __call__(self, learner: Learner, task: Task, total: Params | None = None) -> MetaGradient:
        """The gradient of one task."""
        with learner.excursion() as theta:
            query = task.query(theta)
            before = loss_before(learner, theta, query)
            batches = [*(task.support(step, theta) for step in range(self.inner.steps)), query]
            gradient = vector.zeros_like(vector.detached(learner.theta)) if total is None else total
            losses = [
                learner.add_gradient(theta, batch, gradient, 1 / len(batches)).reshape(-1)
                for batch in batches
            ]
            return MetaGradient(
                gradient=gradient,
                rate_gradient={},
                support_loss=torch.stack(losses[:-1]).mean(0),
                query_loss_before=before,
                query_loss=losses[-1],
            )

    def metrics(self, losses: Sequence[TaskLosses]) -> dict[str, float]:
        """The mean loss of all batches: there is no adaptation to tell of."""
        steps = self.inner.steps
        support = fmean(entry.support_loss for entry in losses if entry.support_loss is not None)
        mean = (steps * support + fmean(entry.query_loss for entry in losses)) / (steps + 1)
        return {"train/loss": mean} | task_metrics(losses)
