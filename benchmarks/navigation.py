"""2-D navigation, MAML's own reinforcement-learning task: what meta-training is worth after gradient steps.

As in Finn 2017 (5.3, figure 4) a policy is meta-trained for one gradient step, and compared after up to three
steps on new goals with one trained on all goals together (the paper's pretrained policy) and one that was
never trained. All have the same network, inner rate, episodes and meta-steps, and the same goals judge them.
Run: ``python benchmarks/navigation.py``.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import VmapLearner
from innerloop.core.metagrad import Exact, FirstOrder, Joint, Strategy
from innerloop.core.params import Params
from innerloop.core.stats import Interval, mean_interval
from innerloop.core.trainer import MetaTrainer, OuterSettings, RunSettings
from innerloop.rl.navigation import NavigationSampler, PointPolicy
from innerloop.rl.policy_gradient import PolicyLoss

RATE, GOALS_AT_ONCE, STEPS = 0.02, 20, 3
STRATEGIES: Mapping[str, type[Strategy] | None] = {
    "MAML": Exact,
    "first-order MAML": FirstOrder,
    "pretrained on all goals": Joint,
    "not trained": None,
}


class _Quiet:
    """Takes metrics and keeps none."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def trained(kind: type[Strategy] | None, meta_steps: int, seed: int) -> PointPolicy:
    """A policy after meta-training, or before any."""
    torch.manual_seed(seed)
    policy = PointPolicy()
    if kind is None:
        return policy
    rates = LearningRates(RATE, [name for name, _ in policy.named_parameters()], 1)
    with tempfile.TemporaryDirectory() as folder:
        MetaTrainer(
            VmapLearner(policy, PolicyLoss(value=0.0), GOALS_AT_ONCE),
            kind(InnerLoop(SGD(), rates, 1)),
            NavigationSampler(policy, GOALS_AT_ONCE, seed),
            OuterSettings(1e-3, meta_steps, optimizer="adam", clip_norm=0.5),
            RunSettings(Path(folder), save_every=0),
            trackers=lambda _start: _Quiet(),
        ).fit()
    return policy


def returns(policy: PointPolicy, goals: int) -> list[Interval]:
    """The mean return over new goals after 0, 1, 2, ... gradient steps, with its 95 % interval."""
    rates = LearningRates(RATE, [name for name, _ in policy.named_parameters()], 1)
    learner = VmapLearner(policy, PolicyLoss(value=0.0), goals)
    sampler = NavigationSampler(policy, goals, seed=10**6)
    tasks = [sampler.task(number) for number in range(goals)]
    found: list[list[float]] = []

    def judge(params: Params) -> None:
        found.append(
            [
                float(task.play("judge", {name: p[i] for name, p in params.items()}).returns.mean())
                for i, task in enumerate(tasks)
            ]
        )

    bundle = learner.bundle(tasks)
    with learner.excursion() as theta:
        judge(theta)
        InnerLoop(SGD(), rates, STEPS).run(
            learner, bundle, theta, watch=lambda _step, _loss, params: judge(params)
        )
    return [mean_interval(values) for values in found]


def main() -> None:
    """Trains, judges and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meta-steps", type=int, default=100)
    parser.add_argument("--goals", type=int, default=40, help="to judge on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = Table(
        "policy",
        *(f"{step} steps" for step in range(STEPS + 1)),
        title=f"return on {options.goals} new goals by gradient steps",
    )
    for name, kind in STRATEGIES.items():
        policy = trained(kind, options.meta_steps, options.seed)
        cells = [f"{i.mean:.2f} ± {i.half_width:.2f}" for i in returns(policy, options.goals)]
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
