"""A family of tasks that every strategy can learn in a few steps, and the means to train on it.

The tasks are regressions y = w·x + c that share the slope w and differ in the offset c. A meta-learner finds
w and leaves c to the inner loop; joint training finds w and the mean of c.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from innerloop.core.checkpoint import RunState
from innerloop.core.inner import SGD, InnerRule, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.learner.base import HessianProduct
from innerloop.core.losses import TaskLosses
from innerloop.core.metagrad import FirstOrder, Strategy
from innerloop.core.monitor import adapt_and_measure
from innerloop.core.parallel import World
from innerloop.core.sampler import EpisodeSampler, SamplerState, derive_seed
from innerloop.core.task import FixedTask
from innerloop.core.tracking import JsonlTracker, read_metrics
from innerloop.core.trainer import MetaTrainer, OuterSettings, RunSettings

SLOPE = torch.tensor([2.0, -1.0])
OFFSETS = {"low": -0.7, "zero": 0.0, "high": 0.7}
STEPS = 2

LearnerFactory = Callable[[nn.Module, HessianProduct], Learner]
LEARNERS: dict[str, LearnerFactory] = {
    "functional": lambda module, hvp: FunctionalLearner(module, loss, hessian_product=hvp),
    "vmap-2": lambda module, hvp: VmapLearner(module, loss, 2, hessian_product=hvp),  # chunks of 2 and 1
    "vmap-3": lambda module, hvp: VmapLearner(module, loss, 3, hessian_product=hvp),
    "in-place": lambda module, hvp: InPlaceLearner(module, loss, hessian_product=hvp),
}


def network() -> nn.Module:
    """The line w·x + c, far from every task."""
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[-1.0, 1.0]]))
        module.bias.fill_(0.5)
    return module


def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean of √(1 + error²) − 1: unlike the squared error, its curvature depends on the parameters."""
    inputs, targets = batch
    return ((module(inputs).squeeze(-1) - targets).square() + 1).sqrt().mean() - 1


def regression(name: str, offset: float, seed: int, steps: int = STEPS) -> FixedTask:
    """One episode of a task, with a fresh support batch for every inner step."""
    generator = torch.Generator().manual_seed(seed)

    def batch(rows: int) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(rows, 2, generator=generator)
        return inputs, inputs @ SLOPE + offset

    return FixedTask(name, [batch(6) for _ in range(steps)], batch(8))


def spoiled(task: FixedTask, value: float = float("nan")) -> FixedTask:
    """The task with one bad number among its query targets."""
    inputs, targets = task.query_batch
    return FixedTask(
        task.name, task.support_batches, (inputs, targets.clone().index_fill(0, torch.tensor(0), value))
    )


@dataclass
class RegressionSource:
    """Draws episodes of one task; draw ``bad_draw`` (counted from 0) is spoiled."""

    name: str
    offset: float
    steps: int = STEPS
    bad_draw: int | None = None
    position: int = 0

    def draw(self) -> FixedTask:
        task = regression(self.name, self.offset, derive_seed(self.name, self.position), self.steps)
        task = spoiled(task) if self.position == self.bad_draw else task
        self.position += 1
        return task

    def state_dict(self) -> SamplerState:
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.position = state["position"]


def sources(bad_task: str | None = None, bad_step: int = 1, steps: int = STEPS) -> list[RegressionSource]:
    """The three tasks; each is drawn once a meta-step, so a bad step (counted from 1) is a bad draw."""
    return [
        RegressionSource(name, offset, steps, bad_step - 1 if name == bad_task else None)
        for name, offset in OFFSETS.items()
    ]


def inner_loop(
    module: nn.Module, rule: InnerRule, rate: float = 0.1, learned: bool = False, proximal: float = 0.0
) -> InnerLoop:
    names = [name for name, _ in module.named_parameters()]
    return InnerLoop(rule, LearningRates(rate, names, STEPS, learned), STEPS, proximal)


def first_order(module: nn.Module) -> Strategy:
    return FirstOrder(inner_loop(module, SGD()))


@dataclass
class Setup:
    """What a run of the tests is made of; ``trainer()`` makes it anew, from the same start, every time."""

    folder: Path
    strategy: Callable[[nn.Module], Strategy] = first_order
    learner: LearnerFactory = LEARNERS["functional"]
    hessian_product: HessianProduct = "reverse"
    tasks: Callable[[], Sequence[RegressionSource]] = sources
    meta_batch_size: int = len(OFFSETS)
    outer: OuterSettings = field(default_factory=lambda: OuterSettings(0.4, 6, "adam"))
    run: RunSettings | None = None
    export: Callable[[Path], None] = lambda _folder: None
    evaluate: Callable[[Learner, InnerLoop], Callable[[], Mapping[str, float]]] | None = None
    world: World | None = None

    def trainer(self) -> MetaTrainer:
        torch.manual_seed(0)
        module = network()
        learner, strategy = self.learner(module, self.hessian_product), self.strategy(module)
        return MetaTrainer(
            learner,
            strategy,
            EpisodeSampler(self.tasks(), self.meta_batch_size, seed=0),
            self.outer,
            self.run or RunSettings(self.folder, save_every=0),
            lambda step: JsonlTracker(self.folder, step),
            self.export,
            None if self.evaluate is None else self.evaluate(learner, strategy.inner),
            self.world,
        )


def held_out_losses(learner: Learner, inner: InnerLoop) -> list[TaskLosses]:
    """The losses on tasks whose offsets were not trained on."""
    tasks = [
        regression(f"held-out {offset}", offset, derive_seed("held-out", i))
        for i, offset in enumerate((-0.5, 0.4))
    ]
    return adapt_and_measure(learner, inner, tasks)


def whole_state(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Everything a checkpoint's trainer state holds that does not depend on the clock."""
    state = RunState.read(checkpoint)
    return state.tensors, {name: value for name, value in state.values.items() if name != "seconds"}


def assert_same_state(left: Path, right: Path) -> None:
    """The two checkpoints hold the same run, bit for bit."""
    (left_tensors, left_values), (right_tensors, right_values) = whole_state(left), whole_state(right)
    assert left_values == right_values
    assert left_tensors.keys() == right_tensors.keys()
    for name, tensor in left_tensors.items():
        assert tensor.dtype == right_tensors[name].dtype
        assert torch.equal(tensor, right_tensors[name]), name


def rows(folder: Path) -> list[dict[str, float]]:
    """The tracked metrics without those that depend on the clock or on the machine."""
    return [
        {key: value for key, value in row.items() if key not in ("perf/seconds", "perf/peak_memory_bytes")}
        for row in read_metrics(folder / "metrics.jsonl")
    ]
