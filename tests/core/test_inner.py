"""Inner rules against PyTorch's own optimizers, clipping against its clipping, and the learned rates."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from innerloop.core import params as vector
from innerloop.core.inner import SGD, Adam, InnerRule, LearningRates, State, clip
from innerloop.core.params import Params

SHAPES = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=4)
BETAS = [(0.9, 0.999), (0.0, 0.999), (0.5, 0.0), (0.0, 0.0)]


def vectors(shapes: list[tuple[int, ...]], seed: int, size: float = 1.0) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"tensor.{i}": size * torch.randn(shape, generator=generator, dtype=torch.float64)
        for i, shape in enumerate(shapes)
    }


def ours(
    rule: InnerRule, start: Params, gradients: list[Params], rates: LearningRates
) -> tuple[Params, State]:
    point, state = start, rule.init(start)
    for step, gradient in enumerate(gradients):
        update, state = rule.update(gradient, state, rates.at(step, start))
        point = vector.add(point, update)
    return point, state


Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def pytorch(make: Make, start: Params, gradients: list[Params], max_norm: float | None = None) -> Params:
    parameters = {name: nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    optimizer = make(list(parameters.values()))
    for gradient in gradients:
        for name, p in parameters.items():
            p.grad = gradient[name].clone()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(parameters.values(), max_norm)
        optimizer.step()
    return {name: p.detach() for name, p in parameters.items()}


@settings(max_examples=15, deadline=None)
@given(shapes=SHAPES, seed=st.integers(0, 2**20), steps=st.integers(1, 4), rate=st.floats(1e-4, 2.0))
def test_sgd_is_pytorchs(shapes: list[tuple[int, ...]], seed: int, steps: int, rate: float) -> None:
    start, gradients = vectors(shapes, seed), [vectors(shapes, seed + 1 + k) for k in range(steps)]
    got, state = ours(SGD(), start, gradients, LearningRates(rate, list(start), steps))
    torch.testing.assert_close(
        got, pytorch(lambda p: torch.optim.SGD(p, lr=rate), start, gradients), rtol=1e-12, atol=1e-12
    )
    assert state == {}


@pytest.mark.parametrize("betas", BETAS)
@settings(max_examples=10, deadline=None)
@given(
    shapes=SHAPES,
    seed=st.integers(0, 2**20),
    steps=st.integers(1, 4),
    size=st.sampled_from([1e-5, 1.0, 1e4]),
)
def test_adam_is_pytorchs(
    betas: tuple[float, float], shapes: list[tuple[int, ...]], seed: int, steps: int, size: float
) -> None:
    start, gradients = vectors(shapes, seed), [vectors(shapes, seed + 1 + k, size) for k in range(steps)]
    rates = LearningRates(0.01, list(start), steps)
    wanted = pytorch(lambda p: torch.optim.Adam(p, lr=0.01, betas=betas), start, gradients)
    torch.testing.assert_close(
        ours(Adam(betas, eps_root=0.0), start, gradients, rates)[0], wanted, rtol=1e-9, atol=1e-12
    )
    if size >= 1:
        # The default adds 1e-16 under the root, for a derivative at 0. Only gradients near 1e-8, where
        # PyTorch's own ε decides, feel it.
        default = ours(Adam(betas), start, gradients, rates)[0]
        torch.testing.assert_close(default, wanted, rtol=1e-6, atol=1e-6)


def test_clipped_rules_clip_as_pytorch_does() -> None:
    shapes: list[tuple[int, ...]] = [(3,), (2, 4), ()]
    start = vectors(shapes, 1)
    gradients = [vectors(shapes, 2 + k, size) for k, size in enumerate((5.0, 0.01, 1.0))]
    rates = LearningRates(0.1, list(start), 3)
    sgd = ours(SGD(max_norm=0.7), start, gradients, rates)[0]
    wanted = pytorch(lambda p: torch.optim.SGD(p, lr=0.1), start, gradients, max_norm=0.7)
    torch.testing.assert_close(sgd, wanted, rtol=1e-5, atol=1e-6)
    adam = ours(Adam(max_norm=0.7), start, gradients, rates)[0]
    wanted = pytorch(lambda p: torch.optim.Adam(p, lr=0.1), start, gradients, max_norm=0.7)
    torch.testing.assert_close(adam, wanted, rtol=1e-5, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    shapes=SHAPES,
    seed=st.integers(0, 2**20),
    size=st.floats(1e-3, 1e3),
    max_norm=st.floats(1e-3, 1e3),
)
def test_clip_is_pytorchs(shapes: list[tuple[int, ...]], seed: int, size: float, max_norm: float) -> None:
    gradient = vectors(shapes, seed, size)
    parameters = {name: nn.Parameter(torch.zeros_like(g)) for name, g in gradient.items()}
    for name, p in parameters.items():
        p.grad = gradient[name].clone()
    length = float(nn.utils.clip_grad_norm_(parameters.values(), max_norm))
    clipped = clip(gradient, max_norm)
    assert float(vector.norm(clipped)) <= max_norm * (1 + 1e-12)
    # PyTorch divides by length + 1e-6; where it shortens, that is the whole difference.
    correction = max(1.0, min((length + 1e-6) / max_norm, (length + 1e-6) / length))
    for name, p in parameters.items():
        assert p.grad is not None
        torch.testing.assert_close(
            clipped[name], p.grad * correction, rtol=2e-6 + 1e-6 / max_norm, atol=1e-12
        )


def test_a_short_gradient_is_left_alone() -> None:
    gradient = vectors([(3,), (2,)], 1)
    assert clip(gradient, None) is gradient
    unchanged = clip(gradient, 100.0)
    assert all(torch.equal(unchanged[name], g) for name, g in gradient.items())


def test_clipping_nothing_has_a_derivative() -> None:
    """As happens to LoRA's A where B is 0, or to a task that is solved."""
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    clipped = clip({"a": zero}, 1.0)["a"]
    (derivative,) = torch.autograd.grad(clipped.sum(), zero)
    assert torch.equal(clipped.detach(), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(derivative, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("rule", [SGD(max_norm=0.5), Adam(), Adam(betas=(0.0, 0.999)), Adam(max_norm=1.5)])
def test_rules_can_be_differentiated(rule: InnerRule) -> None:
    """By finite differences: gradient, state and rates of the second step."""
    start = vectors([(3,), (2, 2)], 1)
    _, state = ours(rule, start, [vectors([(3,), (2, 2)], 2)], LearningRates(0.1, list(start), 1))
    gradient, rates = vectors([(3,), (2, 2)], 3), LearningRates(0.1, list(start), 1).at(0, start)
    names = [*gradient, *state, *(f"rate/{name}" for name in rates)]

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, tensors, strict=True))
        update, following = rule.update(
            {name: given[name] for name in gradient},
            {name: given[name] for name in state},
            {name: given[f"rate/{name}"] for name in rates},
        )
        return (*update.values(), *(tensor for name, tensor in following.items() if name != "count"))

    point = [t.clone().requires_grad_() for t in (*gradient.values(), *state.values(), *rates.values())]
    assert torch.autograd.gradcheck(step, point, atol=1e-6)


# Moments across tasks


def final_states(rule: InnerRule, start: Params) -> list[State]:
    rates = LearningRates(0.1, list(start), 2)
    return [
        ours(rule, start, [vectors([(3,)], seed), vectors([(3,)], seed + 1)], rates)[1] for seed in (5, 7)
    ]


def test_moments_are_reset_by_default() -> None:
    rule, start = Adam(), vectors([(3,)], 1)
    before = rule.init(start)
    rule.carry(final_states(rule, start))
    assert rule.state_dict() == {}
    torch.testing.assert_close(rule.init(start), before, rtol=0, atol=0)
    assert all(float(tensor.abs().sum()) == 0 for tensor in before.values())


def test_carried_moments_are_the_mean_of_the_last_meta_batch() -> None:
    rule, start = Adam(betas=(0.0, 0.999), moments="carry"), vectors([(3,)], 1)
    for _ in range(2):  # the second meta-batch replaces the first
        states = final_states(rule, start)
        rule.carry(states)
    carried = rule.init(start)
    for name in ("first/tensor.0", "second/tensor.0", "count"):
        torch.testing.assert_close(carried[name], (states[0][name] + states[1][name]) / 2, rtol=1e-12, atol=0)
    assert float(carried["count"]) == 4  # bias correction goes on where it was


def test_carried_moments_are_saved_and_loaded() -> None:
    rule, start = Adam(moments="carry"), vectors([(3,)], 1)
    rule.carry(final_states(rule, start))
    again = Adam(moments="carry")
    again.load_state_dict({name: tensor.clone() for name, tensor in rule.state_dict().items()})
    torch.testing.assert_close(again.init(start), rule.init(start), rtol=0, atol=0)


def test_sgd_remembers_nothing() -> None:
    rule = SGD()
    rule.carry([{}, {}])
    rule.load_state_dict({})
    assert rule.state_dict() == {}


def test_counting_in_half_precision() -> None:
    """bfloat16 cannot tell 256 from 257; the count is kept where it can."""
    rule = Adam()
    start = {"a": torch.zeros(2, dtype=torch.bfloat16)}
    state = rule.init(start)
    assert state["count"].dtype == torch.float32
    state["count"] += 300
    rates = LearningRates(0.1, ["a"], 1).at(0, start)
    assert float(rule.update({"a": torch.ones_like(start["a"])}, state, rates)[1]["count"]) == 301


# Learning rates


def test_one_rate_for_all() -> None:
    rates = LearningRates(0.25, ["a", "b"], 3)
    like = {"a": torch.zeros(2, dtype=torch.bfloat16), "b": torch.zeros(3, dtype=torch.float64)}
    for step in (0, 2, 7):
        at = rates.at(step, like)
        assert {name: (tensor.shape, tensor.dtype, float(tensor)) for name, tensor in at.items()} == {
            "a": (torch.Size(), torch.bfloat16, 0.25),
            "b": (torch.Size(), torch.float64, 0.25),
        }
    assert rates.values == {}


def test_learned_rates_per_tensor_and_step() -> None:
    rates = LearningRates(0.25, ["a", "b"], 3, learned=True)
    assert {name: tuple(value.shape) for name, value in rates.values.items()} == {"a": (3,), "b": (3,)}
    rates.values["a"].copy_(torch.tensor([1.0, 2.0, 3.0]))
    like = {"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.float64)}
    assert [float(rates.at(step, like)["a"]) for step in range(6)] == [1, 2, 3, 3, 3, 3]
    assert rates.at(0, like)["b"].dtype == torch.float64
    assert float(rates.at(5, like)["b"]) == 0.25
