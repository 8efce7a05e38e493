"""The in-place learner saves memory and changes no number: it is held against the plain way, bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.families import FAMILIES, Family, distance, fixed_rates, in_micro_batches, llama_family
from innerloop.core import params as vector
from innerloop.core.inner import SGD, Adam, InnerRule, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.live_memory import LiveMemory
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Joint, Reptile, Strategy
from innerloop.core.params import Params
from innerloop.core.sampler import EpisodeSampler
from innerloop.core.task import FixedTask
from innerloop.core.tracking import JsonlTracker
from innerloop.core.trainer import MetaTrainer, OuterSettings, RunSettings

pytestmark = pytest.mark.usefixtures("float64_llama")

RULES: dict[str, Callable[[], InnerRule]] = {
    "sgd": SGD,
    "clipped sgd": lambda: SGD(max_norm=0.5),
    "adam": Adam,
    "clipped adam": lambda: Adam(max_norm=0.5),
}


class Plain(InPlaceLearner):
    """Takes the whole gradient first, then the rule's whole update, and adds whole gradients up."""

    descend = Learner.descend
    add_gradient = Learner.add_gradient


def loop(family: Family, rule: InnerRule, steps: int = 3) -> InnerLoop:
    return InnerLoop(rule, fixed_rates(family, steps), steps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("strategy", [FirstOrder, Reptile])
@pytest.mark.parametrize("rule", RULES)
def test_moving_parameters_in_the_backward_pass_changes_no_bit(
    rule: str, strategy: type[Strategy], dtype: torch.dtype
) -> None:
    """The Llama has tied embeddings, whose gradient comes from two places."""
    results = []
    for make in (InPlaceLearner, Plain):
        built = llama_family()
        built.module.to(dtype)
        learner = make(built.module, built.objective)
        results.append(strategy(loop(built, RULES[rule]()))(learner, built.draw(1, 3)))
    fused, plain = results
    for name, gradient in plain.gradient.items():
        assert torch.equal(fused.gradient[name], gradient)
    assert torch.equal(fused.query_loss, plain.query_loss)
    assert torch.equal(fused.support_loss, plain.support_loss)
    for name, tensor in (plain.states or [{}])[0].items():
        assert torch.equal(fused.states[0][name], tensor)


@pytest.mark.parametrize("rule", RULES)
def test_micro_batches_step_once(rule: str) -> None:
    built = llama_family()
    task = built.draw(1, 2)
    cut = FixedTask(
        "cut",
        [in_micro_batches(batch, 1, 2, 1) for batch in task.support_batches],
        in_micro_batches(task.query_batch, 3, 1),
    )
    learner = InPlaceLearner(built.module, built.objective)
    strategy = FirstOrder(loop(built, RULES[rule](), 2))
    assert distance(strategy(learner, cut).gradient, strategy(learner, task).gradient) < 1e-9


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["exact", "first order", "implicit", "reptile", "joint"])
@pytest.mark.parametrize("make", [InPlaceLearner, FunctionalLearner, VmapLearner])
def test_meta_gradients_add_up_in_one_buffer(make: Callable[..., Learner], name: str, family: str) -> None:
    built = FAMILIES[family]()
    learner = make(built.module, built.objective, *([1] if make is VmapLearner else []))
    strategies: dict[str, Callable[[], Strategy]] = {
        "exact": lambda: Exact(loop(built, SGD(), 2)),
        "first order": lambda: FirstOrder(loop(built, SGD(), 2)),
        "implicit": lambda: Implicit(InnerLoop(SGD(), fixed_rates(built, 2), 2, proximal=2.0), 2),
        "reptile": lambda: Reptile(loop(built, SGD(), 2)),
        "joint": lambda: Joint(loop(built, SGD(), 2)),
    }
    strategy = strategies[name]()
    total = vector.zeros_like(built.theta())
    places = {key: tensor.data_ptr() for key, tensor in total.items()}
    wanted = vector.zeros_like(total)
    for seed in (1, 2):
        task = learner.bundle([built.draw(seed, 2)])
        wanted = vector.add(wanted, strategy(learner, task).gradient)
        result = strategy(learner, learner.bundle([built.draw(seed, 2)]), total)
        assert result.gradient is total
    assert {key: tensor.data_ptr() for key, tensor in total.items()} == places
    assert distance(total, wanted) < 1e-12


class Detour(nn.Module):
    """One weight is in no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))


def test_a_rule_with_moments_sees_a_gradient_of_zero_where_there_is_none() -> None:
    """Adam's carried first moment moves a parameter that this step's loss does not know."""

    def objective(module: nn.Module, batch: Tensor) -> Tensor:
        assert isinstance(module, Detour)
        return (module.used * batch).sum() + (module.unused.sum() if float(batch.sum()) > 5 else 0)

    task = FixedTask("", [torch.full((3,), 2.0), torch.ones(3)], torch.ones(3))
    results = []
    for make in (InPlaceLearner, Plain):
        module = Detour()
        learner = make(module, objective)
        inner = InnerLoop(Adam(), LearningRates(0.1, ["used", "unused"], 2), 2)
        inner.run(learner, task, dict(learner.theta))
        results.append(module)
    fused, plain = results
    assert torch.equal(fused.unused, plain.unused)
    assert torch.equal(fused.used, plain.used)
    assert float(plain.unused[0].detach()) < 0.85  # moved in the second step too


# Memory


def tower(layers: int = 16, width: int = 64) -> nn.Module:
    """Parameters alone: a batch of one row makes its graph small beside them."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))


def tower_loss(module: nn.Module, batch: Tensor) -> Tensor:
    loss: Tensor = module(batch).square().mean()
    return loss


def tower_task(steps: int) -> FixedTask:
    return FixedTask("", [torch.ones(1, 64)] * steps, torch.ones(1, 64))


def size(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def height(
    module: nn.Module, learner: Learner, make: Callable[[InnerLoop], Strategy], rule: InnerRule
) -> float:
    """The most that a meta-gradient holds beside θ and the sum it goes into, in copies of θ."""
    names = [name for name, _ in module.named_parameters()]
    total = vector.zeros_like(vector.detached(learner.theta))
    with LiveMemory() as live:
        make(InnerLoop(rule, LearningRates(0.1, names, 4), 4))(learner, tower_task(4), total)
    return live.peak / size(module)


@pytest.mark.parametrize(
    ("rule", "copies"), [(SGD(), 1.25), (SGD(max_norm=1.0), 2.3)], ids=["plain", "clipped"]
)
def test_first_order_maml_holds_theta_twice(rule: InnerRule, copies: float) -> None:
    """The copy of θ that waits; one more, of gradients, where they are shortened and so must be whole."""
    module = tower()
    assert height(module, InPlaceLearner(module, tower_loss), FirstOrder, rule) < copies
    assert height(module, Plain(module, tower_loss), FirstOrder, rule) > copies + 1


def test_reptile_needs_no_second_copy_of_where_it_started() -> None:
    module = tower()
    assert height(module, InPlaceLearner(module, tower_loss), Reptile, SGD()) < 2.3


@pytest.mark.parametrize("make", [InPlaceLearner, FunctionalLearner])
def test_the_tape_of_a_linear_rule_holds_points_alone(make: Callable[..., Learner]) -> None:
    module = tower()
    learner = make(module, tower_loss)
    names = [name for name, _ in module.named_parameters()]
    inner = InnerLoop(SGD(), LearningRates(0.1, names, 4), 4)
    clipped = InnerLoop(SGD(max_norm=1.0), LearningRates(0.1, names, 4), 4)

    def held(inner: InnerLoop) -> float:
        with learner.excursion() as theta, LiveMemory() as live:
            adapted = inner.run(learner, tower_task(4), theta, record=True)
            assert len(adapted.tape) == 4
            return live.now / size(module)

    # The first of the four points is θ; functional learners hold φ beside the points.
    extra = 0 if make is InPlaceLearner else 1
    assert held(inner) == pytest.approx(3 + extra, abs=0.05)
    assert held(clipped) == pytest.approx(3 + extra + 4, abs=0.05)


def test_a_kept_start_is_safe_from_moves() -> None:
    module = tower(2)
    learner = InPlaceLearner(module, tower_loss)
    before = vector.cloned(learner.theta)
    with learner.excursion() as theta:
        start = learner.keep(theta)
        moved = learner.move(theta, {name: torch.ones_like(p) for name, p in theta.items()})
        later = learner.keep(moved)
        learner.move(moved, {name: torch.ones_like(p) for name, p in theta.items()})
        for name, value in before.items():
            assert torch.equal(start[name], value)
            assert torch.equal(later[name], value + 1)
    for name, value in before.items():
        assert torch.equal(learner.theta[name], value)


def test_theta_comes_back_from_its_master_copy(tmp_path: Path) -> None:
    """Half-precision parameters have a float32 master in the trainer, so an excursion copies nothing."""
    module = tower().to(torch.bfloat16)
    learner = InPlaceLearner(module, lambda m, batch: tower_loss(m, batch.to(torch.bfloat16)))
    names = list(learner.theta)
    strategy = FirstOrder(InnerLoop(SGD(), LearningRates(0.5, names, 2), 2))
    MetaTrainer(
        learner,
        strategy,
        EpisodeSampler([_Source()], 1, seed=0),
        OuterSettings(0.1, 1),
        RunSettings(tmp_path),
        lambda step: JsonlTracker(tmp_path, step),
    ).fit()
    before = vector.cloned(learner.theta)
    with LiveMemory() as live, learner.excursion() as theta:
        kept = learner.keep(theta)
        strategy.inner.run(learner, tower_task(2), theta)
        assert not torch.equal(theta[names[0]], before[names[0]])
    assert all(torch.equal(p, before[name]) for name, p in learner.theta.items())
    assert all(torch.equal(kept[name], before[name]) for name in names)
    assert live.peak < 1.5 * size(module)  # the kept point, and a layer's gradient and step


class _Source:
    name = "tower"

    def draw(self) -> FixedTask:
        return tower_task(2)

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: object) -> None:
        pass


def test_committing_moves_the_master_copy_too() -> None:
    module = tower(1).to(torch.bfloat16)
    learner = InPlaceLearner(module, tower_loss)
    (name,) = learner.theta
    learner.masters = {name: learner.theta[name].detach().float()}
    learner.commit({name: torch.ones_like(learner.theta[name])})
    with learner.excursion():
        pass
    assert torch.equal(learner.theta[name], torch.ones_like(learner.theta[name]))


def test_shelved_tensors_come_back() -> None:
    module = tower(1)
    learner = InPlaceLearner(module, tower_loss)
    (name,) = learner.theta
    before = learner.theta[name].detach().clone()
    shelved: Params = learner.shelve(dict(learner.theta))
    learner.commit({name: torch.zeros_like(before)})
    assert torch.equal(learner.fetch(shelved)[name], before)
