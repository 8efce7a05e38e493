"""Arithmetic on named tensors: the vectors a strategy computes with.

A point of the meta-parameter space is a plain ``dict`` from parameter name to tensor; every function here
takes and returns such dictionaries and treats them as one long vector.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Params = dict[str, Tensor]
"""Named tensors, the shapes those of the adapted parameters (with a leading task dimension when stacked)."""


def add(left: Mapping[str, Tensor], right: Mapping[str, Tensor], scale: float | Tensor = 1.0) -> Params:
    """``left + scale * right``."""
    if isinstance(scale, Tensor):
        return {name: tensor + scale * right[name] for name, tensor in left.items()}
    return {name: torch.add(tensor, right[name], alpha=scale) for name, tensor in left.items()}


@torch.no_grad()
def add_(total: Mapping[str, Tensor], values: Mapping[str, Tensor], scale: float = 1.0) -> None:
    """``total += scale * values``, in the memory and the dtype of ``total``, outside any graph."""
    for name, tensor in values.items():
        total[name].add_(tensor, alpha=scale)


@torch.no_grad()
def scale_(params: Mapping[str, Tensor], scale: float) -> None:
    """``params *= scale`` in place, outside any graph."""
    for tensor in params.values():
        tensor.mul_(scale)


def subtract(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Params:
    """``left - right``."""
    return {name: tensor - right[name] for name, tensor in left.items()}


def scaled(params: Mapping[str, Tensor], scale: float | Tensor) -> Params:
    """``scale * params``."""
    return {name: scale * tensor for name, tensor in params.items()}


def zeros_like(params: Mapping[str, Tensor]) -> Params:
    """The zero vector of the same shapes."""
    return {name: torch.zeros_like(tensor) for name, tensor in params.items()}


def detached(params: Mapping[str, Tensor]) -> Params:
    """The same values outside any graph, sharing memory."""
    return {name: tensor.detach() for name, tensor in params.items()}


def cloned(params: Mapping[str, Tensor]) -> Params:
    """An independent copy outside any graph."""
    return {name: tensor.detach().clone() for name, tensor in params.items()}


def dot(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """The inner product of two vectors, shape ``()``; differentiable. Of sharded vectors, over all shards."""
    return whole(dot_in_place(left, right))


def dot_in_place(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """As :func:`dot`, but of sharded vectors it stays where they are, so that its derivative does too."""
    return torch.stack([(tensor * right[name]).sum() for name, tensor in left.items()]).sum()


def norm(params: Mapping[str, Tensor]) -> Tensor:
    """The Euclidean norm of the whole vector, shape ``()``. Of a sharded vector, over all shards."""
    return whole(torch.stack([tensor.square().sum() for tensor in params.values()]).sum()).sqrt()


def all_finite(params: Mapping[str, Tensor]) -> bool:
    """Whether no entry that this process holds is NaN or infinite."""
    return all(bool(torch.isfinite(local(tensor)).all()) for tensor in params.values())


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: of a plain one, all of it."""
    to_local = getattr(tensor, "to_local", None)  # asked this way, since DTensor is slow to import
    part: Tensor = tensor if to_local is None else to_local()
    return part


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded, or a sum over shards still to be made; every holder must ask."""
    full_tensor = getattr(tensor, "full_tensor", None)
    full: Tensor = tensor if full_tensor is None else full_tensor()
    return full
