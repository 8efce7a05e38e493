"""The in-place learner: ordinary training on the module itself.

Any kernel, gradient checkpointing and sharding that trains works here, since nothing but forward, backward
and in-place steps happens. The point being worked on lives in the module; θ waits in a copy. Gradients are
used up one by one while the backward pass makes them: the inner step moves a parameter as soon as its
gradient is there, and the meta-gradient goes into the meta-batch's sum, so neither is ever whole beside it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.inner import InnerRule, State, clip_factor
from innerloop.core.learner.base import Learner, Result
from innerloop.core.params import Params
from innerloop.core.task import Batch, pieces

Receiver = Callable[[str, Tensor], None]
"""Takes a parameter's gradient, which is freed afterwards."""


class InPlaceLearner(Learner):
    """One task at a time, in the module. See :class:`Learner`.

    Attributes:
        fused: whether an inner step moves each parameter during the backward pass. A model that uses the
            detached value of an adapted parameter again cannot be moved so; PyTorch refuses it then.
    """

    fused = True
    _start: Params | None = None
    _moved = False

    @contextmanager
    def excursion(self) -> Iterator[Params]:
        """φ₀ = θ, the module's own parameters; θ comes back from its master copy or, without one, a copy."""
        live = self.theta
        start = {
            name: self.masters[name].detach() if name in self.masters else p.detach().clone()
            for name, p in live.items()
        }
        with self._buffers_restored():
            # A finer master copy is not θ itself, so it can give θ back but not stand for it.
            self._start, self._moved = None if self.masters else start, False
            try:
                yield dict(live)
            finally:
                self._start = None
                self._load(start)

    def keep(self, params: Params) -> Params:
        """A copy of what is in the module; at the start of an excursion, the copy there is already."""
        live = self.theta
        if self._start is not None and not self._moved and all(params[name] is p for name, p in live.items()):
            return dict(self._start)
        return {name: p.detach().clone() if p is live[name] else p.detach() for name, p in params.items()}

    def shelve(self, tensors: Params) -> Params:
        """A copy; of tensors on a GPU, one in host memory: all parameters K times over would fill the GPU."""
        if next(iter(tensors.values())).is_cuda:
            return {name: _on_host(tensor) for name, tensor in tensors.items()}
        return self.keep(tensors)

    def fetch(self, tensors: Params) -> Params:
        """The shelved tensors, on the module's device."""
        device = next(iter(self.theta.values())).device
        return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}

    def commit(self, params: Params) -> None:
        """Makes a point the module's own: θ ← params."""
        self._moved = True
        super().commit(params)

    def move(self, params: Params, update: Params) -> Params:
        """The module's own parameters after the step."""
        self._load(params)
        self._moved = True
        live = self.theta
        with torch.no_grad():
            for name, step in update.items():
                live[name].add_(step)
        return dict(live)

    def run_at(self, params: Params, body: Callable[[], Result]) -> Result:
        """The result of a function that uses the module while it holds a point."""
        self._load(params)
        return body()

    def gradient(self, params: Params, batch: Batch, create_graph: bool = False) -> tuple[Tensor, Params]:
        """Loss and gradient at a point; the gradients of pieces are summed as they come."""
        if create_graph:
            raise InputError("unrolling needs a functional learner; set meta.learner=functional")
        gradient: Params = {}

        def receive(name: str, part: Tensor) -> None:
            gradient[name] = gradient[name] + part if name in gradient else part

        loss = self._stream(params, batch, receive)
        return loss, {
            name: gradient[name] if name in gradient else torch.zeros_like(p, requires_grad=False)
            for name, p in self.theta.items()
        }

    def add_gradient(self, params: Params, batch: Batch, total: Params, scale: float = 1.0) -> Tensor:
        """Adds the gradient to ``total``, tensor by tensor while the backward pass makes it."""

        def receive(name: str, gradient: Tensor) -> None:
            total[name].add_(gradient, alpha=scale)

        return self._stream(params, batch, receive)

    def descend(
        self, params: Params, batch: Batch, rule: InnerRule, state: State, rates: Params
    ) -> tuple[Tensor, Params, State]:
        """One step of an inner rule, a parameter at a time.

        Each is moved as soon as its gradient is there. Where the gradient has to be shortened, or comes from
        several pieces, it must be whole first; the parameters are still moved and their gradients freed one
        after the other.
        """
        live, following, shares = self.theta, State(), _shares(state)
        waiting = dict.fromkeys(live)
        self._moved = True

        @torch.no_grad()
        def step(name: str, gradient: Tensor) -> None:
            mine = {key: state[key] for key in (*shares[name], *shares[""])}
            update, after = rule.unclipped_update({name: gradient}, mine, {name: rates[name]})
            live[name].add_(update[name])
            following.update(after)
            for key in shares[name]:
                del state[key]
            del waiting[name]

        if self.fused and rule.max_norm is None and _count(batch) == 1:
            loss = self._stream(params, batch, step)
            for name in list(waiting):  # unused in this pass; a rule with moments moves them all the same
                step(name, torch.zeros_like(live[name]))
            return loss, dict(live), following
        loss, gradient = self.gradient(params, batch)
        factor = None if rule.max_norm is None else clip_factor(gradient, rule.max_norm)
        for name in list(gradient):
            own = gradient.pop(name)
            step(name, own if factor is None else factor * own)
        return loss, dict(live), following

    def _stream(self, params: Params, batch: Batch, receive: Receiver) -> Tensor:
        """The loss at a point; the gradient of each piece is handed over tensor by tensor."""
        self._record(batch, gradient_passes=1)
        self._load(params)
        with self._differentiating():
            losses = [self._backward(piece, receive) for piece in pieces(batch)]
        return self._sum(losses)

    def _load(self, params: Params) -> None:
        with torch.no_grad():
            for name, live in self.theta.items():
                if params[name] is not live:
                    self._moved = True
                    live.copy_(params[name], non_blocking=True)

    def _loss(self, params: Params, piece: Batch) -> Tensor:
        self._load(params)
        return self.objective(self.module, piece)

    def _backward(self, piece: Batch, receive: Receiver) -> Tensor:
        """The loss where the module is; each parameter's gradient is handed over as soon as it is whole."""
        live = self.theta
        outer = {name: p.grad for name, p in live.items()}
        hooks = []
        try:
            for name, p in live.items():
                p.grad = None
                hooks.append(p.register_post_accumulate_grad_hook(_handing_over(name, receive)))  # type: ignore[no-untyped-call]
            loss = self.objective(self.module, piece)
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            for hook in hooks:
                hook.remove()
            for name, p in live.items():
                p.grad = outer[name]
        return loss.detach()

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


def _handing_over(name: str, receive: Receiver) -> Callable[[Tensor], None]:
    @torch.no_grad()
    def hook(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        receive(name, gradient)

    return hook


def _shares(state: State) -> dict[str, list[str]]:
    """The keys of a rule's state by the tensor they belong to; under the empty name what all share."""
    shares: dict[str, list[str]] = defaultdict(list)
    for key in state:
        shares[key.partition("/")[2]].append(key)
    return shares


def _count(batch: Batch) -> int:
    return sum(1 for _ in pieces(batch))


def _on_host(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, made in the order of the device's own work: no step waits for it."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor.detach(), non_blocking=True)
