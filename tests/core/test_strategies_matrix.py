"""Every strategy x learner x inner rule meets the same demands; what cannot be combined is refused."""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytest
import torch
from torch import nn

from core.toy import LEARNERS, Setup, assert_same_state, held_out_losses, inner_loop, sources
from innerloop.core.errors import InputError, NonFiniteError
from innerloop.core.inner import SGD, Adam, InnerRule
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner.base import HessianProduct
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Joint, Reptile, Strategy, Unroll
from innerloop.core.parallel import World
from innerloop.core.params import Params
from innerloop.core.task import Batch, FixedTask
from innerloop.core.trainer import MetaTrainer, OuterSettings, RunSettings

STEPS, HALF = 6, 3
OUTER = OuterSettings(0.55, STEPS, "adam", clip_norm=5.0, schedule="cosine", warmup_ratio=0.2)
LEFT_OF_THE_LOSS = 0.4


@dataclass(frozen=True)
class Recipe:
    make: Callable[[InnerLoop], Strategy]
    hessian_product: HessianProduct = "reverse"
    proximal: float = 0.0


STRATEGIES = {
    "exact-reverse": Recipe(Exact),
    "exact-forward": Recipe(Exact, "forward"),
    "exact-central": Recipe(Exact, "central"),
    "unroll": Recipe(Unroll),
    "first-order": Recipe(FirstOrder),
    "implicit": Recipe(lambda inner: Implicit(inner, iterations=2, damping=0.1), proximal=1.0),
    "reptile": Recipe(Reptile),
    "joint": Recipe(Joint),
}
RULES: dict[str, Callable[[], InnerRule]] = {
    "sgd": SGD,
    "sgd-clipped": lambda: SGD(max_norm=0.5),
    "adam-reset": Adam,
    "adam-carry": lambda: Adam(moments="carry"),
}


@dataclass(frozen=True)
class Combination:
    strategy: str
    learner: str
    rule: str
    learned: bool

    def __str__(self) -> str:
        rates = "learned" if self.learned else "fixed"
        return f"{self.strategy}/{self.learner}/{self.rule}/{rates}"

    @property
    def refusal(self) -> str | None:
        """What the error says where the combination cannot be; none where it can."""
        if self.learned and self.strategy in ("implicit", "reptile", "joint"):
            return "has no gradient for the inner learning rates"
        if self.learner == "in-place" and self.strategy == "unroll":
            return "unrolling needs a functional learner"
        if self.learner == "in-place" and self.strategy == "exact-forward":
            return "forward-over-reverse products need a functional learner"
        return None

    def build_strategy(self, module: nn.Module) -> Strategy:
        recipe = STRATEGIES[self.strategy]
        rule = RULES[self.rule]()
        return recipe.make(inner_loop(module, rule, learned=self.learned, proximal=recipe.proximal))

    def setup(
        self,
        folder: Path,
        bad_step: int | None = None,
        resume: Path | None = None,
        world: World | None = None,
    ) -> Setup:
        return Setup(
            folder,
            self.build_strategy,
            LEARNERS[self.learner],
            STRATEGIES[self.strategy].hessian_product,
            tasks=lambda: sources() if bad_step is None else sources("high", bad_step),
            outer=OUTER,
            run=RunSettings(folder, save_every=HALF, resume=resume or "auto"),
            world=world,
        )


COMBINATIONS = [
    Combination(*parts) for parts in itertools.product(STRATEGIES, LEARNERS, RULES, (False, True))
]
POSSIBLE = [combination for combination in COMBINATIONS if combination.refusal is None]
IMPOSSIBLE = [combination for combination in COMBINATIONS if combination.refusal is not None]


@dataclass(frozen=True)
class Finished:
    """A whole run of a combination."""

    combination: Combination
    folder: Path
    loss_before: float
    loss_after: float
    trainer: MetaTrainer


def held_out_loss(combination: Combination, trainer: MetaTrainer) -> float:
    losses = held_out_losses(trainer.learner, trainer.strategy.inner)
    if combination.strategy == "joint":
        return fmean(entry.query_loss_before for entry in losses)
    return fmean(entry.query_loss for entry in losses)


@pytest.fixture(scope="module", params=POSSIBLE, ids=str)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    combination: Combination = request.param
    folder = tmp_path_factory.mktemp("whole")
    trainer = combination.setup(folder).trainer()
    before = held_out_loss(combination, trainer)
    trainer.fit()
    return Finished(combination, folder, before, held_out_loss(combination, trainer), trainer)


def test_improves(finished: Finished) -> None:
    assert finished.loss_after < LEFT_OF_THE_LOSS * finished.loss_before
    if finished.combination.learned:
        start = finished.combination.setup(finished.folder).trainer().strategy.inner.rates.values
        for name, rates in finished.trainer.strategy.inner.rates.values.items():
            assert bool((rates != start[name]).all()), f"the rates of {name} were not learned"


class BrokenHalfway(FixedTask):
    """A task whose second support batch cannot be had."""

    def support(self, step: int, params: Params) -> Batch:
        if step == 1:
            raise OSError("the data went away")
        return super().support(step, params)


def test_restores_theta(finished: Finished) -> None:
    trainer = finished.trainer
    learner, module = trainer.learner, trainer.learner.module
    tasks = [source.draw() for source in sources()][: learner.tasks_at_once]
    broken = [BrokenHalfway(task.name, task.support_batches, task.query_batch) for task in tasks]
    parameters = dict(module.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    result = trainer.strategy(learner, learner.bundle(tasks))
    with pytest.raises(OSError, match="went away"):
        trainer.strategy(learner, learner.bundle(broken))

    assert any(bool(gradient.count_nonzero()) for gradient in result.gradient.values())
    for name, parameter in module.named_parameters():
        assert parameter is parameters[name]
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad
        assert parameter.grad is None


def test_resumes_bit_for_bit(finished: Finished, tmp_path: Path) -> None:
    half = finished.folder / f"step_{HALF}"
    finished.combination.setup(tmp_path, resume=half).trainer().fit()
    assert_same_state(tmp_path / f"step_{STEPS}", finished.folder / f"step_{STEPS}")


def test_refuses_non_finite(finished: Finished, tmp_path: Path) -> None:
    half = finished.folder / f"step_{HALF}"
    trainer = finished.combination.setup(tmp_path, bad_step=HALF + 1, resume=half).trainer()
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit()
    assert (caught.value.task, caught.value.step) == ("high", HALF + 1)
    message = str(caught.value)
    assert message.startswith("query loss before adaptation of task 'high'")
    assert f"step {HALF + 1}" in message
    assert f"step {HALF} is saved in {tmp_path / f'step_{HALF}'}" in message
    assert_same_state(tmp_path / f"step_{HALF}", half)


@pytest.mark.parametrize("combination", IMPOSSIBLE, ids=str)
def test_impossible_is_refused(combination: Combination, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(combination.refusal or "")) as caught:
        combination.setup(tmp_path).trainer().fit()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("step_*"))


def test_the_matrix_is_whole() -> None:
    assert len(POSSIBLE) + len(IMPOSSIBLE) == len(STRATEGIES) * len(LEARNERS) * len(RULES) * 2
    for name in STRATEGIES:
        assert any(combination.strategy == name for combination in POSSIBLE)
