"""The functional learner: the module's parameters are θ always, and every call lends it another point."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from innerloop.core import params as vector
from innerloop.core.learner.base import Learner, Result
from innerloop.core.params import Params
from innerloop.core.task import Batch, pieces


class _Host(nn.Module):
    """Runs a function while its model holds lent parameters.

    ``functional_call`` gives the parameters back when the forward pass returns, so a backward pass outside
    it would recompute checkpointed activations with the wrong ones. Inside this forward the backward pass
    runs too.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, body: Callable[[], Any]) -> Any:
        """The function's result."""
        return body()


class FunctionalLearner(Learner):
    """One task at a time through ``functional_call``. See :class:`Learner`."""

    @contextmanager
    def excursion(self) -> Iterator[Params]:
        """φ₀ = θ. The parameters are never written to; buffers may be, and are put back."""
        with self._buffers_restored():
            yield {name: p.detach() for name, p in self.theta.items()}

    def keep(self, params: Params) -> Params:
        """The point itself: points are never changed."""
        return params

    def move(self, params: Params, update: Params) -> Params:
        """A new point."""
        return vector.add(params, update)

    def run_at(self, params: Params, body: Callable[[], Result]) -> Result:
        """The result of a function that uses the module while it holds a point."""
        host = _Host(self.module)
        result: Result = functional_call(host, {f"model.{name}": p for name, p in params.items()}, (body,))
        return result

    def gradient(self, params: Params, batch: Batch, create_graph: bool = False) -> tuple[Tensor, Params]:
        """Loss and gradient at a point. See :class:`Learner`."""
        self._record(batch, gradient_passes=1)
        losses: list[Tensor] = []
        total: Params = {}
        with self._differentiating():
            for piece in pieces(batch):
                loss, gradient = self._gradient(params, piece, create_graph)
                losses.append(loss)
                total = vector.add(total, gradient) if total else gradient
            return self._sum(losses), total

    def _loss(self, params: Params, piece: Batch) -> Tensor:
        return self.run_at(params, lambda: self.objective(self.module, piece))

    def _gradient(self, params: Params, piece: Batch, create_graph: bool) -> tuple[Tensor, Params]:
        point = params if create_graph else _leaves(params)

        def body() -> tuple[Tensor, Params]:
            loss = self.objective(self.module, piece)
            return loss, _grad(loss, point, create_graph=create_graph)

        loss, gradient = self.run_at(point, body)
        return (loss if create_graph else loss.detach()), gradient

    def _reverse_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params:
        point = _leaves(params)

        def body() -> Params:
            gradient = _grad(self.objective(self.module, piece), point, create_graph=True)
            return _grad(vector.dot(gradient, direction), point)

        return self.run_at(point, body)

    def _forward_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params:
        gradient = torch.func.grad(lambda point: self._loss(point, piece))
        product: Params = torch.func.jvp(gradient, (vector.detached(params),), (direction,))[1]
        return vector.detached(product)


def _leaves(params: Params) -> Params:
    return {name: p.detach().requires_grad_() for name, p in params.items()}


def _grad(output: Tensor, params: Params, create_graph: bool = False) -> Params:
    if not output.requires_grad:
        # An objective that does not depend on the parameters (its second derivative, say) has gradient 0.
        return vector.zeros_like(params)
    gradients = torch.autograd.grad(
        output, list(params.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(params, gradients, strict=True))
