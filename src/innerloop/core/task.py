"""What a task is to the core: something that hands out support and query batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from innerloop.core.params import Params

Batch = Any
"""Whatever the objective understands: a tensor, a tuple, a dataclass registered with PyTorch's pytrees."""


class MicroBatches(tuple[Batch, ...]):
    """One batch cut into pieces that fit in memory. The losses of the pieces add up to the batch's loss."""

    __slots__ = ()


def pieces(batch: Batch) -> Iterator[Batch]:
    """The batch's pieces, one after another; a whole batch is its own single piece."""
    if isinstance(batch, MicroBatches):
        yield from batch
    else:
        yield batch


class Task(Protocol):
    """One episode: support batches to adapt on, a query batch to be judged on.

    Batches are asked for with the parameters of the moment, because some tasks (reinforcement learning)
    collect their data with the policy being adapted; supervised tasks ignore them. Calls with the same
    arguments must return the same data.
    """

    @property
    def name(self) -> str:
        """What the task is called in metrics and errors."""

    def support(self, step: int, params: Params) -> Batch:
        """The fresh support batch of inner step ``step`` (counted from 0)."""

    def query(self, params: Params) -> Batch:
        """The query batch."""


@dataclass(frozen=True)
class FixedTask:
    """A task whose batches are drawn already. Inner steps past the last support batch start over."""

    name: str
    support_batches: Sequence[Batch]
    query_batch: Batch

    def support(self, step: int, params: Params) -> Batch:  # noqa: ARG002
        """The support batch of this step."""
        return self.support_batches[step % len(self.support_batches)]

    def query(self, params: Params) -> Batch:  # noqa: ARG002
        """The query batch."""
        return self.query_batch


@dataclass(frozen=True)
class TaskStack:
    """Several tasks run as one by a learner that maps over a leading task dimension.

    Args:
        tasks: the tasks, ``T`` of them.
        stack: joins ``T`` batches into one whose tensors have a leading dimension ``T``.
    """

    tasks: Sequence[Task]
    stack: Callable[[Sequence[Batch]], Batch]

    @property
    def name(self) -> str:
        """The names of all the tasks."""
        return ", ".join(task.name for task in self.tasks)

    def support(self, step: int, params: Params) -> Batch:
        """The stacked support batches of this step."""
        points = self._points(params)
        return self.stack([task.support(step, at) for task, at in zip(self.tasks, points, strict=True)])

    def query(self, params: Params) -> Batch:
        """The stacked query batches."""
        return self.stack([task.query(at) for task, at in zip(self.tasks, self._points(params), strict=True)])

    def _points(self, params: Params) -> list[Params]:
        """Each task's."""
        return [
            dict(zip(params, tensors, strict=True))
            for tensors in zip(*(tensor.unbind() for tensor in params.values()), strict=True)
        ]
