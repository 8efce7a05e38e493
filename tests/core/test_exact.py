"""The adjoint recursion gives the number that unrolling gives, whatever the model, rule, learner and K."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from core.families import (
    FAMILIES,
    Family,
    conv_family,
    distance,
    fixed_rates,
    fresh_lora_family,
    learned_rates,
)
from innerloop.core.inner import SGD, Adam, InnerRule
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner
from innerloop.core.metagrad import Exact, FirstOrder, MetaGradient, Unroll

pytestmark = pytest.mark.usefixtures("float64_llama")

RULES: dict[str, tuple[Callable[[], InnerRule], float]] = {
    "sgd": (SGD, 1.0),
    "clipped sgd": (lambda: SGD(max_norm=0.5), 1.0),
    "adam": (Adam, 0.1),  # its steps have the size of the rate, whatever the gradient
}
LEARNERS: dict[str, tuple[Callable[[Family], Learner], float]] = {
    "functional, reverse": (lambda f: FunctionalLearner(f.module, f.objective), 1e-9),
    "functional, forward": (
        lambda f: FunctionalLearner(f.module, f.objective, hessian_product="forward"),
        1e-9,
    ),
    "functional, central": (
        lambda f: FunctionalLearner(f.module, f.objective, hessian_product="central"),
        1e-4,
    ),
    "in place, reverse": (lambda f: InPlaceLearner(f.module, f.objective), 1e-9),
    "in place, central": (lambda f: InPlaceLearner(f.module, f.objective, hessian_product="central"), 1e-4),
}


def inner_loop(family: Family, rule: str, steps: int, proximal: float = 0.0) -> InnerLoop:
    make, scale = RULES[rule]
    return InnerLoop(make(), learned_rates(family, steps, scale), steps, proximal)


@cache
def family_called(name: str) -> Family:
    """Built once: no test here changes a family, and the one that did would be seen by the next."""
    return FAMILIES[name]()


@cache
def unrolled(family: str, rule: str, steps: int) -> MetaGradient:
    built = family_called(family)
    learner = FunctionalLearner(built.module, built.objective)
    return Unroll(inner_loop(built, rule, steps))(learner, built.draw(10 + steps, steps))


def apart_from_unrolling(family: str, rule: str, steps: int, learner: str) -> float:
    """How far the two gradients lie from the unrolled ones, in shares of what this learner is allowed."""
    built = family_called(family)
    make, tolerance = LEARNERS[learner]
    got = Exact(inner_loop(built, rule, steps))(make(built), built.draw(10 + steps, steps))
    wanted = unrolled(family, rule, steps)
    for loss in ("query_loss_before", "query_loss", "support_loss"):
        torch.testing.assert_close(getattr(got, loss), getattr(wanted, loss), rtol=1e-12, atol=0)
    gradients = ((got.gradient, wanted.gradient), (got.rate_gradient, wanted.rate_gradient))
    return max(distance(*pair) for pair in gradients) / tolerance


@pytest.mark.parametrize(
    ("rule", "learner"),
    [*((rule, "functional, reverse") for rule in RULES), ("sgd", "functional, forward")],
)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_adjoint_equals_unrolling(family: str, rule: str, steps: int, learner: str) -> None:
    assert apart_from_unrolling(family, rule, steps, learner) < 1


@pytest.mark.parametrize("learner", [name for name in LEARNERS if name != "functional, reverse"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_adjoint_equals_unrolling_whatever_the_learner(family: str, rule: str, learner: str) -> None:
    assert apart_from_unrolling(family, rule, 3, learner) < 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_second_order_term_is_no_rounding_error(family: str, rule: str) -> None:
    """Else the test above could not tell exact from first order."""
    built = family_called(family)
    learner = FunctionalLearner(built.module, built.objective)
    first_order = FirstOrder(inner_loop(built, rule, 3))(learner, built.draw(13, 3))
    assert distance(first_order.gradient, unrolled(family, rule, 3).gradient) > 0.02


@pytest.mark.parametrize("learner", LEARNERS)
def test_lora_whose_b_is_zero(learner: str) -> None:
    built, steps = fresh_lora_family(), 2
    make, tolerance = LEARNERS[learner]
    inner, task = inner_loop(built, "sgd", steps), built.draw(20, steps)
    wanted = Unroll(inner)(FunctionalLearner(built.module, built.objective), task)
    got = Exact(inner)(make(built), task)
    assert distance(got.gradient, wanted.gradient) < tolerance
    assert distance(got.rate_gradient, wanted.rate_gradient) < tolerance


@pytest.mark.parametrize(
    ("family", "learner"),
    [
        *(("conv", learner) for learner in LEARNERS),
        ("llama", "functional, reverse"),
        ("lora", "in place, reverse"),
    ],
)
def test_a_proximal_pull_is_differentiated(family: str, learner: str) -> None:
    built = family_called(family)
    make, tolerance = LEARNERS[learner]
    inner, task = inner_loop(built, "sgd", 3, proximal=0.7), built.draw(30, 3)
    wanted = Unroll(inner)(FunctionalLearner(built.module, built.objective), task)
    got = Exact(inner)(make(built), task)
    assert distance(got.gradient, wanted.gradient) < tolerance
    assert distance(got.rate_gradient, wanted.rate_gradient) < tolerance
    without = Exact(inner_loop(built, "sgd", 3))(make(built), task)
    assert distance(without.gradient, wanted.gradient) > 0.01


def test_moments_carried_from_earlier_tasks() -> None:
    built = conv_family()
    learner = FunctionalLearner(built.module, built.objective)
    inner = InnerLoop(Adam(moments="carry"), learned_rates(built, 2, 0.1), 2)
    for seed in (1, 2):
        inner.rule.carry(Exact(inner)(learner, built.draw(seed, 2)).states)
    task = built.draw(3, 2)
    wanted, got = Unroll(inner)(learner, task), Exact(inner)(learner, task)
    assert distance(got.gradient, wanted.gradient) < 1e-9
    assert distance(got.rate_gradient, wanted.rate_gradient) < 1e-9
    afresh = InnerLoop(Adam(), inner.rates, 2)
    assert distance(Exact(afresh)(learner, task).gradient, wanted.gradient) > 1e-3


def test_rates_for_fewer_steps_than_are_taken() -> None:
    """Steps past the last learned rate share it, so its gradient is the sum of theirs."""
    built = conv_family()
    learner = FunctionalLearner(built.module, built.objective)
    inner, task = InnerLoop(SGD(), learned_rates(built, 2), 4), built.draw(5, 4)
    wanted, got = Unroll(inner)(learner, task), Exact(inner)(learner, task)
    assert distance(got.rate_gradient, wanted.rate_gradient) < 1e-9
    assert all(gradient.shape == (2,) for gradient in got.rate_gradient.values())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_first_order_rates_keep_the_terms_without_a_hessian(family: str, rule: str) -> None:
    """The path is unrolled here by hand with the model's gradients held constant; the rule's state is not."""
    built = family_called(family)
    learner = FunctionalLearner(built.module, built.objective)
    inner, task = inner_loop(built, rule, 3), built.draw(6, 3)
    adapted = inner.run(learner, task, built.theta(), record=True)
    at_query = learner.gradient(adapted.params, task.query_batch)[1]
    alpha = {name: value.clone().requires_grad_() for name, value in inner.rates.values.items()}
    state, reached = inner.rule.init(built.theta()), []
    for step in adapted.tape:
        rates = {name: alpha[name][step.step] for name in alpha}
        update, state = inner.rule.update(step.gradient, state, rates)
        reached.append(torch.stack([(update[name] * at_query[name]).sum() for name in alpha]).sum())
    by_hand = torch.autograd.grad(torch.stack(reached).sum(), list(alpha.values()))
    got = FirstOrder(inner)(learner, task)
    assert distance(got.rate_gradient, dict(zip(alpha, by_hand, strict=True))) < 1e-12
    one, single = inner_loop(built, rule, 1), built.draw(7, 1)
    exact = Exact(one)(learner, single).rate_gradient
    assert distance(FirstOrder(one)(learner, single).rate_gradient, exact) < 1e-12


def test_fixed_rates_have_no_gradient() -> None:
    built = conv_family()
    learner = FunctionalLearner(built.module, built.objective)
    result = Exact(InnerLoop(SGD(), fixed_rates(built, 2), 2))(learner, built.draw(8, 2))
    assert result.rate_gradient == {}
