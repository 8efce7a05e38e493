"""The learner of Conv4 classifiers: what :class:`VmapLearner` computes, by passes written by hand."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from innerloop.core.inner import InnerRule, State
from innerloop.core.learner import VmapLearner
from innerloop.core.learner.base import BatchSize, Ledger, Objective
from innerloop.core.learner.vmapped import stack_batches
from innerloop.core.params import Params
from innerloop.core.task import Batch, Task
from innerloop.fewshot.backbones import Conv4
from innerloop.fewshot.conv_tasks.first_block import Neighbourhoods
from innerloop.fewshot.conv_tasks.layers import with_pixels_last
from innerloop.fewshot.conv_tasks.net import NetPass, Plan
from innerloop.fewshot.conv_tasks.recent import Recent
from innerloop.fewshot.conv_tasks.slices import for_each

Labelled = tuple[Tensor, Tensor]
Result = TypeVar("Result")

SLICE = 2**20
"""Numbers in the largest maps of the tasks computed together on a CPU: its caches hold them."""
GPU_SLICE = 2**22
"""The same on a GPU: more take more memory and no less time."""
PART = 16
"""Tasks whose meta-gradient a CPU's core computes at a time."""
KEPT = 2**23
"""Numbers in the largest maps of the passes that are kept."""


class ConvTasksLearner(VmapLearner):
    """Classifiers over Conv4 under the mean cross-entropy. See :class:`VmapLearner`.

    Hessian-vector products are forward-over-reverse. The passes of the last gradients and products are kept
    as far as their maps find room, so that a product after a gradient at the same point and batch, or after
    another product, does not begin anew; this memory does not grow with the inner steps. Those of a descent
    or of a gradient that is added to a sum are not: no product follows. Where the caller wants a graph, the
    module itself is run.

    Args:
        module: a :class:`~innerloop.fewshot.learners.classifier.Classifier`.
        objective: its mean cross-entropy, for where a graph is wanted.
        backbone: the module's.
        tasks_at_once: tasks in a bundle.
        batch_size: counts a bundle's work for the ledger.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        backbone: Conv4,
        tasks_at_once: int,
        batch_size: BatchSize | None = None,
    ) -> None:
        super().__init__(module, objective, tasks_at_once, self._stacked, batch_size, "forward")
        self._plan, self._width = Plan.of(backbone), backbone.width
        self._keeps = True
        self._forget()

    def _forget(self) -> None:
        self._stacks: Recent[Batch] = Recent(2)
        self._slices: Recent[list[_Slice]] = Recent(2)
        self._passes: Recent[list[_Pass]] = Recent(KEPT)

    @contextmanager
    def excursion(self) -> Iterator[Params]:
        """φ₀ = θ for every task of the last bundle; what was kept of its passes goes at the end."""
        try:
            with super().excursion() as theta:
                yield {name: with_pixels_last(tensor) for name, tensor in theta.items()}
        finally:
            self._forget()

    def descend(
        self, params: Params, batch: Batch, rule: InnerRule, state: State, rates: Params
    ) -> tuple[Tensor, Params, State]:
        """One step of an inner rule. See :class:`Learner`."""
        with self._keeping_nothing():
            return super().descend(params, batch, rule, state, rates)

    def add_gradient(self, params: Params, batch: Batch, total: Params, scale: float = 1.0) -> Tensor:
        """Adds the gradient to a sum. See :class:`Learner`."""
        with self._keeping_nothing():
            return super().add_gradient(params, batch, total, scale)

    @contextmanager
    def _keeping_nothing(self) -> Iterator[None]:
        self._keeps = False
        try:
            yield
        finally:
            self._keeps = True

    def parts(self, tasks: Sequence[Task]) -> "list[tuple[ConvTasksLearner, Sequence[Task]]]":
        """A bundle's tasks, a few at a time, each time with a learner of their own; on a GPU all in one."""
        on_cpu = next(iter(self.theta.values())).device.type == "cpu"
        count = min(PART, -(-len(tasks) // torch.get_num_threads())) if on_cpu else len(tasks)
        return [(self._apart(), tasks[start : start + count]) for start in range(0, len(tasks), count)]

    def account(self, parts: "Sequence[ConvTasksLearner]") -> None:
        """Enters what :meth:`parts` spent: the passes of all of them are passes over the bundle."""
        for count in ("gradient_passes", "forward_passes", "hessian_products"):
            spent = max(getattr(part.ledger, count) for part in parts)
            setattr(self.ledger, count, getattr(self.ledger, count) + spent)
        self.ledger.units += sum(part.ledger.units for part in parts)

    def _apart(self) -> "ConvTasksLearner":
        """A learner of the same module with a ledger and a memory of its own."""
        part = copy(self)
        part.ledger, part._stack = Ledger(), part._stacked
        part._forget()
        return part

    def _loss(self, params: Params, piece: Labelled) -> Tensor:
        images, labels = piece
        return torch.cat(
            for_each(
                lambda part: NetPass(self._plan, part.of(params), part.seen).loss(labels[part.tasks]),
                self._slices_of(images),
                images.device,
            )
        )

    def _gradient(self, params: Params, piece: Labelled, create_graph: bool) -> tuple[Tensor, Params]:
        if create_graph:
            return super()._gradient(params, piece, create_graph)
        found = self._differentiated(params, piece, lambda each: (each.loss, each.gradient))
        return torch.cat([loss for loss, _ in found]), _joined([gradient for _, gradient in found])

    def _forward_hessian_product(self, params: Params, piece: Labelled, direction: Params) -> Params:
        return _joined(
            self._differentiated(params, piece, lambda each: each.net.product(each.part.of(direction)))
        )

    def _differentiated(
        self, params: Params, piece: Labelled, finish: "Callable[[_Pass], Result]"
    ) -> list[Result]:
        """What is made of each slice's pass."""
        images, labels = piece

        def differentiate(part: _Slice) -> _Pass:
            net = NetPass(self._plan, part.of(params), part.seen)
            gradient = net.gradient(labels[part.tasks])
            return _Pass(part, net, net.loss(labels[part.tasks]), gradient)

        parts = self._slices_of(images)
        size = len(images) * self._numbers(images)
        # Of one that leaves no room for another, what is finished need not wait for the other slices.
        if not self._keeps or size > KEPT // 2:
            return for_each(lambda part: finish(differentiate(part)), parts, images.device)
        passes = self._passes.get(
            (params, piece), lambda: for_each(differentiate, parts, images.device), size
        )
        return for_each(finish, passes, images.device)

    def _slices_of(self, images: Tensor) -> "list[_Slice]":
        return self._slices.get((images,), lambda: self._cut(images))

    def _cut(self, images: Tensor) -> "list[_Slice]":
        size = SLICE if images.device.type == "cpu" else GPU_SLICE
        count = max(1, size // self._numbers(images))
        return for_each(
            lambda start: _Slice(
                slice(start, start + count),
                Neighbourhoods.of(images[start : start + count], self._plan.stride),
            ),
            range(0, len(images), count),
            images.device,
        )

    def _numbers(self, images: Tensor) -> int:
        """In a task's largest maps."""
        return images[0, :, 0, :: self._plan.stride, :: self._plan.stride].numel() * self._width

    def _stacked(self, batches: Sequence[Batch]) -> Batch:
        return self._stacks.get(tuple(batches), lambda: stack_batches(batches))


@dataclass(frozen=True)
class _Slice:
    """Some of a bundle's tasks, and their images."""

    tasks: slice
    seen: Neighbourhoods

    def of(self, params: Params) -> Params:
        """These tasks' points."""
        return {name: tensor[self.tasks] for name, tensor in params.items()}


@dataclass(frozen=True)
class _Pass:
    """A slice's pass, with its losses and gradients."""

    part: _Slice
    net: NetPass
    loss: Tensor
    gradient: Params


def _joined(parts: Sequence[Params]) -> Params:
    """The slices' tensors in one, in the layout they have."""
    if len(parts) == 1:
        return parts[0]
    return {
        name: torch.cat([part[name].flatten(0, 1) for part in parts]).view(-1, *tensor.shape[1:])
        for name, tensor in parts[0].items()
    }
