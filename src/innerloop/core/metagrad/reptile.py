"""Reptile."""

from innerloop.core import params as vector
from innerloop.core.learner.base import Learner
from innerloop.core.metagrad.base import MetaGradient, Strategy, added, loss_before, support_loss_after
from innerloop.core.params import Params
from innerloop.core.task import Task


class Reptile(Strategy):
    """θ − φ as a gradient for the outer optimizer (Nichol 2018, Algorithm 2).

    Plain SGD outside with rate ε gives θ ← θ + ε·mean(φ − θ). The query set plays no part in the step; its
    loss is monitored only.
    """

    def __call__(self, learner: Learner, task: Task, total: Params | None = None) -> MetaGradient:
        """The pseudo-gradient of one task."""
        with learner.excursion() as theta:
            start = learner.keep(theta)
            query = task.query(theta)
            before = loss_before(learner, theta, query)
            adapted = self.inner.run(learner, task, theta)
            with learner.unaccounted():
                query_loss = learner.loss(adapted.params, query).reshape(-1)
            support_loss = support_loss_after(learner, adapted)
            return MetaGradient(
                gradient=added(learner.pool(vector.subtract(start, vector.detached(adapted.params))), total),
                rate_gradient={},
                support_loss=support_loss,
                query_loss_before=before,
                query_loss=query_loss,
                states=learner.unbundle(adapted.state),
            )
