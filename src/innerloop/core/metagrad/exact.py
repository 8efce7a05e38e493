"""Exact second-order MAML by the adjoint recursion."""

from innerloop.core import params as vector
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


class Exact(Strategy):
    """The gradient of Q(θ_K) with respect to θ and α (Finn 2017), without unrolling.

    With a cotangent v on the point and w on the rule's state, from v_K = ∇Q(θ_K), w_K = 0 backwards::

        u, w_k, ∂/∂α_k = (rule's derivative)ᵀ (v_{k+1}, w_{k+1})
        v_k = v_{k+1} + H_k u,    H_k = ∇²S_k(θ_k)

    For SGD, u = −α_k ⊙ v_{k+1} and ∂/∂α_k = −∇S_k(θ_k) ⊙ v_{k+1}. Only the points θ_k, their gradients and
    the graph of one Hessian-vector product are ever in memory, so the peak does not grow with the graphs of
    K steps as it does when unrolling. A proximal pull λ adds its Hessian λI and pulls on the anchor θ too.
    """

    learns_rates = True

    def __call__(self, learner: Learner, task: Task, total: Params | None = None) -> MetaGradient:
        """The meta-gradient of one task."""
        inner = self.inner
        with learner.excursion() as theta:
            query = task.query(theta)
            before = loss_before(learner, theta, query)
            adapted = inner.run(learner, task, theta, record=True)
            query = task.query(adapted.params)
            support_loss = support_loss_after(learner, adapted)
            query_loss, v = learner.gradient(adapted.params, query)
            w = vector.zeros_like(adapted.state)
            anchor = vector.zeros_like(v) if inner.proximal else {}
            rate_gradient = RateGradient(inner)
            for step in reversed(adapted.tape):
                rule = differentiate_rule(learner, inner, step, v, w)
                rate_gradient.add(step.step, rule.rates)
                w = rule.state
                v = vector.add(v, learner.hvp(step.params, step.batch, rule.gradient))
                if inner.proximal:
                    v = vector.add(v, rule.gradient, inner.proximal)
                    anchor = vector.add(anchor, rule.gradient, -inner.proximal)
            gradient = vector.add(v, anchor) if inner.proximal else v
            return MetaGradient(
                gradient=added(learner.pool(gradient), total),
                rate_gradient=rate_gradient.values,
                support_loss=support_loss,
                query_loss_before=before,
                query_loss=query_loss.detach().reshape(-1),
                states=learner.unbundle(adapted.state),
            )
