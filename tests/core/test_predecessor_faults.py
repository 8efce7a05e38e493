"""The faults of earlier meta-learning code that are possible in a core, each shown to be impossible in ours.

The faults of public implementations for language models and for reinforcement learning that this project set
out to mend: no second-order term, a query gradient that mixes adapted activations with restored weights, an
evaluation that cannot take a gradient or looks at the un-adapted model, an adapter that is not restored
between tasks, one batch for all steps, learning that ends in a copy. Those of data, of rewards and of the
command line are tested where data, rewards and commands are.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from core.families import (
    Family,
    conv_family,
    distance,
    fixed_rates,
    fresh_lora_family,
    llama_family,
    lora_family,
)
from innerloop.core import params as vector
from innerloop.core.inner import SGD, Adam
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Reptile, Strategy
from innerloop.core.params import Params
from innerloop.core.task import Batch, FixedTask

pytestmark = pytest.mark.usefixtures("float64_llama")

LEARNERS: dict[str, Callable[[Family], Learner]] = {
    "functional": lambda f: FunctionalLearner(f.module, f.objective),
    "in place": lambda f: InPlaceLearner(f.module, f.objective),
    "vmapped": lambda f: VmapLearner(f.module, f.objective, 1),
}
STRATEGIES: dict[str, Callable[[InnerLoop], Strategy]] = {
    "exact": Exact,
    "first order": FirstOrder,
    "reptile": Reptile,
    "implicit": lambda inner: Implicit(InnerLoop(inner.rule, inner.rates, inner.steps, 5.0), iterations=2),
}


def meta_gradient(strategy: Strategy, learner: Learner, task: FixedTask) -> Params:
    return strategy(learner, learner.bundle([task])).gradient


def plain_gradient(family: Family, module: nn.Module, batch: Batch, graph: bool = False) -> list[Tensor]:
    """The gradient of a module's own parameters, by PyTorch alone."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return list(torch.autograd.grad(family.objective(module, batch), parameters, create_graph=graph))


def fine_tuned_copy(family: Family, task: FixedTask, rate: float) -> nn.Module:
    """A deep copy taken through the inner steps by hand."""
    module = copy.deepcopy(family.module)
    for batch in task.support_batches:
        gradient = plain_gradient(family, module, batch)
        with torch.no_grad():
            for p, g in zip((p for p in module.parameters() if p.requires_grad), gradient, strict=True):
                p.sub_(rate * g)
    return module


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("family", [conv_family, llama_family, lora_family])
def test_maml_carries_the_second_order_term(family: Callable[[], Family], learner: str) -> None:
    """Exact less first order is −α H ∇Q(θ₁), computed here by double backward on a copy of the model."""
    built = family()
    task, inner = built.draw(1, 1), InnerLoop(SGD(), fixed_rates(built, 1), 1)
    on = LEARNERS[learner](built)
    term = vector.subtract(meta_gradient(Exact(inner), on, task), meta_gradient(FirstOrder(inner), on, task))
    at_query = plain_gradient(built, fine_tuned_copy(built, task, built.inner_rate), task.query_batch)
    module = copy.deepcopy(built.module)
    support = plain_gradient(built, module, task.support_batches[0], graph=True)
    along = torch.stack([(g * v).sum() for g, v in zip(support, at_query, strict=True)]).sum()
    product = torch.autograd.grad(along, [p for p in module.parameters() if p.requires_grad])
    wanted = {name: -built.inner_rate * h for name, h in zip(built.names, product, strict=True)}
    assert distance(term, wanted) < 1e-9


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("learner", ["functional", "in place"])
@pytest.mark.parametrize("family", [llama_family, lora_family])
def test_the_query_gradient_is_all_of_the_adapted_model(
    family: Callable[[], Family], learner: str, checkpointing: bool
) -> None:
    """Activations and weights alike: it is the gradient of a copy that really was fine-tuned."""
    built = family()
    if checkpointing:
        built.module.train()
        built.module.gradient_checkpointing_enable({"use_reentrant": False})
    task, inner = built.draw(2, 3), InnerLoop(SGD(), fixed_rates(built, 3), 3)
    got = meta_gradient(FirstOrder(inner), LEARNERS[learner](built), task)
    adapted = fine_tuned_copy(built, task, built.inner_rate)
    wanted = dict(zip(built.names, plain_gradient(built, adapted, task.query_batch), strict=True))
    assert distance(got, wanted) < 1e-10
    at_theta = dict(zip(built.names, plain_gradient(built, built.module, task.query_batch), strict=True))
    assert distance(at_theta, wanted) > 0.05


@pytest.mark.parametrize("learner", LEARNERS)
def test_evaluation_adapts_and_looks_at_the_adapted_model(learner: str) -> None:
    """Also under ``no_grad``, where an evaluation loop stands: the losses are those of a fine-tuned copy."""
    built = lora_family()
    task, inner = built.draw(3, 4), InnerLoop(SGD(), fixed_rates(built, 4), 4)
    on = LEARNERS[learner](built)
    with torch.no_grad():
        result = FirstOrder(inner)(on, on.bundle([task]))
        adapted = fine_tuned_copy_with_gradients(built, task)
        before = built.objective(built.module, task.query_batch)
        after = built.objective(adapted, task.query_batch)
        support = built.objective(adapted, task.support_batches[-1])
    torch.testing.assert_close(result.query_loss_before, before.reshape(1), rtol=1e-10, atol=0)
    torch.testing.assert_close(result.query_loss, after.reshape(1), rtol=1e-10, atol=0)
    torch.testing.assert_close(result.support_loss, support.reshape(1), rtol=1e-10, atol=0)
    assert abs(float(after - before)) > 1e-3


def fine_tuned_copy_with_gradients(family: Family, task: FixedTask) -> nn.Module:
    with torch.enable_grad():
        return fine_tuned_copy(family, task, family.inner_rate)


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_shared_adapter_is_restored_between_tasks(strategy: str, learner: str) -> None:
    """What a task gives does not depend on the tasks before it."""
    built = lora_family()
    on = LEARNERS[learner](built)
    run = STRATEGIES[strategy](InnerLoop(SGD(), fixed_rates(built, 1), 1))
    first, second = built.draw(4, 1), built.draw(5, 1)
    alone = meta_gradient(run, on, second)
    meta_gradient(run, on, first)
    assert distance(meta_gradient(run, on, second), alone) == 0


@dataclass
class Recorder:
    """A task that writes down what it was asked for."""

    task: FixedTask
    name: str = "recorded"
    steps: list[int] = field(default_factory=list)
    points: list[Params] = field(default_factory=list)

    def support(self, step: int, params: Params) -> Batch:
        self.steps.append(step)
        self.points.append(vector.cloned(params))
        return self.task.support(step, params)

    def query(self, params: Params) -> Batch:
        return self.task.query(params)


@pytest.mark.parametrize("learner", ["functional", "in place"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_inner_step_draws_a_fresh_batch(strategy: str, learner: str) -> None:
    built = conv_family()
    recorder = Recorder(built.draw(6, 3))
    on = LEARNERS[learner](built)
    STRATEGIES[strategy](InnerLoop(SGD(), fixed_rates(built, 3), 3))(on, recorder)
    assert recorder.steps == [0, 1, 2]
    assert distance(recorder.points[0], built.theta()) == 0
    assert distance(recorder.points[1], recorder.points[0]) > 0
    assert distance(recorder.points[2], recorder.points[1]) > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_batch_of_a_step_is_used_in_that_step(strategy: str) -> None:
    """The same batches in another order, or the first one three times, end elsewhere."""
    built = conv_family()
    on = FunctionalLearner(built.module, built.objective)
    run = STRATEGIES[strategy](InnerLoop(SGD(), fixed_rates(built, 3), 3))
    task = built.draw(7, 3)
    wanted = meta_gradient(run, on, task)
    backwards = FixedTask("backwards", task.support_batches[::-1], task.query_batch)
    repeated = FixedTask("repeated", task.support_batches[:1], task.query_batch)
    assert distance(meta_gradient(run, on, backwards), wanted) > 1e-4
    assert distance(meta_gradient(run, on, repeated), wanted) > 1e-2


def adapted_loss(family: Family, tasks: list[FixedTask]) -> float:
    """The mean query loss of fine-tuned copies."""
    losses = [
        family.objective(fine_tuned_copy(family, task, family.inner_rate), task.query_batch) for task in tasks
    ]
    return float(torch.stack(losses).mean().detach())


def rule_in_the_shots(family: Family, seed: int) -> FixedTask:
    """A language task to be learned from its support: one sentence, other rows of it to be predicted."""
    task = family.draw(seed, 2)
    ids, count = task.query_batch
    sentence = ids[:1].expand_as(ids).contiguous()
    return FixedTask(f"sentence {seed}", [(sentence, count)] * 2, (sentence, count))


@pytest.mark.parametrize(
    ("strategy", "learner"),
    [("exact", "functional"), ("first order", "in place"), ("reptile", "in place")],
)
def test_the_learner_itself_learns(strategy: str, learner: str) -> None:
    """Outer steps move the module's own parameters, and new tasks are then adapted to better.

    LoRA from where training starts, B = 0: the learned initialisation has to move both factors.
    """
    built = fresh_lora_family()
    on = LEARNERS[learner](built)
    run = STRATEGIES[strategy](InnerLoop(SGD(), fixed_rates(built, 2), 2))
    unseen = [rule_in_the_shots(built, seed) for seed in range(100, 104)]
    start, before = built.theta(), adapted_loss(built, unseen)
    optimizer = torch.optim.Adam(on.theta.values(), lr=0.02)
    for step in range(10):
        gradient = meta_gradient(run, on, rule_in_the_shots(built, step))
        for name, p in on.theta.items():
            p.grad = gradient[name]
        optimizer.step()
    moved = vector.subtract(built.theta(), start)
    assert all(float(t.norm()) > 0 for t in moved.values())
    assert adapted_loss(built, unseen) < before - 0.05


def test_an_inner_adam_is_no_outer_momentum() -> None:
    """An inner rule's moments belong to a task: unless told to carry, the next task starts without them."""
    built = conv_family()
    on = FunctionalLearner(built.module, built.objective)
    rule = Adam()
    run = FirstOrder(InnerLoop(rule, fixed_rates(built, 2, 0.1), 2))
    task = built.draw(8, 2)
    first = run(on, task)
    rule.carry(first.states)
    assert distance(run(on, task).gradient, first.gradient) == 0
