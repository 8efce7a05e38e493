"""How policies do on held-out clusters, before and while they adapt, beside every baseline.

All are judged on the same clusters by the same episodes, so differences are paired.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from innerloop.core.errors import InputError
from innerloop.core.params import Params
from innerloop.core.sampler import derive_seed
from innerloop.rl.adapt import adapt
from innerloop.rl.artifacts import Artifact, Training, fresh_policy, load_artifact
from innerloop.rl.baselines import (
    Balanced,
    Controller,
    GreedyLatency,
    HorizontalPodAutoscaler,
    LeastAllocated,
    RandomBalancing,
    RandomScaling,
    Static,
    best_static,
)
from innerloop.rl.config import Config, TestConfig
from innerloop.rl.families import Split
from innerloop.rl.kept import KeptMeasurements
from innerloop.rl.metrics import parameter_distance
from innerloop.rl.records import HINDSIGHT, RANDOM, SCRATCH, Evaluation, Measured, write_evaluation
from innerloop.rl.rollout import acting_for_each, play, silence
from innerloop.rl.simulator.engine import Simulation
from innerloop.rl.simulator.scenario import Scenario
from innerloop.rl.simulator.snapshot import Array
from innerloop.settings.writing import plain

Progress = Callable[[str, int, int], None]
"""Told what is measured, how many clusters are done, and of how many."""

AT_ONCE = 20
"""Adaptations measured in one call; more takes more memory."""


def _silent(_name: str, _done: int, _total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Trial:
    """One cluster, one seed of adaptation.

    Args:
        scenario: the cluster.
        adaptation_seed: of the episodes that are adapted on.
        episode_seeds: of the episodes that it is judged by.
    """

    scenario: Scenario
    adaptation_seed: int
    episode_seeds: tuple[int, ...]


def evaluate(
    models: Mapping[str, Path],
    test: TestConfig | None,
    split: Split,
    command: str,
    folder: Path,
    progress: Progress = _silent,
) -> Evaluation:
    """Measures models, a policy trained from scratch on each cluster, and the baselines; writes the record.

    Args:
        models: artifacts by the names they shall have.
        test: what to measure; none takes the first model's settings.
        split: of the family's members.
        command: that asked for it, for the record.
        folder: for the record. Methods that an earlier call measured there before it was stopped are not
            measured again.
        progress: told of what is done.

    Raises:
        InputError: no model, one named like a baseline, models of different families, an artifact that cannot
            be read, or numbers of episodes that make no curve.
    """
    if not models:
        raise InputError("name at least one trained policy")
    artifacts = {name: load_artifact(path) for name, path in models.items()}
    first = next(iter(artifacts.values()))
    for name, artifact in artifacts.items():
        if artifact.config.family != first.config.family:
            raise InputError(f"{name} was trained on another task family than {next(iter(artifacts))}")
    if taken := [name for name in models if name in (SCRATCH, HINDSIGHT, *_baselines(first.config))]:
        raise InputError(f"'{taken[0]}' is what one of the baselines is called; name the policy otherwise")
    asked = first.config.test if test is None else test
    if len(asked.adaptation_episodes) < 2 or asked.adaptation_episodes[0] != 0:
        raise InputError(
            "test.adaptation_episodes must begin with 0 and hold at least one number more, "
            f"not {list(asked.adaptation_episodes)}"
        )
    trials = _trials(first.config, asked, split)
    kept = KeptMeasurements(
        folder, {"family": plain(first.config.family), "split": split, "test": plain(asked)}
    )
    measured = []
    scratch = Artifact(fresh_policy(first.config), {}, first.config, Training("ppo", 0, 0, 0.0))
    for name, artifact in {**artifacts, SCRATCH: scratch}.items():
        rate = asked.scratch_lr if artifact is scratch else asked.fine_tuning_lr
        found = kept.find(name, artifact.training)
        if found is None:
            found = _measure(name, artifact, trials, asked, rate, progress)
            kept.add(found)
        measured.append(found)
    measured += [
        _run(name, controller, trials, asked) for name, controller in _baselines(first.config).items()
    ]
    if first.config.family.kind == "scaling":
        measured.append(_run(HINDSIGHT, _best_fixed(trials[:: asked.seeds]), trials, asked))
    evaluation = Evaluation(
        family=first.config.family.name,
        split=split,
        clusters=asked.clusters,
        seeds=asked.seeds,
        episodes=tuple(asked.adaptation_episodes),
        judged_on=asked.episodes,
        methods=tuple(measured),
        command=command,
    )
    write_evaluation(folder, evaluation)
    kept.drop()
    return evaluation


def _trials(config: Config, test: TestConfig, split: Split) -> list[Trial]:
    members = config.family.split(split)
    return [
        Trial(
            members.scenario(cluster),
            derive_seed(test.seed, "adapt", cluster, seed),
            # The same episodes for every seed of adaptation, so that what differs is the adaptation.
            tuple(derive_seed(test.seed, "judge", cluster, episode) for episode in range(test.episodes)),
        )
        for cluster in range(test.clusters)
        for seed in range(test.seeds)
    ]


def _measure(
    name: str, artifact: Artifact, trials: Sequence[Trial], test: TestConfig, rate: float, progress: Progress
) -> Measured:
    episodes = test.adaptation_episodes
    returns, violations = (np.zeros((len(trials), len(episodes))) for _ in range(2))
    moved = np.zeros(len(trials))
    for start in range(0, len(trials), AT_ONCE):
        chunk = trials[start : start + AT_ONCE]
        adapted = adapt(
            artifact,
            [trial.scenario for trial in chunk],
            [trial.adaptation_seed for trial in chunk],
            episodes,
            rate,
        )
        for place, count in enumerate(episodes):
            found = judge(artifact, adapted[count], chunk)
            returns[start : start + len(chunk), place], violations[start : start + len(chunk), place] = found
        before = {n: p.detach() for n, p in artifact.policy.named_parameters()}
        for number in range(len(chunk)):
            after = {n: p[number] for n, p in adapted[episodes[-1]].items()}
            kept = {n: before[n] for n in after}
            moved[start + number] = parameter_distance(kept, after)["whole"]
        progress(name, start + len(chunk), len(trials))
    shape = (test.clusters, test.seeds, len(episodes))
    return Measured(
        name,
        artifact.training,
        returns.reshape(shape).tolist(),
        violations.reshape(shape).tolist(),
        float(moved.mean()),
    )


def judge(artifact: Artifact, params: Params, trials: Sequence[Trial]) -> tuple[Array, Array]:
    """Mean returns and shares of violations of T policies, each on its cluster by its likeliest actions."""
    policy, each = artifact.policy, len(trials[0].episode_seeds)
    with torch.no_grad():
        played = play(
            acting_for_each(policy, params, len(trials)),
            [trial.scenario for trial in trials for _ in range(each)],
            [seed for trial in trials for seed in trial.episode_seeds],
            artifact.config.control,
            policy.layout,
            silence(policy, len(trials) * each, trials[0].scenario.steps),
        )
    return played.returns.reshape(-1, each).mean(1), played.violations.reshape(-1, each).mean(1)


def _baselines(config: Config) -> dict[str, Controller]:
    if config.family.kind == "scaling":
        # Kubernetes looks back 300 s before it scales down.
        window = max(1, round(300 / config.family.interval))
        return {
            "static": Static(),
            RANDOM: RandomScaling(0, config.policy.most),
            "hpa 50 %": HorizontalPodAutoscaler(0.5, window=window),
            "hpa 70 %": HorizontalPodAutoscaler(0.7, window=window),
        }
    return {
        "even": Static(),
        RANDOM: RandomBalancing(0),
        "least allocated": LeastAllocated(),
        "balanced": Balanced(),
        "greedy latency": GreedyLatency(),
    }


def _best_fixed(once: Sequence[Trial]) -> Controller:
    """Each cluster's best fixed number of replicas, found on the very episodes that judge it."""
    best = [best_static(trial.scenario, trial.episode_seeds)[0] for trial in once]
    return Static(np.repeat(best, len(once[0].episode_seeds)).tolist())


def _run(name: str, controller: Controller, trials: Sequence[Trial], test: TestConfig) -> Measured:
    """A baseline does not adapt: the first seed's trials, and one point."""
    once = trials[:: test.seeds]
    simulation = Simulation(
        [trial.scenario for trial in once for _ in trial.episode_seeds],
        [seed for trial in once for seed in trial.episode_seeds],
    )
    total, requests, violations = (np.zeros(simulation.padded.count) for _ in range(3))
    while not simulation.done:
        outcome = simulation.step(*controller.decide(simulation.snapshot()))
        total += outcome.reward
        requests += outcome.requests
        violations += outcome.violations
    shape = (test.clusters, 1, 1, -1)
    share = violations / np.maximum(requests, 1)
    return Measured(
        name, None, total.reshape(shape).mean(-1).tolist(), share.reshape(shape).mean(-1).tolist(), 0.0
    )
