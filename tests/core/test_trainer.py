"""The outer loop: its step, what it reports, what it counts, what it refuses. Resuming: test_resume.py."""

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from torch import Tensor, nn

from core.toy import (
    LEARNERS,
    OFFSETS,
    STEPS,
    RegressionSource,
    Setup,
    assert_same_state,
    first_order,
    held_out_losses,
    inner_loop,
    rows,
)
from innerloop.core import params as vector
from innerloop.core.checkpoint import RunState
from innerloop.core.inner import SGD
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner
from innerloop.core.learner.base import HessianProduct
from innerloop.core.losses import TaskLosses, average_metrics, task_metrics
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Joint, Reptile, Strategy
from innerloop.core.params import Params
from innerloop.core.sampler import EpisodeSampler
from innerloop.core.schedule import rate_multiplier
from innerloop.core.task import FixedTask
from innerloop.core.tracking import JsonlTracker, read_metrics
from innerloop.core.trainer import MetaTrainer, OuterSettings, RunSettings, peak_memory

SGD_STEP = OuterSettings(0.5, 1, "sgd")


def meta_gradients(setup: Setup, count: int) -> list[Params]:
    """The meta-gradients of the first tasks a run would draw, each by itself."""
    trainer = setup.trainer()
    tasks = trainer.sampler.sample()[:count]
    assert len(tasks) == count
    return [trainer.strategy(trainer.learner, task).gradient for task in tasks]


# The outer step


def test_one_step_is_the_mean_meta_gradient_over_the_tasks(tmp_path: Path) -> None:
    setup = Setup(tmp_path, outer=SGD_STEP)
    gradients = meta_gradients(setup, 3)
    trainer = setup.trainer()
    before = vector.cloned(trainer.learner.theta)
    trainer.fit()
    for name, after in vector.cloned(trainer.learner.theta).items():
        mean = torch.stack([gradient[name] for gradient in gradients]).mean(0)
        torch.testing.assert_close(after, before[name] - 0.5 * mean)


def test_a_task_drawn_twice_in_a_meta_batch_counts_twice_and_is_reported_once(tmp_path: Path) -> None:
    setup = Setup(
        tmp_path,
        outer=SGD_STEP,
        tasks=lambda: [RegressionSource("twice", 0.5)],
        meta_batch_size=2,
    )
    first, second = meta_gradients(setup, 2)
    assert not torch.equal(first["bias"], second["bias"])  # two episodes of one task
    trainer = setup.trainer()
    before = vector.cloned(trainer.learner.theta)
    trainer.fit()
    for name, after in vector.cloned(trainer.learner.theta).items():
        torch.testing.assert_close(after, before[name] - 0.25 * (first[name] + second[name]))
    (row,) = rows(tmp_path)
    assert row["twice/query_loss"] == row["meta/loss"]
    source = RegressionSource("twice", 0.5)
    fresh = setup.trainer()
    losses = [float(fresh.strategy(fresh.learner, source.draw()).query_loss) for _ in range(2)]
    assert row["twice/query_loss"] == pytest.approx(fmean(losses))


def test_reptile_under_plain_sgd_moves_by_epsilon_towards_the_mean_adapted_point(tmp_path: Path) -> None:
    epsilon = 0.5  # a power of two, as is the number of tasks: no rounding, so equality is exact
    setup = Setup(
        tmp_path,
        lambda module: Reptile(inner_loop(module, SGD())),
        outer=OuterSettings(epsilon, 1, "sgd"),
        meta_batch_size=2,
    )
    trainer = setup.trainer()
    adapted = []
    for task in trainer.sampler.sample():
        with trainer.learner.excursion() as theta:
            adapted.append(trainer.strategy.inner.run(trainer.learner, task, theta).params)
    trainer = setup.trainer()
    before = vector.cloned(trainer.learner.theta)
    trainer.fit()
    for name, after in vector.cloned(trainer.learner.theta).items():
        towards = sum(phi[name] - before[name] for phi in adapted) / len(adapted)
        assert torch.equal(after, before[name] + epsilon * towards)
        assert not torch.equal(after, before[name])


@pytest.mark.parametrize("clip_norm", [None, 1e-3, 1e3])
def test_the_norm_is_reported_before_clipping(tmp_path: Path, clip_norm: float | None) -> None:
    setup = Setup(tmp_path, outer=replace(SGD_STEP, clip_norm=clip_norm))
    gradients = meta_gradients(setup, 3)
    mean = {name: torch.stack([g[name] for g in gradients]).mean(0) for name in gradients[0]}
    norm = float(vector.norm(mean))
    trainer = setup.trainer()
    before = vector.cloned(trainer.learner.theta)
    trainer.fit()
    moved = math.sqrt(
        sum(
            float((t - before[name]).square().sum())
            for name, t in vector.cloned(trainer.learner.theta).items()
        )
    )
    (row,) = rows(tmp_path)
    assert row["meta/grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert moved == pytest.approx(0.5 * min(norm, clip_norm or math.inf), rel=1e-2)


def test_the_rate_follows_the_schedule_and_is_reported(tmp_path: Path) -> None:
    outer = OuterSettings(0.2, 8, "sgd", schedule="cosine", warmup_ratio=0.25)
    Setup(tmp_path, outer=outer).trainer().fit()
    expected = [0.2 * rate_multiplier("cosine", step, 8, 0.25) for step in range(8)]
    assert [row["meta/lr"] for row in rows(tmp_path)] == pytest.approx(expected)
    assert expected[0] == 0.1
    assert expected[1] == 0.2


@pytest.mark.parametrize("learner", [FunctionalLearner, InPlaceLearner])
def test_half_precision_gathers_steps_too_small_for_it(tmp_path: Path, learner: type[Learner]) -> None:
    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))

    def descending(module: nn.Module, _batch: Tensor) -> Tensor:
        weight = module.weight
        assert isinstance(weight, Tensor)
        return weight.sum()

    class Source(RegressionSource):
        def draw(self) -> FixedTask:
            return FixedTask("slope", [torch.zeros(1)], torch.zeros(1))

    rate, steps = 1e-3, 10
    alone = torch.ones(4, dtype=torch.bfloat16)
    for _ in range(steps):
        alone = alone - rate * torch.ones_like(alone)
    assert bool((alone == 1).all())  # what bfloat16 by itself would make of it

    module = Slope()
    trainer = MetaTrainer(
        learner(module, descending),
        FirstOrder(inner_loop(module, SGD(), rate=0.0)),
        EpisodeSampler([Source("slope", 0.0)], 1, seed=0),
        OuterSettings(rate, steps, "sgd"),
        RunSettings(tmp_path),
        lambda step: JsonlTracker(tmp_path, step),
    )
    trainer.fit()
    assert module.weight.dtype == torch.bfloat16
    assert module.weight.tolist() == pytest.approx([1 - rate * steps] * 4, abs=2**-9)
    master = RunState.read(tmp_path / "latest").tensors["theta/weight"]
    assert master.dtype == torch.float32
    assert master.tolist() == pytest.approx([1 - rate * steps] * 4, abs=1e-6)


# What is reported

META_KEYS = {
    "step",
    "meta/loss",
    "meta/avg_support_loss",
    "meta/avg_adaptation_gap",
    "meta/avg_adaptation_gain",
    "meta/grad_norm",
    "meta/lr",
    "perf/tokens",
}
TASK_KEYS = {
    f"{task}/{key}"
    for task in OFFSETS
    for key in ("support_loss", "query_loss", "adaptation_gap", "adaptation_gain")
}


def implicit(module: nn.Module) -> Strategy:
    return Implicit(inner_loop(module, SGD(), proximal=1.0), iterations=2)


@pytest.mark.parametrize(
    ("strategy", "keys"),
    [
        (first_order, META_KEYS),
        (lambda module: Exact(inner_loop(module, SGD())), META_KEYS),
        (lambda module: Reptile(inner_loop(module, SGD())), META_KEYS),
        (implicit, META_KEYS | {"meta/cg_residual", "meta/stationarity"}),
        (
            lambda module: Joint(inner_loop(module, SGD())),
            {"step", "train/loss", "meta/grad_norm", "meta/lr", "perf/tokens"},
        ),
    ],
    ids=["first-order", "exact", "reptile", "implicit", "joint"],
)
def test_every_step_reports_its_metrics(
    tmp_path: Path, strategy: Callable[[nn.Module], Strategy], keys: set[str]
) -> None:
    Setup(tmp_path, strategy, outer=OuterSettings(0.1, 2, "sgd")).trainer().fit()
    reported = rows(tmp_path)
    assert [row["step"] for row in reported] == [1, 2]
    for row in reported:
        assert row.keys() == keys | TASK_KEYS
        assert all(math.isfinite(value) for value in row.values())
    (clocked, _) = read_metrics(tmp_path / "metrics.jsonl")
    assert clocked["perf/seconds"] > 0
    assert clocked["perf/peak_memory_bytes"] > 1e6


def test_what_training_does_not_need_is_measured_now_and_then_and_changes_nothing(tmp_path: Path) -> None:
    watched = META_KEYS | TASK_KEYS
    unwatched = {key for key in watched if not key.endswith(("support_loss", "_gap", "_gain"))}
    ends = []
    for every in (1, 2):
        folder = tmp_path / str(every)
        run = RunSettings(folder, save_every=0, monitor_every=every)
        ends.append(Setup(folder, outer=OuterSettings(0.1, 4, "sgd"), run=run).trainer().fit())
        expected = [watched] * 4 if every == 1 else [watched, unwatched, watched, watched]  # the last always
        assert [set(row) for row in rows(folder)] == expected
    assert_same_state(*ends)


def test_the_metrics_mean_what_they_are_called(tmp_path: Path) -> None:
    setup = Setup(tmp_path, outer=SGD_STEP)
    trainer = setup.trainer()
    results = {
        task.name: trainer.strategy(trainer.learner, task) for task in setup.trainer().sampler.sample()
    }
    setup.trainer().fit()
    (row,) = rows(tmp_path)
    for name, result in results.items():
        support, before, after = (
            float(value) for value in (result.support_loss, result.query_loss_before, result.query_loss)
        )
        assert row[f"{name}/support_loss"] == support
        assert row[f"{name}/query_loss"] == after
        assert row[f"{name}/adaptation_gap"] == after - support
        assert row[f"{name}/adaptation_gain"] == before - after
    assert row["meta/loss"] == pytest.approx(fmean(float(r.query_loss) for r in results.values()))


def test_joint_training_reports_the_mean_loss_of_all_its_batches(tmp_path: Path) -> None:
    setup = Setup(tmp_path, lambda module: Joint(inner_loop(module, SGD())), outer=SGD_STEP)
    trainer = setup.trainer()
    losses = [
        float(trainer.learner.loss(vector.cloned(trainer.learner.theta), batch))
        for task in setup.trainer().sampler.sample()
        for batch in (*task.support_batches, task.query_batch)  # type: ignore[attr-defined]
    ]
    assert len(losses) == 3 * (STEPS + 1)
    trainer.fit()
    (row,) = rows(tmp_path)
    assert row["train/loss"] == pytest.approx(fmean(losses), rel=1e-5)


# Held-out tasks


def eval_metrics(losses: Sequence[TaskLosses]) -> dict[str, float]:
    return task_metrics(losses, "eval/") | average_metrics(losses, "eval/")


def evaluating(setup: Setup, every: int) -> Setup:
    return replace(
        setup,
        evaluate=lambda learner, inner: lambda: eval_metrics(held_out_losses(learner, inner)),
        run=RunSettings(setup.folder, save_every=0, evaluate_every=every),
    )


def test_held_out_tasks_are_measured_when_due_and_at_the_end(tmp_path: Path) -> None:
    trainer = evaluating(Setup(tmp_path, outer=OuterSettings(0.1, 5, "sgd")), every=2).trainer()
    trainer.fit()
    evaluated = {row["step"]: row for row in rows(tmp_path) if "eval/loss" in row}
    assert evaluated.keys() == {2, 4, 5}
    last = evaluated[5]
    for key in ("eval/avg_support_loss", "eval/avg_adaptation_gap", "eval/held-out -0.5/adaptation_gain"):
        assert key in last
    measured = held_out_losses(trainer.learner, trainer.strategy.inner)
    assert last["eval/loss"] == pytest.approx(fmean(entry.query_loss for entry in measured))


def test_measuring_held_out_tasks_changes_nothing(tmp_path: Path) -> None:
    plain = Setup(tmp_path / "plain").trainer().fit()
    measured = evaluating(Setup(tmp_path / "measured"), every=1).trainer().fit()
    assert_same_state(plain, measured)  # the ledger and the random state among the rest


# The ledger

TASKS = len(OFFSETS)
K = STEPS


@pytest.mark.parametrize("learner", ["functional", "in-place"])
@pytest.mark.parametrize(
    ("strategy", "hessian_product", "gradients", "products"),
    [
        pytest.param(first_order, "reverse", K + 1, 0, id="first-order"),
        pytest.param(lambda m: Exact(inner_loop(m, SGD())), "reverse", K + 1, K, id="exact"),
        pytest.param(lambda m: Exact(inner_loop(m, SGD())), "central", K + 1 + 2 * K, 0, id="exact-central"),
        pytest.param(implicit, "reverse", K + 1, K * (1 + 2), id="implicit"),
        pytest.param(lambda m: Reptile(inner_loop(m, SGD())), "reverse", K, 0, id="reptile"),
        pytest.param(lambda m: Joint(inner_loop(m, SGD())), "reverse", K + 1, 0, id="joint"),
    ],
)
def test_the_ledger_counts_what_the_strategy_spends(
    tmp_path: Path,
    learner: str,
    strategy: Callable[[nn.Module], Strategy],
    hessian_product: HessianProduct,
    gradients: int,
    products: int,
) -> None:
    steps = 2
    setup = Setup(
        tmp_path, strategy, LEARNERS[learner], hessian_product, outer=OuterSettings(0.1, steps, "sgd")
    )
    trainer = setup.trainer()
    trainer.fit()
    spent = trainer.learner.ledger
    assert spent.gradient_passes == steps * TASKS * gradients
    assert spent.hessian_products == steps * TASKS * products
    assert spent.forward_passes == 0  # losses that are only monitored cost nothing on the books
    assert spent.units == steps * TASKS * (gradients + products)
    assert [row["perf/tokens"] for row in rows(tmp_path)] == [spent.units / steps] * steps
    assert RunState.read(tmp_path / "latest").values["ledger"] == spent.state_dict()


def test_joint_training_is_matched_to_first_order(tmp_path: Path) -> None:
    spent = []
    for name, strategy in (("meta", first_order), ("joint", lambda m: Joint(inner_loop(m, SGD())))):
        trainer = Setup(tmp_path / name, strategy).trainer()
        trainer.fit()
        spent.append(trainer.learner.ledger)
    assert spent[0] == spent[1]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc here")
def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    ballast = bytearray(1 << 30)
    ballast[:: 1 << 12] = b"x" * (1 << 18)
    measure = "from innerloop.core.trainer import peak_memory; print(peak_memory())"
    child = int(subprocess.run([sys.executable, "-c", measure], capture_output=True, check=True).stdout)
    assert child < len(ballast)
    assert peak_memory() > len(ballast)
