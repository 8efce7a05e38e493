"""Inner rates that differ by tensor (ANIL) or by entry (Meta-SGD): what they do, and their gradients."""

import pytest
import torch

from core.families import Family, conv_family, distance
from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, VmapLearner
from innerloop.core.metagrad import Exact, FirstOrder, Unroll


@pytest.fixture(scope="module")
def family() -> Family:
    return conv_family()


def test_a_tensor_of_rate_zero_is_not_adapted(family: Family) -> None:
    learner = FunctionalLearner(family.module, family.objective)
    names = list(learner.theta)
    head = names[-1]
    rates = LearningRates({name: 0.5 if name == head else 0.0 for name in names}, names, 2)
    with learner.excursion() as theta:
        adapted = InnerLoop(SGD(), rates, 2).run(learner, family.draw(0, 2), theta).params
        for name in names:
            assert adapted[name].equal(theta[name]) == (name != head)


def test_the_gradient_through_zero_rates_is_that_of_the_unrolled_loop(family: Family) -> None:
    names = [name for name, _ in family.module.named_parameters()]
    rates = LearningRates({name: 0.5 if name == names[-1] else 0.0 for name in names}, names, 3)
    learner = FunctionalLearner(family.module, family.objective)
    task, inner = family.draw(1, 3), InnerLoop(SGD(), rates, 3)
    wanted = Unroll(inner)(learner, task)
    assert distance(Exact(inner)(learner, task).gradient, wanted.gradient) < 1e-9
    assert distance(FirstOrder(inner)(learner, task).gradient, wanted.gradient) > 1e-3


def entry_rates(family: Family) -> LearningRates:
    """Different for every entry, so that none can stand for another."""
    rates = LearningRates.of_every_entry(0.5, dict(family.module.named_parameters()))
    generator = torch.Generator().manual_seed(0)
    for name, values in rates.values.items():
        rates.values[name] = values.double() * (0.5 + torch.rand(values.shape, generator=generator).double())
    return rates


def test_rates_of_every_entry_have_the_shapes_of_the_tensors(family: Family) -> None:
    rates = LearningRates.of_every_entry(0.5, dict(family.module.named_parameters()))
    for name, p in family.module.named_parameters():
        assert rates.values[name].shape == (1, *p.shape)
        assert rates.at(4, {name: p})[name].shape == p.shape  # one step's rates serve every step
    assert rates.learned


@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_of_every_entrys_rate_is_that_of_the_unrolled_loop(family: Family, steps: int) -> None:
    learner, task = FunctionalLearner(family.module, family.objective), family.draw(2, steps)
    inner = InnerLoop(SGD(), entry_rates(family), steps)
    got, wanted = Exact(inner)(learner, task), Unroll(inner)(learner, task)
    assert distance(got.gradient, wanted.gradient) < 1e-9
    assert distance(got.rate_gradient, wanted.rate_gradient) < 1e-9


def test_the_gradient_of_an_entrys_rate_is_its_finite_difference(family: Family) -> None:
    learner, task = FunctionalLearner(family.module, family.objective), family.draw(3, 2)
    rates = entry_rates(family)
    inner = InnerLoop(SGD(), rates, 2)
    name = max(rates.values, key=lambda key: rates.values[key].numel())
    gradient = Exact(inner)(learner, task).rate_gradient[name]
    place = int(gradient.abs().argmax())

    def query_loss(by: float) -> float:
        rates.values[name].view(-1)[place] += by
        found = float(Exact(inner)(learner, task).query_loss)
        rates.values[name].view(-1)[place] -= by
        return found

    difference = (query_loss(1e-5) - query_loss(-1e-5)) / 2e-5
    assert float(gradient.view(-1)[place]) == pytest.approx(difference, rel=1e-5)


def test_tasks_at_once_share_the_rates_of_every_entry(family: Family) -> None:
    inner = InnerLoop(SGD(), entry_rates(family), 2)
    tasks = [family.draw(seed, 2) for seed in (4, 5)]
    together = VmapLearner(family.module, family.objective, 2)
    got = Exact(inner)(together, together.bundle(tasks))
    single = FunctionalLearner(family.module, family.objective)
    each = [Exact(inner)(single, task).rate_gradient for task in tasks]
    wanted = {name: each[0][name] + each[1][name] for name in each[0]}
    assert distance(got.rate_gradient, wanted) < 1e-9
