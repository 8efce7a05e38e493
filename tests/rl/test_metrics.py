"""Every metric against its definition, on numbers made by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.rl.metrics import (
    AdaptationSpeed,
    TransferMetric,
    adaptation_accuracy,
    adaptation_speed,
    parameter_distance,
    speed_up,
    transfer_metric,
)
from innerloop.rl.policy import LAYERS
from rl.small import BALANCING, policy_of, weights

EPISODES = (0, 1, 3, 5, 10)
RETURNS = st.lists(st.floats(-100, 0), min_size=5, max_size=5)


def test_transfer_against_scratch() -> None:
    # Scratch: mean height (1·1 + 1·3) / 2 / 2 + ... over 0..2 episodes is 2; transferred: 5.
    found = transfer_metric((0, 1, 2), (4.0, 5.0, 6.0), (1.0, 2.0, 3.0))
    assert found == TransferMetric(jumpstart=3.0, area_ratio=3.0, asymptotic_gain=3.0)
    uneven = transfer_metric((0, 1, 4), (2.0, 2.0, 2.0), (0.0, 2.0, 2.0))
    # Areas 8 and 1 + 6 = 7 over four episodes; scratch gained 7/4.
    assert uneven == TransferMetric(2.0, pytest.approx((2 - 7 / 4) / (7 / 4)), 0.0)


@pytest.mark.parametrize("scratch", [(1.0, 1.0, 1.0), (1.0, 0.0, -1.0)])
def test_where_scratch_gains_nothing_there_is_no_area_ratio(scratch: tuple[float, ...]) -> None:
    found = transfer_metric((0, 1, 2), (4.0, 5.0, 6.0), scratch)
    assert found.area_ratio is None
    assert found.jumpstart == 3.0
    assert found.asymptotic_gain == 6.0 - scratch[-1]


@given(RETURNS)
def test_training_from_scratch_transfers_nothing_to_itself(curve: list[float]) -> None:
    found = transfer_metric(EPISODES, curve, curve)
    assert (found.jumpstart, found.asymptotic_gain) == (0, 0)
    assert found.area_ratio in (0, None)


@pytest.mark.parametrize(
    ("returns", "episodes", "area"),
    [
        ((0.0, 8.9, 9.0, 9.5, 10.0), 3, (8.9 / 2 + 17.9 + 18.5 + 9.75 * 5) / 10),
        ((0.0, 10.0, 0.0, 0.0, 10.0), 1, (5 + 10 + 0 + 25) / 10),
        ((0.0, 0.0, 0.0, 0.0, 10.0), 10, 2.5),
        ((-3.0, -3.0, -3.0, -3.0, -3.0), None, 0.0),
        ((0.0, 5.0, 5.0, 5.0, -1.0), None, (2.5 + 10 + 10 + 10) / 10),
    ],
)
def test_adaptation_speed(returns: tuple[float, ...], episodes: int | None, area: float) -> None:
    assert adaptation_speed(EPISODES, returns) == AdaptationSpeed(episodes, pytest.approx(area))


@given(RETURNS, st.floats(-50, 50), st.floats(0.1, 10))
def test_speed_does_not_depend_on_where_returns_begin_or_their_unit(
    returns: list[float], shift: float, scale: float
) -> None:
    gain = returns[-1] - returns[0]
    heights = [r - returns[0] for r in returns]
    assume(abs(gain) > 1e-6 and all(abs(height - 0.9 * gain) > 1e-6 for height in heights))
    found = adaptation_speed(EPISODES, returns)
    moved = adaptation_speed(EPISODES, [scale * r + shift for r in returns])
    assert moved.episodes == found.episodes
    assert moved.area == pytest.approx(scale * found.area, abs=1e-6)


def test_speed_up_interpolates_where_the_slow_curve_comes() -> None:
    fast, slow = (0.0, 4.0, 4.0), (0.0, 2.0, 6.0)
    # The fast one is at 4 after 1 episode, the slow one halfway between 1 and 5.
    assert speed_up((0, 1, 5), fast, slow) == pytest.approx(3.0)
    # Faster within the first stretch: at 4 after 4/5 of an episode.
    assert speed_up((0, 1, 5), (0.0, 5.0, 4.0), slow) == pytest.approx(3.0 / 0.8)


@pytest.mark.parametrize(
    ("fast", "slow", "expected"),
    [
        ((0.0, 1.0, 2.0), (0.0, 1.0, 1.9), None),  # never comes there
        ((2.0, 1.0, 1.0), (0.0, 1.0, 2.0), None),  # the fast one was there before any episode
        ((0.0, 1.0, 2.0), (3.0, 3.0, 3.0), 0.0),  # the slow one begins above it
        ((0.0, 1.0, 2.0), (0.0, 1.0, 2.0), 1.0),
    ],
)
def test_speed_up_at_its_ends(
    fast: tuple[float, ...], slow: tuple[float, ...], expected: float | None
) -> None:
    assert speed_up((0, 2, 4), fast, slow) == expected


@given(RETURNS)
def test_a_curve_is_as_fast_as_itself(curve: list[float]) -> None:
    assert speed_up(EPISODES, curve, curve) in (None, 1.0)


@pytest.mark.parametrize("metric", [transfer_metric, speed_up])
def test_curves_of_other_lengths_or_one_point_are_refused(metric: object) -> None:
    for episodes, first, second in (
        ((0, 1), (1.0, 2.0), (1.0,)),
        ((0, 1), (1.0,), (1.0, 2.0)),
        ((0,), (1.0,), (1.0,)),
    ):
        with pytest.raises(InputError, match="curves need at least two points"):
            metric(episodes, first, second)  # type: ignore[operator]
    with pytest.raises(InputError, match="curves need at least two points"):
        adaptation_speed((0,), (1.0,))


def test_parameter_distance_is_relative_and_told_layer_by_layer() -> None:
    before = {
        "actor.weight": torch.tensor([[3.0, 0.0]]),
        "actor.bias": torch.tensor([4.0]),
        "task": torch.zeros(2),
    }
    after = {
        "actor.weight": torch.tensor([[3.0, 1.0]]),
        "actor.bias": torch.tensor([4.0]),
        "task": torch.tensor([0.0, 2.0]),
    }
    found = parameter_distance(before, after)
    # ‖before‖ is 5; the actor moved by 1, the task's vector, which was zero, by 2.
    assert found == {
        "whole": pytest.approx(math.sqrt(5) / 5),
        "actor": pytest.approx(1 / 5),
        "task": pytest.approx(2.0),
    }


def test_parameter_distance_of_a_policy_covers_every_layer() -> None:
    before = weights(policy_of(BALANCING))
    assert parameter_distance(before, before) == dict.fromkeys(("whole", *LAYERS), 0.0)
    doubled = {name: 2 * p for name, p in before.items()}
    assert parameter_distance(before, doubled) == pytest.approx(dict.fromkeys(("whole", *LAYERS), 1.0))
    flat = np.concatenate([p.double().numpy().ravel() for p in before.values()])
    noise = {name: p + 0.1 for name, p in before.items()}
    assert parameter_distance(before, noise)["whole"] == pytest.approx(
        0.1 * math.sqrt(flat.size) / np.linalg.norm(flat), rel=1e-5
    )


@given(st.floats(-100, 0), st.floats(0.1, 100), st.floats(-1, 2))
def test_adaptation_accuracy_is_the_place_between_random_and_the_oracle(
    random: float, span: float, place: float
) -> None:
    reached = random + place * span
    assert adaptation_accuracy(reached, random, random + span) == pytest.approx(place, abs=1e-9)


def test_an_oracle_no_better_than_random_measures_nothing() -> None:
    with pytest.raises(InputError, match="the oracle's return -3 is no higher than random's -3"):
        adaptation_accuracy(-1.0, -3.0, -3.0)
