"""The interface between strategies and models, and the ledger of what was spent."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.inner import InnerRule, State
from innerloop.core.learner.refusals import refusals_explained
from innerloop.core.params import Params
from innerloop.core.task import Batch, Task, pieces

Result = TypeVar("Result")

Objective = Callable[[nn.Module, Batch], Tensor]
"""The loss of a batch (or its share of the loss, for a micro-batch) under a module: a scalar tensor."""

BatchSize = Callable[[Batch], int]
"""How much work a batch is, in the domain's unit (tokens, images, environment steps)."""

HessianProduct = Literal["reverse", "forward", "central"]
"""Double backward; forward-over-reverse; central difference of gradients."""


@dataclass
class Ledger:
    """What was spent, in passes over a batch and in the domain's unit of data.

    A Hessian-vector product by central difference counts as the two gradients it takes.
    """

    gradient_passes: int = 0
    forward_passes: int = 0
    hessian_products: int = 0
    units: int = 0

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up saved counts."""
        for name in self.state_dict():
            setattr(self, name, int(state[name]))


class Learner(ABC):
    """A model, its objective and the parameters that are adapted.

    Points of the parameter space are dictionaries from parameter name to tensor. A learner that runs
    several tasks at once gives every tensor of a point a leading task dimension ``T``; losses then have
    the shape ``(T,)`` instead of ``()``.

    Args:
        module: the model; its parameters with ``requires_grad`` are the meta-parameters θ.
        objective: the loss of a batch.
        batch_size: counts a batch's work for the ledger; by default 1.
        hessian_product: how Hessian-vector products are taken.
    """

    tasks_at_once: int = 1

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        batch_size: BatchSize | None = None,
        hessian_product: HessianProduct = "reverse",
    ) -> None:
        self.module, self.objective = module, objective
        self.hessian_product: HessianProduct = hessian_product
        self.ledger = Ledger()
        self.monitors = True
        """Whether strategies also measure losses that they do not need."""
        self.masters: Mapping[str, Tensor] = {}
        """Finer copies that θ is rounded from, by name; whoever keeps them spares an excursion its own."""
        self._batch_size = batch_size or (lambda _batch: 1)
        if not self.theta:
            raise InputError("the model has no parameter to adapt: every parameter is frozen")

    @property
    def theta(self) -> dict[str, nn.Parameter]:
        """The module's adapted parameters, tied ones once."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    @property
    def buffers(self) -> Params:
        """What the module remembers besides its parameters, and saves with them: running statistics."""
        names = {name for name, _ in self.module.named_parameters(remove_duplicate=False)}
        return {name: t for name, t in self.module.state_dict().items() if name not in names}

    @abstractmethod
    def excursion(self) -> Any:
        """A context that gives φ₀ = θ and, however it ends, puts θ and all buffers back, bit for bit."""

    @abstractmethod
    def keep(self, params: Params) -> Params:
        """The point as it is now, safe from later moves."""

    @abstractmethod
    def move(self, params: Params, update: Params) -> Params:
        """``params + update``. The old point may be gone afterwards; ``keep`` it first if it is needed."""

    @abstractmethod
    def run_at(self, params: Params, body: Callable[[], Result]) -> Result:
        """The result of a function that uses the module while it holds a point (one task's)."""

    def commit(self, params: Params) -> None:
        """Makes a point the module's own: θ ← params."""
        with torch.no_grad():
            for name, live in self.theta.items():
                live.copy_(params[name])
                if name in self.masters:
                    self.masters[name].copy_(params[name])

    def shelve(self, tensors: Params) -> Params:
        """The tensors as they are now, to come back to: a learner may lay them where memory is not short."""
        return self.keep(tensors)

    def fetch(self, tensors: Params) -> Params:
        """What was shelved, ready to compute with."""
        return tensors

    @abstractmethod
    def _loss(self, params: Params, piece: Batch) -> Tensor: ...

    @abstractmethod
    def _reverse_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params: ...

    @abstractmethod
    def _forward_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params: ...

    def lift(self, function: Callable[..., Any], in_dims: Any = 0) -> Callable[..., Any]:  # noqa: ARG002
        """A function of one task's tensors as a function of this learner's tensors."""
        return function

    def bundle(self, tasks: Sequence[Task]) -> Task:
        """Up to ``tasks_at_once`` tasks as the one task this learner runs."""
        (task,) = tasks
        return task

    def unbundle(self, tensors: Params) -> list[Params]:
        """The dictionaries of the single tasks in a bundle."""
        return [tensors]

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """The loss at a point, outside any graph."""
        self._record(batch, forward_passes=1)
        with torch.no_grad(), refusals_explained():
            return torch.stack([self._loss(params, piece).detach() for piece in pieces(batch)]).sum(0)

    @abstractmethod
    def gradient(self, params: Params, batch: Batch, create_graph: bool = False) -> tuple[Tensor, Params]:
        """Loss and gradient at a point, also where the caller has switched gradients off.

        Args:
            params: the point.
            batch: a batch or its micro-batches.
            create_graph: keep the graph, so that the result can be differentiated by ``params``
                (functional learners only).
        """

    def add_gradient(self, params: Params, batch: Batch, total: Params, scale: float = 1.0) -> Tensor:
        """Adds ``scale`` times the gradient, summed over the bundle's tasks, to ``total`` in its own memory.

        Args:
            params: the point.
            batch: a batch or its micro-batches.
            total: tensors of the shapes of θ, in any precision that is fine enough for the sum.
            scale: the weight.

        Returns:
            The loss at the point.
        """
        loss, gradient = self.gradient(params, batch)
        vector.add_(total, self.pool(gradient), scale)
        return loss

    def descend(
        self, params: Params, batch: Batch, rule: InnerRule, state: State, rates: Params
    ) -> tuple[Tensor, Params, State]:
        """One step of an inner rule. The old point and the old state may be gone afterwards.

        Returns:
            The loss before the step, the point reached and the rule's next state.
        """
        loss, gradient = self.gradient(params, batch)
        with torch.no_grad():
            update, following = self.lift(rule.update, in_dims=(0, 0, None))(gradient, state, rates)
            return loss, self.move(params, update), following

    def hvp(self, params: Params, batch: Batch, direction: Params) -> Params:
        """The Hessian of the loss at ``params`` times ``direction``."""
        if self.hessian_product == "central":
            return self._central_hessian_product(params, batch, direction)
        self._record(batch, hessian_products=1)
        product = {
            "reverse": self._reverse_hessian_product,
            "forward": self._forward_hessian_product,
        }[self.hessian_product]
        total: Params = {}
        with self._differentiating():
            for piece in pieces(batch):
                result = product(params, piece, direction)
                total = vector.add(total, result) if total else result
        return total

    def _central_hessian_product(self, params: Params, batch: Batch, direction: Params) -> Params:
        """(∇S(θ + εu) − ∇S(θ − εu)) / 2ε, with ‖εu‖ a fixed small share of ‖θ‖ (Liu 2019; Choe 2023)."""
        point = self.fetch(self.keep(params))
        share = self._coarseness() ** 0.5

        def width(at: Params, along: Params) -> Tensor:
            length, size = vector.norm(along), vector.norm(at)
            return torch.where(length > 0, share * torch.where(size > 0, size, 1.0) / length, length)

        def displaced(at: Params, along: Params, by: Tensor) -> Params:
            return vector.add(at, along, by)

        def quotient(plus: Params, minus: Params, by: Tensor) -> Params:
            # A zero direction has ε = 0 and product 0.
            return vector.scaled(vector.subtract(plus, minus), torch.where(by > 0, 0.5 / by, by))

        epsilon = self.lift(width)(point, direction)
        device = next(iter(point.values())).device
        # Both sides must draw the same dropout masks: any other difference between them is divided by ε.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            ahead = self.gradient(self.lift(displaced)(point, direction, epsilon), batch)[1]
        behind = self.gradient(self.lift(displaced)(point, direction, -epsilon), batch)[1]
        return dict(self.lift(quotient)(ahead, behind, epsilon))

    def _coarseness(self) -> float:
        """The relative rounding error of gradients: that of the coarsest weights, be they frozen."""
        return max(torch.finfo(p.dtype).eps for p in self.module.parameters() if p.is_floating_point())

    def any_goes_on(self, going: Tensor) -> bool:
        """Whether an iteration over a bundle's tasks has anything left to do.

        Args:
            going: shape ``(T,)`` or ``()``, whether each task has.
        """
        return bool(going.any())

    def pool(self, params: Params) -> Params:
        """The sum over the bundle's tasks, in the shapes of θ."""
        return params

    @staticmethod
    def _sum(losses: Sequence[Tensor]) -> Tensor:
        """The loss of a batch from those of its pieces."""
        if not losses:
            raise InputError("a batch without pieces has no gradient")
        return sum(losses[1:], start=losses[0])

    def _record(self, batch: Batch, **passes: int) -> None:
        for name, count in passes.items():
            setattr(self.ledger, name, getattr(self.ledger, name) + count)
        self.ledger.units += sum(self._batch_size(piece) for piece in pieces(batch))

    @contextmanager
    def _differentiating(self) -> Iterator[None]:
        if torch.is_inference_mode_enabled():
            raise InputError("gradients cannot be taken inside torch.inference_mode(); use torch.no_grad()")
        with torch.enable_grad(), refusals_explained():
            yield

    @contextmanager
    def _buffers_restored(self) -> Iterator[None]:
        """Running statistics gathered on one task must not reach the next."""
        before = {name: buffer.detach().clone() for name, buffer in self.module.named_buffers()}
        try:
            yield
        finally:
            for name, buffer in self.module.named_buffers():
                if name in before:
                    buffer.detach().copy_(before[name])

    @contextmanager
    def unaccounted(self) -> Iterator[None]:
        """Work inside this context (monitoring, evaluation) is left out of the ledger."""
        before = self.ledger.state_dict()
        try:
            yield
        finally:
            self.ledger.load_state_dict(before)
