"""The processes that train together: which tasks each adapts to, and what they tell each other.

Everything a run needs of the others goes through a :class:`World`. One process alone is a world too, in which
there is nobody to tell, so that no code asks which of the two it is in. Only the meta-gradient, figures and
errors cross between processes here; the gradients of inner steps never do.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from innerloop.core.devices import pick_device
from innerloop.core.errors import InnerloopError, InputError, Interrupted
from innerloop.core.launch import launched, rank_on_machine
from innerloop.core.params import local

Said = TypeVar("Said")

BUCKET = 64 << 20
"""Bytes summed in one message: small tensors are sent together, and no copy of all of them is made."""

# The main process may be long at a checkpoint or an evaluation while the others wait for its word; one that
# has died is noticed by torchrun, and not by its silence.
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Turn:
    """One task of a process's share.

    Args:
        index: its place in the meta-batch.
        counts: whether its meta-gradient is this process's to give. One that does not count is adapted to
            only because the others cannot take a step without this process.
    """

    index: int
    counts: bool = True


class World:
    """The processes of a run, as one of them sees it.

    Tasks are shared out among groups of processes. A group is one process, unless the module's adapted
    parameters are sharded: then the processes that hold the shards of one copy walk through a task together.

    Args:
        rank: this process's number.
        size: how many processes there are.
        group_size: processes in a group, neighbours by rank; it divides ``size``.
        in_step: whether no process can run the model without the others, as when its weights are sharded.
        across: the process group of those at this one's place in the other groups, through which tensors
            travel; none is that of all processes.
        words: the process group of all through which words travel, in host memory.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        group_size: int = 1,
        in_step: bool = False,
        across: "dist.ProcessGroup | None" = None,
        words: "dist.ProcessGroup | None" = None,
    ) -> None:
        self.rank, self.size, self.group_size, self.in_step = rank, size, group_size, in_step
        self._across, self._words = across, words

    def in_groups(self, group_size: int, in_step: bool, across: "dist.ProcessGroup | None") -> "World":
        """The same processes, grouped otherwise; the arguments are those of the class."""
        return World(self.rank, self.size, group_size, in_step, across, self._words)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files, logs and progress for all."""
        return self.rank == 0

    @property
    def groups(self) -> int:
        """Among how many groups tasks are shared out."""
        return self.size // self.group_size

    @property
    def group(self) -> int:
        """The number of this process's group."""
        return self.rank // self.group_size

    def turns(self, tasks: int, at_least_one: bool = True) -> list[Turn]:
        """This process's share of so many tasks, every ``groups``-th.

        Args:
            tasks: how many there are.
            at_least_one: refuse to leave a group without any.

        Raises:
            InputError: if there are fewer tasks than groups, and that is not allowed.
        """
        if at_least_one and tasks < self.groups:
            what = "processes" if self.group_size == 1 else f"groups of {self.group_size} processes"
            raise InputError(
                f"a meta-step of {tasks} task{'s' * (tasks != 1)} cannot keep {self.groups} {what} busy; "
                "start fewer, or raise meta.meta_batch_size"
            )
        share = [Turn(index) for index in range(self.group, tasks, self.groups)]
        if self.in_step:
            rounds = -(-tasks // self.groups)
            share += [Turn(tasks - 1, counts=False)] * (rounds - len(share))
        return share

    def sum_over_groups(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors (of shards: the local part) by their sums over the groups, in place."""
        if self.groups == 1:
            return
        with torch.no_grad():
            for bucket in _buckets([local(tensor) for tensor in tensors]):
                if len(bucket) == 1 and bucket[0].is_contiguous():
                    dist.all_reduce(bucket[0], group=self._across)
                    continue
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                dist.all_reduce(flat, group=self._across)
                for tensor, part in zip(bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True):
                    tensor.copy_(part.view_as(tensor))

    def gather(self, said: Said) -> list[Said]:
        """What each group says, in order: small things that pickle can hold."""
        if self.size == 1:
            return [said]
        heard: list[Any] = [None] * self.size
        dist.all_gather_object(heard, said, group=self._words)
        return heard[:: self.group_size]

    def from_main(self, say: Callable[[], Said]) -> Said:
        """What the main process says; an error of its is raised on every process."""
        said: list[Any] = [None]
        with self.together():
            if self.is_main:
                said[0] = say()
        if self.size > 1:
            dist.broadcast_object_list(said, group=self._words)
        result: Said = said[0]
        return result

    def agree(self, problem: InnerloopError | None) -> None:
        """Raises on every process what went wrong on any of them; every process must come here.

        Args:
            problem: what went wrong on this one. A request to stop gives way to a fault.
        """
        if self.size > 1:
            trouble = torch.tensor(int(problem is not None))
            dist.all_reduce(trouble, dist.ReduceOp.MAX, group=self._words)
            if trouble:
                heard: list[Any] = [None] * self.size
                dist.all_gather_object(heard, problem, group=self._words)
                found = [error for error in heard if error is not None]
                faults = [error for error in found if not isinstance(error, Interrupted)]
                problem = (faults or found)[0]
                problem.told_by_main = not self.is_main
        if problem is not None:
            raise problem

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work of which all wait for the end; an error of one is raised on all."""
        problem = None
        try:
            yield
        except InnerloopError as error:
            problem = error
        self.agree(problem)


def take_device(name: str = "auto", strict: bool = False) -> torch.device:
    """As :func:`pick_device`; of several GPUs this process takes the one that torchrun's LOCAL_RANK names.

    Raises:
        InputError: as :func:`pick_device`; or there are more processes than GPUs on this machine, or several
            processes and a device between which tensors cannot travel.
    """
    device = pick_device(name, strict)
    if not launched() or device.type == "cpu":
        return device
    if device.type != "cuda" or ":" in name:
        raise InputError(f"several processes cannot share the device '{name}'; use cuda or cpu")
    index, present = rank_on_machine(), torch.cuda.device_count()
    if index >= present:
        raise InputError(
            f"torchrun started more processes on this machine than its {present} GPUs; "
            f"use --nproc_per_node {present}, or trainer.device=cpu"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun started this process in, or that of one process, until the context ends."""
    if not launched():
        yield World()
        return
    start_group()
    words = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), words=words)
    except InnerloopError:
        dist.destroy_process_group()  # all have ended alike
        raise
    dist.destroy_process_group()


def start_group() -> None:
    """Starts PyTorch's process group once a process: torchrun's, or that of this process alone."""
    if dist.is_initialized():
        return
    # Offloaded shards are in host memory also where the device is a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if launched():
        dist.init_process_group(backend)
    else:
        alone = dist.HashStore()  # type: ignore[attr-defined]  # exported, but not by name
        dist.init_process_group(backend, store=alone, rank=0, world_size=1)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, neighbours of one dtype and device together up to the size of a message."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        alike = not bucket or (bucket[0].dtype, bucket[0].device) == (tensor.dtype, tensor.device)
        if bucket and (not alike or size + tensor.nbytes > BUCKET):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket
