"""Named tensors on disk, in safetensors files that are read when a tensor is asked for.

A sharded tensor is stored as it lies in memory: each process writes the rows it holds to a file of its own,
and a run of another number of processes reads the rows that it will hold from whichever files have them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from innerloop.core.parallel import World
from innerloop.core.params import local

_WHOLE = "tensors.safetensors"


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], world: World) -> None:
    """Writes tensors: those that every process has whole once, and a file for each shard of the others.

    Args:
        folder: made if missing; where shards are written, all processes must see it.
        tensors: plain ones, or cut along their first dimension over the processes of a group.
        world: the processes; all must come here.
    """
    cut = {name: tensor for name, tensor in tensors.items() if is_sharded(tensor)}
    if world.is_main or cut:
        folder.mkdir(exist_ok=True)
    if world.is_main:
        _save({name: tensor for name, tensor in tensors.items() if name not in cut}, folder / _WHOLE)
    if cut and world.group == 0:
        _save({name: local(tensor) for name, tensor in cut.items()}, folder / _shard_name(world.rank))


def is_sharded(tensor: Tensor) -> bool:
    """Whether a process holds only a part of the tensor."""
    return local(tensor) is not tensor


def as_it_lies(stored: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A stored tensor on the device of another, and whole or cut into the same rows as that one is."""
    if not is_sharded(like):
        return stored[name].to(like.device)
    from torch.distributed.tensor import DTensor

    assert isinstance(like, DTensor)
    size, place, rows = like.device_mesh.size(), like.device_mesh.get_local_rank(), like.shape[0]
    share = -(-rows // size)
    start, stop = min(place * share, rows), min((place + 1) * share, rows)
    part = stored.rows(name, start, stop) if isinstance(stored, StoredTensors) else stored[name][start:stop]
    return DTensor.from_local(
        part.to(local(like).device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


class StoredTensors(Mapping[str, Tensor]):
    """What :func:`write_tensors` wrote into a folder, whole by name or by rows.

    Args:
        folder: the folder.
        prefix: only the names that start with it, and without it.

    Raises:
        SafetensorError, OSError: a file is missing or cut short.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._folder, self._prefix = folder, prefix
        shards = sorted(folder.glob(_shard_name(None)))
        self._files: list[Any] = [safe_open(path, framework="pt") for path in (folder / _WHOLE, *shards)]
        self._places: dict[str, list[int]] = {}
        for number, file in enumerate(self._files):
            for name in file.keys():  # noqa: SIM118 - it is no dictionary
                self._places.setdefault(name, []).append(number)

    def section(self, prefix: str) -> "StoredTensors":
        """The tensors whose names start with a prefix."""
        return StoredTensors(self._folder, self._prefix + prefix)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        start = self._prefix
        return (name.removeprefix(start) for name in self._places if name.startswith(start))

    def __len__(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Tensor:
        """The whole tensor, in host memory."""
        parts = [self._files[number].get_tensor(self._prefix + name) for number in self._numbers(name)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def shape(self, name: str) -> torch.Size:
        """The whole tensor's shape, without reading it."""
        shapes = [self._files[n].get_slice(self._prefix + name).get_shape() for n in self._numbers(name)]
        if len(shapes) == 1:
            return torch.Size(shapes[0])
        return torch.Size([sum(shape[0] for shape in shapes), *shapes[0][1:]])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of a tensor; no other row is read."""
        parts: list[Tensor] = []
        before = 0
        for number in self._numbers(name):
            part = self._files[number].get_slice(self._prefix + name)
            rows = part.get_shape()[0]
            first, last = max(start - before, 0), min(stop - before, rows)
            if first < last or not parts:
                parts.append(part[min(first, rows) : max(last, 0)])
            before += rows
        return torch.cat(parts)

    def _numbers(self, name: str) -> list[int]:
        return self._places[self._prefix + name]


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _shard_name(rank: int | None) -> str:
    return f"shard_{'*' if rank is None else f'{rank:05d}'}.safetensors"
