"""Adapting a trained policy to clusters: by the inner loop it was meta-trained with, or by PPO."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.params import Params
from innerloop.rl.artifacts import Artifact
from innerloop.rl.families import Alone
from innerloop.rl.meta import build_collector, build_learner, build_strategy, support_use
from innerloop.rl.policy import freeze
from innerloop.rl.ppo import PPOTrainer
from innerloop.rl.simulator.scenario import Scenario
from innerloop.rl.tasks import ClusterTask
from innerloop.rl.transfer import FreezingPlan


def adapt(
    artifact: Artifact,
    scenarios: Sequence[Scenario],
    seeds: Sequence[int],
    episodes: Sequence[int],
    fine_tuning_lr: float,
) -> Mapping[int, Params]:
    """Adapts to each of T clusters on its own.

    Args:
        artifact: a policy; it is left as it is.
        scenarios: T of them.
        seeds: of the episodes played to adapt, T of them.
        episodes: after how many of them to give the parameters; 0 is before any.
        fine_tuning_lr: of PPO, for policies that were not meta-trained.

    Returns:
        For each number of episodes the parameters, with a leading dimension T.

    Raises:
        InputError: numbers that do not rise from 0 or more, or that fall between two inner steps.
    """
    if list(episodes) != sorted(set(episodes)) or min(episodes) < 0:
        raise InputError(
            f"adaptation_episodes must be different, rising and at least 0, not {list(episodes)}"
        )
    if artifact.training.way == "meta":
        return _by_inner_loop(artifact, scenarios, seeds, episodes)
    return _by_ppo(artifact, scenarios, seeds, episodes, fine_tuning_lr)


def _by_inner_loop(
    artifact: Artifact, scenarios: Sequence[Scenario], seeds: Sequence[int], episodes: Sequence[int]
) -> Mapping[int, Params]:
    config, policy = artifact.config, artifact.policy
    use = support_use(config.meta)
    each, uses = use.episodes, use.uses
    if between := [count for count in episodes if count % each]:
        raise InputError(
            f"this policy adapts on {each} episodes at a time, so it cannot be measured after {between[0]}"
        )
    freeze(policy, ())
    learner = build_learner(config, policy, len(scenarios))
    strategy = build_strategy(config.meta, policy)
    strategy.inner.rates.values.update(artifact.rates)
    collector = build_collector(config, policy)
    tasks = [ClusterTask(s, seed, collector, use, each) for s, seed in zip(scenarios, seeds, strict=True)]
    inner = replace(strategy.inner, steps=max(episodes) // each * uses)
    bundle = learner.bundle(tasks)
    found: dict[int, Params] = {}
    with learner.excursion() as theta:
        if 0 in episodes:
            found[0] = vector.cloned(theta)

        def watch(step: int, _loss: object, params: Params) -> None:
            if step % uses == 0 and step // uses * each in episodes:
                found[step // uses * each] = vector.cloned(params)

        inner.run(learner, bundle, theta, watch=watch)
    return found


def _by_ppo(
    artifact: Artifact,
    scenarios: Sequence[Scenario],
    seeds: Sequence[int],
    episodes: Sequence[int],
    rate: float,
) -> Mapping[int, Params]:
    config, policy = artifact.config, artifact.policy
    start = vector.cloned(policy.state_dict())
    settings = replace(config.ppo, clusters=1, lr=rate, told=False)
    transferred = artifact.training.way == "transfer"
    frozen = FreezingPlan(config.transfer).frozen if transferred else lambda _: ()
    found: dict[int, list[Params]] = {count: [] for count in episodes}
    for scenario, seed in zip(scenarios, seeds, strict=True):
        policy.load_state_dict(start)
        freeze(policy, frozen(0))
        trainer = PPOTrainer(policy, Alone(scenario), config.control, settings, None, seed)
        for count in range(max(episodes) + 1):
            if count:
                freeze(policy, frozen(count - 1))
                trainer.refresh()
                trainer.round()
            if count in found:
                found[count].append(vector.cloned(dict(policy.named_parameters())))
    policy.load_state_dict(start)
    return {
        count: {name: torch.stack([entry[name] for entry in entries]) for name in entries[0]}
        for count, entries in found.items()
    }
