"""Random choices that can be saved and resumed exactly.

Nothing here holds a random generator. A stream's order is a pure function of its seed and of how many
items it has given out, so its whole state is one integer, and a resumed run draws what the uninterrupted
one would have drawn.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from innerloop.core.errors import InputError
from innerloop.core.task import Task

SamplerState = dict[str, int]


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any number of parts; different parts give independent seeds."""
    text = "\x1f".join(str(part) for part in parts)
    # A folder whose name is no valid text reaches Python as surrogates, and names are parts of seeds.
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1


class IndexStream:
    """An endless stream over ``range(size)``, each index once a pass.

    Args:
        size: how many indices there are, at least 1.
        seed: decides the order of every pass.
        shuffled: whether passes are shuffled; otherwise they run from 0 up.
    """

    def __init__(self, size: int, seed: int, shuffled: bool = True) -> None:
        if size < 1:
            raise InputError("cannot sample from an empty collection")
        self.size, self.seed, self.shuffled = size, seed, shuffled
        self.position = 0
        self._pass = -1
        self._order: list[int] = []

    def take(self, count: int) -> list[int]:
        """The next ``count`` indices. A batch no larger than ``size`` never holds an index twice."""
        if count <= self.size and self.position % self.size + count > self.size:
            # A batch across the border of two passes could repeat an index: begin the next pass instead.
            self.position += self.size - self.position % self.size
        taken = []
        for _ in range(count):
            current, offset = divmod(self.position, self.size)
            if current != self._pass:
                self._order, self._pass = self._shuffle(current), current
            taken.append(self._order[offset])
            self.position += 1
        return taken

    def _shuffle(self, number: int) -> list[int]:
        if not self.shuffled:
            return list(range(self.size))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, number))
        order: list[int] = torch.randperm(self.size, generator=generator).tolist()
        return order


class TaskSource(Protocol):
    """A family member from which episodes are drawn, for example one prepared data set."""

    @property
    def name(self) -> str:
        """The source's name, unique in its sampler."""

    def draw(self) -> Task:
        """The next episode; the draw moves the source's state on."""

    def state_dict(self) -> SamplerState:
        """The state, as integers."""

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up a saved state."""


class TaskSampler(Protocol):
    """Gives the tasks of one meta-batch after another."""

    def sample(self) -> list[Task]:
        """The tasks of the next meta-batch."""

    def state_dict(self) -> SamplerState:
        """The state, as integers."""

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up a saved state."""


class EpisodeSampler:
    """Draws each meta-batch from shuffled passes over several sources.

    Args:
        sources: where episodes come from; names must differ.
        meta_batch_size: tasks in a meta-batch.
        seed: decides the order of the sources.
    """

    def __init__(self, sources: Sequence[TaskSource], meta_batch_size: int, seed: int) -> None:
        if len({source.name for source in sources}) != len(sources):
            raise InputError("two tasks have the same name; give each its own")
        if not sources:
            raise InputError("no task to train on; name at least one in meta.tasks")
        self.sources = {source.name: source for source in sources}
        self.meta_batch_size = meta_batch_size
        self._names = [source.name for source in sources]
        self._stream = IndexStream(len(sources), derive_seed(seed, "tasks"))

    def sample(self) -> list[Task]:
        """The tasks of the next meta-batch."""
        chosen = self._stream.take(self.meta_batch_size)
        return [self.sources[self._names[index]].draw() for index in chosen]

    def state_dict(self) -> SamplerState:
        """The positions of this sampler and of every source."""
        state = {"tasks": self._stream.position}
        for name, source in self.sources.items():
            state.update({f"{name}/{key}": value for key, value in source.state_dict().items()})
        return state

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up saved positions; the sources must be those of the saved run."""
        try:
            self._stream.position = state["tasks"]
            for name, source in self.sources.items():
                keys = source.state_dict()
                source.load_state_dict({key: state[f"{name}/{key}"] for key in keys})
        except KeyError as missing:
            raise InputError(
                f"the checkpoint knows nothing of {missing}; resume with the tasks it was trained on"
            ) from missing
