"""The in-place learner: ordinary training on the module itself.

Any kernel, gradient checkpointing and sharding that trains works here, since nothing but forward, backward
and in-place steps happens. The point being worked on lives in the module; θ waits in a copy.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.learner.base import Learner, Result
from innerloop.core.params import Params
from innerloop.core.task import Batch


class InPlaceLearner(Learner):
    """One task at a time, in the module. See :class:`Learner`."""

    @contextmanager
    def excursion(self) -> Iterator[Params]:
        """φ₀ = θ, the module's own parameters; θ is copied back at the end."""
        live = self.theta
        snapshot = vector.cloned(live)
        with self._buffers_restored():
            try:
                yield dict(live)
            finally:
                self._load(snapshot)

    def keep(self, params: Params) -> Params:
        """A copy."""
        return vector.cloned(params)

    def move(self, params: Params, update: Params) -> Params:
        """The module's own parameters after the step."""
        self._load(params)
        live = self.theta
        with torch.no_grad():
            for name, step in update.items():
                live[name].add_(step)
        return dict(live)

    def run_at(self, params: Params, body: Callable[[], Result]) -> Result:
        """The result of a function that uses the module while it holds a point."""
        self._load(params)
        return body()

    def _load(self, params: Params) -> None:
        with torch.no_grad():
            for name, live in self.theta.items():
                if params[name] is not live:
                    live.copy_(params[name])

    def _loss(self, params: Params, piece: Batch) -> Tensor:
        self._load(params)
        return self.objective(self.module, piece)

    def _gradient(self, params: Params, piece: Batch, create_graph: bool) -> tuple[Tensor, Params]:
        if create_graph:
            raise InputError("unrolling needs a functional learner; set meta.learner=functional")
        self._load(params)
        live = self.theta
        outer = {name: p.grad for name, p in live.items()}
        try:
            for p in live.values():
                p.grad = None
            loss = self.objective(self.module, piece)
            loss.backward()  # type: ignore[no-untyped-call]
            gradient = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in live.items()}
        finally:
            for name, p in live.items():
                p.grad = outer[name]
        return loss.detach(), vector.detached(gradient)

    def _reverse_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params:
        self._load(params)
        live = self.theta
        loss = self.objective(self.module, piece)
        gradient = torch.autograd.grad(loss, list(live.values()), create_graph=True, materialize_grads=True)
        along = vector.dot(dict(zip(live, gradient, strict=True)), direction)
        if not along.requires_grad:
            return vector.zeros_like(vector.detached(live))
        product = torch.autograd.grad(along, list(live.values()), materialize_grads=True)
        return dict(zip(live, product, strict=True))

    def _forward_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params:  # noqa: ARG002
        raise InputError(
            "forward-over-reverse products need a functional learner; set meta.hvp=reverse or central"
        )
