"""Exact second-order MAML by unrolling: the reference the adjoint recursion is held against."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from innerloop.core import params as vector
from innerloop.core.learner.base import Learner
from innerloop.core.learner.refusals import refusals_explained
from innerloop.core.metagrad.base import MetaGradient, Strategy, added, loss_before, support_loss_after
from innerloop.core.params import Params
from innerloop.core.task import Task


class Unroll(Strategy):
    """Differentiates through all K steps at once (Finn 2017).

    The same number as :class:`Exact`; the graphs of K steps are in memory together, so the peak grows with
    K. Needs a functional learner and kernels that can be differentiated twice.
    """

    learns_rates = True

    def __call__(self, learner: Learner, task: Task, total: Params | None = None) -> MetaGradient:
        """The meta-gradient of one task."""
        inner = self.inner
        rates = inner.rates.values
        with learner.excursion() as theta:
            before = loss_before(learner, theta, task.query(theta))
            start = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
            with torch.enable_grad(), _differentiable(rates), refusals_explained():
                adapted = inner.run(learner, task, start, create_graph=True)
                query = task.query(vector.detached(adapted.params))
                query_loss, query_gradient = learner.gradient(adapted.params, query)
                pulled = torch.autograd.grad(
                    list(adapted.params.values()),
                    [*start.values(), *rates.values()],
                    [query_gradient[name] for name in adapted.params],
                    materialize_grads=True,
                )
            final = vector.detached(adapted.params)
            support_loss = support_loss_after(learner, replace(adapted, params=final))
            return MetaGradient(
                gradient=added(learner.pool(dict(zip(start, pulled[: len(start)], strict=True))), total),
                rate_gradient=dict(zip(rates, pulled[len(start) :], strict=True)),
                support_loss=support_loss,
                query_loss_before=before,
                query_loss=query_loss.detach().reshape(-1),
                states=learner.unbundle(vector.detached(adapted.state)),
            )


@contextmanager
def _differentiable(rates: Params) -> Iterator[None]:
    try:
        for rate in rates.values():
            rate.requires_grad_()
        yield
    finally:
        for rate in rates.values():
            rate.requires_grad_(False)
