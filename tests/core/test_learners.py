"""What holds of every learner: the same numbers in place and functionally, from micro-batches and from whole
batches; θ untouched however a strategy ends; the work counted.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core.families import (
    FAMILIES,
    Family,
    conv_family,
    distance,
    fixed_rates,
    in_micro_batches,
    learned_rates,
    llama_family,
    lora_family,
    quadratic_family,
)
from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.inner import SGD, Adam, InnerRule
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.learner.base import HessianProduct
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Joint, Reptile, Strategy, Unroll
from innerloop.core.task import Batch, FixedTask, MicroBatches, pieces

pytestmark = pytest.mark.usefixtures("float64_llama")

RULES: dict[str, tuple[Callable[[], InnerRule], float]] = {
    "sgd": (SGD, 1.0),
    "clipped sgd": (lambda: SGD(max_norm=0.5), 1.0),
    "adam": (lambda: Adam(betas=(0.0, 0.999)), 0.1),
}
STRATEGIES: dict[str, Callable[[Family], Strategy]] = {
    "exact": lambda f: Exact(InnerLoop(SGD(), learned_rates(f, 2), 2)),
    "unroll": lambda f: Unroll(InnerLoop(SGD(), learned_rates(f, 2), 2)),
    "first order": lambda f: FirstOrder(InnerLoop(SGD(), learned_rates(f, 2), 2)),
    "implicit": lambda f: Implicit(InnerLoop(SGD(), fixed_rates(f, 2), 2, proximal=5.0), iterations=2),
    "reptile": lambda f: Reptile(InnerLoop(SGD(), fixed_rates(f, 2), 2)),
    "joint": lambda f: Joint(InnerLoop(SGD(), fixed_rates(f, 2), 2)),
}
LEARNERS: dict[str, Callable[[Family], Learner]] = {
    "functional": lambda f: FunctionalLearner(f.module, f.objective),
    "in place": lambda f: InPlaceLearner(f.module, f.objective),
    "vmapped": lambda f: VmapLearner(f.module, f.objective, 2),
}
PAIRS = [
    (strategy, learner)
    for strategy in STRATEGIES
    for learner in LEARNERS
    if (strategy, learner) != ("unroll", "in place")
]


def moved(family: Family) -> dict[str, Tensor]:
    """A point away from θ, as a learner meets it in the middle of an inner loop."""
    return {name: t + 0.1 * torch.randn_like(t) for name, t in family.theta().items()}


# Functional and in place


@pytest.mark.parametrize("strategy", [FirstOrder, Reptile, Joint])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_in_place_equals_functional(family: str, rule: str, strategy: type[Strategy]) -> None:
    built = FAMILIES[family]()
    make, scale = RULES[rule]
    task, inner = built.draw(1, 3), InnerLoop(make(), fixed_rates(built, 3, scale), 3)
    functional = strategy(inner)(FunctionalLearner(built.module, built.objective), task)
    in_place = strategy(inner)(InPlaceLearner(built.module, built.objective), task)
    assert distance(in_place.gradient, functional.gradient) < 1e-10
    for loss in ("support_loss", "query_loss_before", "query_loss"):
        torch.testing.assert_close(getattr(in_place, loss), getattr(functional, loss), rtol=1e-10, atol=0)


# θ and everything else a module holds


class Snapshot:
    """All a strategy must leave as it found it, bit for bit."""

    def __init__(self, family: Family, learner: Learner, strategy: Strategy) -> None:
        self.module, self.rates = family.module, strategy.inner.rates.values
        for p in self.module.parameters():
            p.grad = torch.randn_like(p) if p.requires_grad else None
        self.identities = {name: id(p) for name, p in self.module.named_parameters()}
        self.state = vector.cloned(self.module.state_dict(keep_vars=True))
        self.gradients = {n: p.grad.clone() for n, p in self.module.named_parameters() if p.grad is not None}
        self.saved_rates = vector.cloned(self.rates)

    def assert_unchanged(self) -> None:
        assert {name: id(p) for name, p in self.module.named_parameters()} == self.identities
        state = self.module.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in self.state.items())
        for name, p in self.module.named_parameters():
            assert p.requires_grad == (name in self.gradients)
            if name in self.gradients:
                assert p.grad is not None
                assert torch.equal(p.grad, self.gradients[name])
        for name, rate in self.rates.items():
            assert not rate.requires_grad
            assert torch.equal(rate, self.saved_rates[name])


@pytest.mark.parametrize("family", [conv_family, lora_family])
@pytest.mark.parametrize(("strategy", "learner"), PAIRS)
def test_theta_is_restored(strategy: str, learner: str, family: Callable[[], Family]) -> None:
    built = family()
    run, on = STRATEGIES[strategy](built), LEARNERS[learner](built)
    before = Snapshot(built, on, run)
    tasks = [built.draw(seed, 2) for seed in range(on.tasks_at_once)]
    result = run(on, on.bundle(tasks))
    assert vector.all_finite(result.gradient)
    assert not any(t.requires_grad for t in [*result.gradient.values(), *result.rate_gradient.values()])
    before.assert_unchanged()


class Interrupting:
    """An objective that breaks off at its n-th call, after the model has run."""

    def __init__(self, family: Family, at: int) -> None:
        self.objective, self.at, self.calls = family.objective, at, 0

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        loss = self.objective(module, batch)
        self.calls += 1
        if self.calls == self.at:
            raise ArithmeticError("broken off")
        return loss


@pytest.mark.parametrize(("strategy", "learner"), PAIRS)
def test_theta_is_restored_wherever_the_objective_raises(strategy: str, learner: str) -> None:
    built = quadratic_family()
    built.module.register_buffer("seen", torch.zeros(()))
    broken_off = 0
    while True:
        objective = Interrupting(built, at=broken_off + 1)
        family = Family(built.module, objective, built.draw, built.inner_rate)
        run, on = STRATEGIES[strategy](family), LEARNERS[learner](family)
        before = Snapshot(family, on, run)
        tasks = on.bundle([family.draw(seed, 2) for seed in range(on.tasks_at_once)])
        try:
            run(on, tasks)
        except ArithmeticError:
            broken_off += 1
            before.assert_unchanged()
        else:
            break
    assert broken_off >= 4  # before, two support batches, query; most look at the support batch again


# Micro-batches


@pytest.mark.parametrize("cuts", [(1, 3), (2, 1, 1)])
@pytest.mark.parametrize(
    ("make", "hessian_product"),
    [
        (FunctionalLearner, "reverse"),
        (FunctionalLearner, "forward"),
        (FunctionalLearner, "central"),
        (InPlaceLearner, "reverse"),
        (InPlaceLearner, "central"),
    ],
)
def test_micro_batches_equal_the_whole_batch(
    make: type[FunctionalLearner] | type[InPlaceLearner],
    hessian_product: HessianProduct,
    cuts: tuple[int, ...],
) -> None:
    built = lora_family()
    learner = make(built.module, built.objective, hessian_product=hessian_product)
    batch, point = built.draw(1, 1).query_batch, moved(built)
    direction = {name: torch.randn_like(t) for name, t in point.items()}
    cut = in_micro_batches(batch, *cuts)
    with learner.excursion():
        torch.testing.assert_close(learner.loss(point, cut), learner.loss(point, batch), rtol=1e-12, atol=0)
        loss, gradient = learner.gradient(point, cut)
        whole_loss, whole_gradient = learner.gradient(point, batch)
        torch.testing.assert_close(loss, whole_loss, rtol=1e-12, atol=0)
        assert distance(gradient, whole_gradient) < 1e-12
        tolerance = 1e-6 if hessian_product == "central" else 1e-12
        product = learner.hvp(point, cut, direction)
        assert distance(product, learner.hvp(point, batch, direction)) < tolerance


def test_micro_batches_give_the_same_meta_gradient() -> None:
    built = llama_family()
    whole = built.draw(1, 2)
    cut = FixedTask(
        "cut",
        [in_micro_batches(batch, 3, 1) for batch in whole.support_batches],
        in_micro_batches(whole.query_batch, 1, 1, 2),
    )
    inner = InnerLoop(SGD(max_norm=0.5), learned_rates(built, 2), 2)
    for strategy in (Exact(inner), Unroll(inner)):
        learner = FunctionalLearner(built.module, built.objective)
        got, wanted = strategy(learner, cut), strategy(learner, whole)
        assert distance(got.gradient, wanted.gradient) < 1e-10
        assert distance(got.rate_gradient, wanted.rate_gradient) < 1e-10


def test_a_batch_without_pieces_is_refused() -> None:
    built = quadratic_family()
    with pytest.raises(InputError, match="without pieces"):
        FunctionalLearner(built.module, built.objective).gradient(built.theta(), MicroBatches())


# Using a point


@pytest.mark.parametrize("make", [FunctionalLearner, InPlaceLearner])
def test_the_module_can_be_used_at_a_point(make: type[FunctionalLearner] | type[InPlaceLearner]) -> None:
    built = lora_family()
    learner, batch, theta = make(built.module, built.objective), built.draw(1, 1).query_batch, built.theta()
    point = moved(built)
    with learner.excursion():
        loss = learner.run_at(point, lambda: built.objective(built.module, batch).detach())
        torch.testing.assert_close(loss, learner.loss(point, batch), rtol=0, atol=0)
    assert distance(built.theta(), theta) == 0
    learner.commit(point)
    assert distance(built.theta(), point) == 0
    torch.testing.assert_close(built.objective(built.module, batch).detach(), loss, rtol=0, atol=0)


@pytest.mark.parametrize("make", [FunctionalLearner, InPlaceLearner])
def test_an_inner_loop_can_be_watched(make: type[FunctionalLearner] | type[InPlaceLearner]) -> None:
    built = quadratic_family()
    learner, task, seen = make(built.module, built.objective), built.draw(1, 3), []
    with learner.excursion() as theta:
        wanted = [learner.loss(theta, task.support_batches[0])]

        def watch(taken: int, loss: Tensor, point: dict[str, Tensor]) -> None:
            seen.append((taken, float(loss)))
            if taken < 3:
                wanted.append(learner.loss(point, task.support_batches[taken]))

        InnerLoop(SGD(), fixed_rates(built, 3), 3).run(learner, task, theta, watch=watch)
    assert seen == [(step + 1, float(loss)) for step, loss in enumerate(wanted)]


# What cannot be done is said in one line


@pytest.mark.parametrize("hessian_product", ["reverse", "forward"])
def test_an_attention_kernel_without_second_derivative(hessian_product: HessianProduct) -> None:
    built = llama_family()
    built.module.set_attn_implementation("sdpa")
    learner = FunctionalLearner(built.module, built.objective, hessian_product=hessian_product)
    inner = InnerLoop(SGD(), fixed_rates(built, 1), 1)
    for strategy in (Exact(inner), Unroll(inner)):
        with pytest.raises(InputError, match="attn_implementation=eager"):
            strategy(learner, built.draw(1, 1))


def test_what_the_in_place_learner_cannot_do() -> None:
    built = quadratic_family()
    inner, task = InnerLoop(SGD(), fixed_rates(built, 1), 1), built.draw(1, 1)
    with pytest.raises(InputError, match="unrolling needs a functional learner"):
        Unroll(inner)(InPlaceLearner(built.module, built.objective), task)
    with pytest.raises(InputError, match="need a functional learner"):
        Exact(inner)(InPlaceLearner(built.module, built.objective, hessian_product="forward"), task)


def test_bad_settings_are_refused() -> None:
    built = quadratic_family()
    frozen = quadratic_family().module.requires_grad_(False)
    with pytest.raises(InputError, match="every parameter is frozen"):
        FunctionalLearner(frozen, built.objective)
    with pytest.raises(InputError, match="at least 1"):
        VmapLearner(built.module, built.objective, 0)
    with pytest.raises(InputError, match="at least 1 step"):
        FirstOrder(InnerLoop(SGD(), fixed_rates(built, 1), 0))
    for strategy in (Reptile, Joint):
        with pytest.raises(InputError, match="no gradient for the inner learning rates"):
            strategy(InnerLoop(SGD(), learned_rates(built, 1), 1))


# The ledger


@pytest.mark.parametrize(
    ("strategy", "gradients", "products"),
    [
        ("exact", 3, 2),
        ("unroll", 3, 0),
        ("first order", 3, 0),
        ("reptile", 2, 0),
        ("joint", 3, 0),
        ("implicit", 3, 6),
    ],
)
def test_the_ledger_counts_the_work_and_not_the_monitoring(
    strategy: str, gradients: int, products: int
) -> None:
    """Two inner steps; implicit's first residual and two iterations take a product for each batch."""
    built = quadratic_family()
    learner = FunctionalLearner(built.module, built.objective, batch_size=lambda batch: len(batch[1]))
    STRATEGIES[strategy](built)(learner, built.draw(1, 2))
    assert learner.ledger.state_dict() == {
        "gradient_passes": gradients,
        "forward_passes": 0,
        "hessian_products": products,
        "units": 6 * (gradients + products),
    }


def test_a_central_difference_is_counted_as_two_gradients() -> None:
    built = quadratic_family()
    learner = InPlaceLearner(built.module, built.objective, hessian_product="central")
    STRATEGIES["exact"](built)(learner, built.draw(1, 2))
    assert (learner.ledger.gradient_passes, learner.ledger.hessian_products) == (3 + 2 * 2, 0)


def test_the_pieces_of_a_batch_are_counted_once() -> None:
    built = lora_family()
    learner = FunctionalLearner(built.module, built.objective, batch_size=lambda piece: piece[0].numel())
    batch = built.draw(1, 1).query_batch
    learner.gradient(built.theta(), in_micro_batches(batch, 1, 3))
    assert learner.ledger.gradient_passes == 1
    assert learner.ledger.units == batch[0].numel() == sum(p[0].numel() for p in pieces(batch))
