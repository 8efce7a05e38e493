"""The outer learning rate over a run, and the outer optimizers."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["constant", "cosine", "linear"]
OptimizerName = Literal["adamw", "adam", "sgd"]


def rate_multiplier(name: ScheduleName, step: int, total: int, warmup_ratio: float = 0.0) -> float:
    """The factor on the outer rate at a step.

    Args:
        name: ``constant``; ``linear``, from 1 to 0; ``cosine``, from 1 to 0 along half a wave.
        step: counted from 0.
        total: steps in the run.
        warmup_ratio: the share of ``total`` over which the factor first rises linearly to 1.
    """
    warmup = math.ceil(warmup_ratio * total)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if name == "linear":
        return 1.0 - progress
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


def build_optimizer(
    name: OptimizerName,
    theta: Iterable[Tensor],
    rates: Iterable[Tensor],
    learning_rate: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """The outer optimizer over θ and, without weight decay, over learned inner rates."""
    groups = [{"params": list(theta), "weight_decay": weight_decay}]
    if learned := list(rates):
        groups.append({"params": learned, "weight_decay": 0.0})
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate)
    if name == "adam":
        return torch.optim.Adam(groups, lr=learning_rate, betas=betas)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)
