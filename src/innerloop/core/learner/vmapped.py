"""The vmapped learner: several tasks in one call, the frozen weights shared by all of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.utils._pytree import tree_map

from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.learner.base import BatchSize, HessianProduct, Objective
from innerloop.core.learner.functional import FunctionalLearner
from innerloop.core.params import Params
from innerloop.core.task import Batch, MicroBatches, Task, TaskStack


def stack_batches(batches: Sequence[Batch]) -> Batch:
    """Batches of equal shapes as one batch with a leading task dimension, piece by piece if they are cut."""
    if isinstance(batches[0], MicroBatches):
        return MicroBatches(stack_batches(alike) for alike in zip(*batches, strict=True))
    return tree_map(lambda *tensors: torch.stack(tensors), *batches)


class VmapLearner(FunctionalLearner):
    """Up to ``tasks_at_once`` tasks a call through ``vmap``. See :class:`Learner`.

    Gradient checkpointing, dropout and running statistics are refused here: PyTorch cannot map over them.

    Args:
        module: the model.
        objective: the loss of one task's batch.
        tasks_at_once: tasks in a bundle: more is faster on a GPU, and needs the memory of as many graphs.
        stack: joins the batches of several tasks; by default they must have equal shapes.
        batch_size: counts a bundle's work for the ledger.
        hessian_product: how Hessian-vector products are taken.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        tasks_at_once: int,
        stack: Callable[[Sequence[Batch]], Batch] = stack_batches,
        batch_size: BatchSize | None = None,
        hessian_product: HessianProduct = "reverse",
    ) -> None:
        super().__init__(module, objective, batch_size, hessian_product)
        if tasks_at_once < 1:
            raise InputError(f"tasks_at_once must be at least 1, not {tasks_at_once}")
        self.tasks_at_once = tasks_at_once
        self._stack = stack
        self._tasks = 1

    @contextmanager
    def excursion(self) -> Iterator[Params]:
        """φ₀ = θ for every task of the last bundle."""
        with self._buffers_restored():
            yield {name: p.detach().expand(self._tasks, *p.shape) for name, p in self.theta.items()}

    def bundle(self, tasks: Sequence[Task]) -> Task:
        """The tasks stacked; the next excursion is theirs."""
        self._tasks = len(tasks)
        return TaskStack(tuple(tasks), self._stack)

    def unbundle(self, tensors: Params) -> list[Params]:
        """One dictionary a task."""
        return [{name: tensor[i] for name, tensor in tensors.items()} for i in range(self._tasks)]

    def lift(self, function: Callable[..., Any], in_dims: Any = 0) -> Callable[..., Any]:
        """The function mapped over the task dimension."""
        return vmap(function, in_dims=in_dims)

    def pool(self, params: Params) -> Params:
        """The sum over tasks."""
        return {name: tensor.sum(0) for name, tensor in params.items()}

    def _loss(self, params: Params, piece: Batch) -> Tensor:
        return vmap(super()._loss)(params, piece)

    def _gradient(self, params: Params, piece: Batch, create_graph: bool) -> tuple[Tensor, Params]:
        if create_graph:
            # PyTorch 2.13 differentiates vmap(grad(...)) of an affine layer or batch norm wrongly, and
            # silently, from outside the vmap: https://github.com/pytorch/functorch/issues/534.
            return self._one_after_another(params, piece)
        single_loss = super()._loss
        gradient, loss = vmap(grad_and_value(single_loss))(params, piece)
        return loss.detach(), vector.detached(gradient)

    def _one_after_another(self, params: Params, piece: Batch) -> tuple[Tensor, Params]:
        losses, gradients = [], []
        for i, point in enumerate(self.unbundle(params)):
            loss, gradient = super()._gradient(point, tree_map(itemgetter(i), piece), create_graph=True)
            losses.append(loss)
            gradients.append(gradient)
        return torch.stack(losses), stack_batches(gradients)

    def _reverse_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params:
        single_loss = super()._loss

        def along(point: Params, batch: Batch, towards: Params) -> Tensor:
            return vector.dot(torch.func.grad(single_loss)(point, batch), towards)

        return vector.detached(vmap(torch.func.grad(along))(params, piece, direction))

    def _forward_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params:
        single_loss = super()._loss

        def product(point: Params, batch: Batch, towards: Params) -> Params:
            gradient = torch.func.grad(lambda at: single_loss(at, batch))
            result: Params = torch.func.jvp(gradient, (point,), (towards,))[1]
            return result

        return vector.detached(vmap(product)(vector.detached(params), piece, direction))
