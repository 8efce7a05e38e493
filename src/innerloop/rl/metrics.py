"""What transfer and adaptation are judged by. Returns are higher for the better; curves run over episodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop.core.errors import InputError
from innerloop.core.stats import area_under_curve
from innerloop.rl.policy import LAYERS


@dataclass(frozen=True)
class TransferMetric:
    """What starting from another task brought (Taylor and Stone 2009).

    Args:
        jumpstart: the return before any episode, less that of training from scratch.
        area_ratio: the area between the curve and the scratch curve, over the area that the scratch curve
            gained above its own beginning; none where it gained nothing.
        asymptotic_gain: the return at the end, less that of training from scratch.
    """

    jumpstart: float
    area_ratio: float | None
    asymptotic_gain: float


@dataclass(frozen=True)
class AdaptationSpeed:
    """How soon adaptation pays.

    Args:
        episodes: the fewest measured after which 90 % of the final gain is there; none where nothing was
            gained.
        area: the mean height of the curve above its beginning, in returns.
    """

    episodes: int | None
    area: float


def transfer_metric(
    episodes: Sequence[int], transferred: Sequence[float], scratch: Sequence[float]
) -> TransferMetric:
    """Compares two curves measured after the same numbers of episodes.

    Raises:
        InputError: curves of different lengths, or of less than two points.
    """
    _check(episodes, transferred, scratch)
    mean_transferred, mean_scratch = (area_under_curve(episodes, c) for c in (transferred, scratch))
    gained = mean_scratch - scratch[0]
    return TransferMetric(
        jumpstart=transferred[0] - scratch[0],
        area_ratio=(mean_transferred - mean_scratch) / gained if gained > 0 else None,
        asymptotic_gain=transferred[-1] - scratch[-1],
    )


def adaptation_speed(episodes: Sequence[int], returns: Sequence[float]) -> AdaptationSpeed:
    """Of one curve; the first point is before any episode.

    Raises:
        InputError: other than as many returns as episodes, or less than two.
    """
    _check(episodes, returns)
    gain = returns[-1] - returns[0]
    reached = [e for e, r in zip(episodes, returns, strict=True) if r - returns[0] >= 0.9 * gain]
    return AdaptationSpeed(reached[0] if gain > 0 else None, area_under_curve(episodes, returns) - returns[0])


def speed_up(episodes: Sequence[int], fast: Sequence[float], slow: Sequence[float]) -> float | None:
    """How many times as many episodes the slow curve takes to come to where the fast one ends.

    The slow one's place is interpolated between measurements. None where it never comes there, and where the
    fast one is there from the beginning.

    Raises:
        InputError: curves of different lengths, or of less than two points.
    """
    _check(episodes, fast, slow)
    goal = fast[-1]
    needed = _first_at(episodes, fast, goal)
    reached = _first_at(episodes, slow, goal)
    return None if reached is None or not needed else reached / needed


def parameter_distance(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """‖after − before‖ / ‖before‖, of all parameters as ``whole`` and of every layer by its name.

    A layer that was zero throughout counts by its distance alone.
    """
    groups = {"whole": list(before)}
    groups |= {layer: [name for name in before if name.split(".")[0] == layer] for layer in LAYERS}
    found = {}
    for group, names in groups.items():
        if names:
            distance = _length([after[name] - before[name] for name in names])
            length = _length([before[name] for name in names])
            found[group] = distance / length if length > 0 else distance
    return found


def adaptation_accuracy(reached: float, random: float, oracle: float) -> float:
    """1 − regret: where a return lies between random (0) and the oracle (1); below 0 is worse than random.

    Raises:
        InputError: an oracle no better than random, which leaves nothing to measure with.
    """
    if oracle <= random:
        raise InputError(f"the oracle's return {oracle:g} is no higher than random's {random:g}")
    return (reached - random) / (oracle - random)


def _check(episodes: Sequence[int], *curves: Sequence[float]) -> None:
    if len(episodes) < 2 or any(len(curve) != len(episodes) for curve in curves):
        raise InputError("curves need at least two points, one for each number of episodes")


def _first_at(episodes: Sequence[int], returns: Sequence[float], goal: float) -> float | None:
    if returns[0] >= goal:
        return float(episodes[0])
    for i in range(1, len(episodes)):
        if returns[i] >= goal:
            share = (goal - returns[i - 1]) / (returns[i] - returns[i - 1])
            return episodes[i - 1] + share * (episodes[i] - episodes[i - 1])
    return None


def _length(tensors: Sequence[Tensor]) -> float:
    return float(torch.cat([tensor.detach().double().flatten() for tensor in tensors]).norm())
