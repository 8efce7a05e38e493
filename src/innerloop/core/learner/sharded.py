"""The learner of a model whose weights lie in shards on several processes, as FSDP2 lays them.

No process can run such a model without the others, so all that hold shards of one copy walk in step: the same
passes in the same order. What each runs them on is one of two things. Where adapted weights are sharded, the
processes share one task and cut the rows of its batches among them. Where only frozen weights are, each
process has all of the adapted ones and a task of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from innerloop.core.errors import InputError
from innerloop.core.learner.base import BatchSize, Objective
from innerloop.core.learner.in_place import InPlaceLearner, Receiver
from innerloop.core.params import Params
from innerloop.core.task import Batch, pieces

Cut = Callable[[Batch, int, int], Batch]
"""The i-th of n processes' part of a piece; the losses of the parts add up to the piece's."""

_NOT_TWICE = (
    "a sharded model's weights are gone before a second derivative could use them; set meta.hvp=central"
)


@dataclass(frozen=True)
class Holders:
    """The processes that hold the shards of one copy of a model.

    Args:
        place: of this process among them.
        count: how many they are.
        processes: their process group.
    """

    place: int
    count: int
    processes: "dist.ProcessGroup"

    def sum(self, value: Tensor) -> Tensor:
        """The sum of what they have."""
        return self._reduced(value, dist.ReduceOp.SUM)

    def most(self, value: int) -> int:
        """The largest of what they have."""
        return int(self._reduced(torch.tensor(value), dist.ReduceOp.MAX))

    def _reduced(self, value: Tensor, how: "dist.ReduceOp.RedOpType") -> Tensor:
        if self.count == 1:
            return value
        result = value.clone()
        dist.all_reduce(result, how, group=self.processes)
        return result


class ShardedLearner(InPlaceLearner):
    """One task at a time, in a module that FSDP2 has sharded. See :class:`Learner`.

    Only first derivatives can be taken, so Hessian-vector products are central differences. The gradients of
    sharded weights must be summed over the holders, not averaged.

    Args:
        module: the sharded model.
        objective: the loss of a batch.
        holders: the processes that hold its shards.
        cut: shares out the rows of a batch among the holders, where adapted weights are sharded; none gives
            each holder its own task.
        computes_in: the dtype of forward and backward, where it is another than the parameters'.
        batch_size: counts a batch's work for the ledger; by default 1.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        holders: Holders,
        cut: Cut | None = None,
        computes_in: torch.dtype | None = None,
        batch_size: BatchSize | None = None,
    ) -> None:
        super().__init__(module, objective, batch_size, "central")
        self.holders, self._cut, self._computes_in = holders, cut, computes_in

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """The loss at a point, over the rows of all holders that share a task."""
        loss = super().loss(params, batch)
        with torch.no_grad():
            for piece in self._idle_pieces(batch):
                self._loss(params, piece)
        return loss

    def shelve(self, tensors: Params) -> Params:
        """A copy where it is: shards are no plain tensors, and small."""
        return self.keep(tensors)

    def any_goes_on(self, going: Tensor) -> bool:
        """Whether any task does, of this process or of another that must walk in step."""
        return bool(self.holders.most(int(going.any())))

    def _idle_pieces(self, batch: Batch) -> list[Batch]:
        """What to run for nothing, since another holder's batch has more pieces than this one's."""
        if self._cut is not None or self.holders.count == 1:
            return []
        own = list(pieces(batch))
        return [own[-1]] * (self.holders.most(len(own)) - len(own))

    def _part(self, piece: Batch) -> Batch:
        return piece if self._cut is None else self._cut(piece, self.holders.place, self.holders.count)

    def _over_rows(self, loss: Tensor) -> Tensor:
        return loss if self._cut is None else self.holders.sum(loss.detach())

    def _loss(self, params: Params, piece: Batch) -> Tensor:
        return self._over_rows(super()._loss(params, self._part(piece)))

    def _stream(self, params: Params, batch: Batch, receive: Receiver) -> Tensor:
        loss = super()._stream(params, batch, receive)
        with torch.enable_grad():
            for piece in self._idle_pieces(batch):
                self._backward(piece, lambda _name, _gradient: None)
        return loss

    def _backward(self, piece: Batch, receive: Receiver) -> Tensor:
        return self._over_rows(super()._backward(self._part(piece), receive))

    def _coarseness(self) -> float:
        own = 0.0 if self._computes_in is None else torch.finfo(self._computes_in).eps
        return max(super()._coarseness(), own)

    def _reverse_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params:  # noqa: ARG002
        raise InputError(_NOT_TWICE)

    def _forward_hessian_product(self, params: Params, piece: Batch, direction: Params) -> Params:  # noqa: ARG002
        raise InputError(_NOT_TWICE)
