"""First-order MAML."""

from innerloop.core import params as vector
from innerloop.core.inner_loop import Adapted
from innerloop.core.learner.base import Learner
from innerloop.core.metagrad.base import (
    MetaGradient,
    RateGradient,
    Strategy,
    added,
    differentiate_rule,
    loss_before,
    support_loss_after,
)
from innerloop.core.params import Params
from innerloop.core.task import Task


class FirstOrder(Strategy):
    """∇Q(θ_K) taken as the meta-gradient (FOMAML; Finn 2017, Nichol 2018).

    Every Hessian of :class:`Exact` is dropped, so v_k = ∇Q(θ_K) for all k. Learned rates keep the term that
    has no Hessian, for SGD ∂/∂α_k = −∇S_k(θ_k) ⊙ ∇Q(θ_K).
    """

    learns_rates = True

    def __call__(self, learner: Learner, task: Task, total: Params | None = None) -> MetaGradient:
        """The meta-gradient of one task."""
        inner = self.inner
        with learner.excursion() as theta:
            before = loss_before(learner, theta, task.query(theta))
            adapted = inner.run(learner, task, theta, record=inner.rates.learned)
            support_loss = support_loss_after(learner, adapted)
            query = task.query(adapted.params)
            rate_gradient = RateGradient(inner)
            if inner.rates.learned:
                query_loss, v = learner.gradient(adapted.params, query)
                self._differentiate_rates(learner, adapted, v, rate_gradient)
                gradient = added(learner.pool(v), total)
            else:
                gradient = vector.zeros_like(vector.detached(learner.theta)) if total is None else total
                query_loss = learner.add_gradient(adapted.params, query, gradient)
            return MetaGradient(
                gradient=gradient,
                rate_gradient=rate_gradient.values,
                support_loss=support_loss,
                query_loss_before=before,
                query_loss=query_loss.reshape(-1),
                states=learner.unbundle(adapted.state),
            )

    def _differentiate_rates(
        self, learner: Learner, adapted: Adapted, v: Params, rate_gradient: RateGradient
    ) -> None:
        """Walks back through the inner loop with the same v everywhere."""
        w = vector.zeros_like(adapted.state)
        for step in reversed(adapted.tape):
            rule = differentiate_rule(learner, self.inner, step, v, w)
            rate_gradient.add(step.step, rule.rates)
            w = rule.state
