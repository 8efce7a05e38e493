"""The outer learning rate against closed forms, and the outer optimizers' groups."""

import itertools
import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from innerloop.core.schedule import OptimizerName, ScheduleName, build_optimizer, rate_multiplier

NAMES: tuple[ScheduleName, ...] = get_args(ScheduleName)
names = st.sampled_from(NAMES)
totals = st.integers(1, 500)
warmups = st.floats(0.0, 1.0)


@given(names, totals, warmups)
def test_stays_between_zero_and_one(name: ScheduleName, total: int, warmup: float) -> None:
    assert all(0.0 <= rate_multiplier(name, step, total, warmup) <= 1.0 for step in range(total))


@given(names, totals, warmups)
def test_rises_through_the_warm_up_and_never_again(name: ScheduleName, total: int, warmup: float) -> None:
    factors = [rate_multiplier(name, step, total, warmup) for step in range(total)]
    length = math.ceil(warmup * total)
    rising, falling = factors[:length], factors[length:]
    assert all(earlier < later for earlier, later in itertools.pairwise(rising))
    assert all(earlier >= later for earlier, later in itertools.pairwise(falling))
    if rising:
        assert rising[0] == pytest.approx(1 / length)
        assert rising[-1] == 1.0
    if falling:
        assert falling[0] == 1.0


@given(totals)
def test_without_warm_up_the_closed_forms_hold(total: int) -> None:
    for step in range(total):
        share = step / total
        assert rate_multiplier("constant", step, total) == 1.0
        assert rate_multiplier("linear", step, total) == pytest.approx(1 - share)
        assert rate_multiplier("cosine", step, total) == pytest.approx(math.cos(math.pi * share / 2) ** 2)


def test_a_schedule_written_out() -> None:
    factors = [rate_multiplier("linear", step, 10, warmup_ratio=0.2) for step in range(10)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_weight_decay_spares_the_inner_rates(name: OptimizerName) -> None:
    weight, rate = torch.ones(3), torch.ones(2)
    optimizer = build_optimizer(name, [weight], [rate], learning_rate=0.1, weight_decay=0.5)
    weight.grad, rate.grad = torch.zeros(3), torch.zeros(2)
    optimizer.step()
    assert torch.equal(rate, torch.ones(2))
    assert bool((weight < 1).all())


def test_each_name_is_its_optimizer() -> None:
    kinds = {
        name: type(build_optimizer(name, [torch.ones(1)], [], 0.1)).__name__
        for name in get_args(OptimizerName)
    }
    assert kinds == {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}


def test_betas_reach_adam() -> None:
    optimizer = build_optimizer("adam", [torch.ones(1)], [], 0.1, betas=(0.0, 0.5))
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.5)
