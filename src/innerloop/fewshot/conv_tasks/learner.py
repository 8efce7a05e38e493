"""The learner of Conv4 classifiers: what :class:`VmapLearner` computes, by passes written by hand."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from innerloop.core.learner import VmapLearner
from innerloop.core.learner.base import BatchSize, Objective
from innerloop.core.learner.vmapped import stack_batches
from innerloop.core.params import Params
from innerloop.core.task import Batch
from innerloop.fewshot.backbones import Conv4
from innerloop.fewshot.conv_tasks.first_block import Neighbourhoods
from innerloop.fewshot.conv_tasks.net import NetPass, Plan
from innerloop.fewshot.conv_tasks.recent import Recent

Labelled = tuple[Tensor, Tensor]

SLICE = 2**22
"""Numbers in the largest maps of the tasks computed together; more take more memory and no less time."""


class ConvTasksLearner(VmapLearner):
    """Classifiers over Conv4 under the mean cross-entropy. See :class:`VmapLearner`.

    Hessian-vector products are forward-over-reverse. The passes of the last two gradients or products are
    kept if they are of one slice of tasks, so that a product after a gradient at the same point and batch,
    or after another product, does not begin anew; this memory does not grow with the inner steps. Where the
    caller wants a graph, the module itself is run.

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
        self._stacks: Recent[Batch] = Recent(2)
        self._slices: Recent[list[_Slice]] = Recent(2)
        self._passes: Recent[tuple[NetPass, Params]] = Recent(2)

    @contextmanager
    def excursion(self) -> Iterator[Params]:
        """φ₀ = θ for every task of the last bundle; what was kept of its passes goes at the end."""
        try:
            with super().excursion() as theta:
                yield theta
        finally:
            for kept in (self._stacks, self._slices, self._passes):
                kept.clear()

    def _loss(self, params: Params, piece: Labelled) -> Tensor:
        images, labels = piece
        losses = [
            NetPass(self._plan, part.of(params), part.seen).loss(labels[part.tasks])
            for part in self._slices.get((images,), lambda: self._cut(images))
        ]
        return torch.cat(losses)

    def _gradient(self, params: Params, piece: Labelled, create_graph: bool) -> tuple[Tensor, Params]:
        if create_graph:
            return super()._gradient(params, piece, create_graph)
        with torch.no_grad():
            found = [
                (net.loss(labels), gradient)
                for net, labels, gradient, _ in self._differentiated(params, piece)
            ]
            return torch.cat([loss for loss, _ in found]), _joined([gradient for _, gradient in found])

    def _forward_hessian_product(self, params: Params, piece: Labelled, direction: Params) -> Params:
        with torch.no_grad():
            return _joined(
                [net.product(part.of(direction)) for net, _, _, part in self._differentiated(params, piece)]
            )

    def _differentiated(
        self, params: Params, piece: Labelled
    ) -> Iterator[tuple[NetPass, Tensor, Params, "_Slice"]]:
        """Each slice's pass, labels and gradient."""
        images, labels = piece

        def differentiate(part: _Slice) -> tuple[NetPass, Params]:
            net = NetPass(self._plan, part.of(params), part.seen)
            return net, net.gradient(labels[part.tasks])

        parts = self._slices.get((images,), lambda: self._cut(images))
        for part in parts:
            if len(parts) == 1:
                net, gradient = self._passes.get((params, piece), lambda: differentiate(parts[0]))
            else:
                net, gradient = differentiate(part)
            yield net, labels[part.tasks], gradient, part

    def _cut(self, images: Tensor) -> "list[_Slice]":
        stride = self._plan.stride
        numbers = images[0, :, 0, ::stride, ::stride].numel() * self._width
        count = max(1, SLICE // numbers)
        return [
            _Slice(slice(start, start + count), Neighbourhoods.of(images[start : start + count], stride))
            for start in range(0, len(images), count)
        ]

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


def _joined(parts: Sequence[Params]) -> Params:
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
