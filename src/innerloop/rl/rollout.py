"""Episodes played by policies, as tensors to learn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap

from innerloop.core.params import Params
from innerloop.core.sampler import derive_seed
from innerloop.rl.controls import Control
from innerloop.rl.observation import Layout
from innerloop.rl.policy import ClusterPolicy
from innerloop.rl.simulator.engine import Simulation
from innerloop.rl.simulator.scenario import Scenario

Act = Callable[[Tensor, Tensor], Tensor]
"""Actions from observations ``B x size`` and noise ``B x ...``."""


class Trajectories(NamedTuple):
    """Episodes of one length as tensors that tasks can be stacked along.

    Attributes:
        observations: before each action, ``B x T x size``.
        actions: ``B x T x ...``.
        log_probabilities: of the actions under the policy that chose them, ``B x T``.
        rewards: after each action, ``B x T``.
        advantages: what the objective weighs each action with, ``B x T``.
        targets: what the critic shall say, ``B x T``.
    """

    observations: Tensor
    actions: Tensor
    log_probabilities: Tensor
    rewards: Tensor
    advantages: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Played:
    """Episodes as they went.

    Args:
        observations: ``B x T x size``.
        actions: ``B x T x ...``.
        rewards: ``B x T``.
        violations: share of an episode's requests that violated the objective, ``B``.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    violations: NDArray[np.float64]

    @property
    def returns(self) -> NDArray[np.float64]:
        """The sum of an episode's rewards, ``B``."""
        return self.rewards.double().sum(1).numpy()


def play(
    act: Act,
    scenarios: Sequence[Scenario],
    seeds: Sequence[int],
    control: Control,
    layout: Layout,
    noise: Tensor,
) -> Played:
    """Plays an episode on each of B clusters.

    Args:
        act: the policy.
        scenarios: B of them.
        seeds: of the episodes, B of them.
        control: what the actions are.
        layout: of the observations.
        noise: what actions are drawn with, ``B x T x ...``.
    """
    simulation = Simulation(scenarios, seeds)
    before = None
    observations, actions, rewards = [], [], []
    requests, violations = np.zeros(len(seeds)), np.zeros(len(seeds))
    with torch.no_grad():
        for step in range(simulation.steps):
            snapshot = simulation.snapshot()
            seen = torch.from_numpy(layout.observe(snapshot, before))
            chosen = act(seen, noise[:, step])
            outcome = simulation.step(*control.apply(chosen.numpy(), snapshot, layout))
            before = snapshot
            observations.append(seen)
            actions.append(chosen)
            rewards.append(torch.from_numpy(outcome.reward).float())
            requests += outcome.requests
            violations += outcome.violations
    return Played(
        torch.stack(observations, 1),
        torch.stack(actions, 1),
        torch.stack(rewards, 1),
        violations / np.maximum(requests, 1),
    )


def acting_for_each(policy: ClusterPolicy, params: Params, tasks: int) -> Act:
    """A policy with parameters for each of T tasks, ``T x ...``; a batch holds each task's rows in turn."""

    def act(observations: Tensor, noise: Tensor) -> Tensor:
        together = vmap(lambda p, o, n: functional_call(policy, p, (o, n)))
        shaped = [t.reshape(tasks, -1, *t.shape[1:]) for t in (observations, noise)]
        actions: Tensor = together(params, *shaped).flatten(0, 1)
        return actions

    return act


def draw_noise(policy: ClusterPolicy, episodes: int, steps: int, seed: int) -> Tensor:
    """The noise of so many episodes, ``B x T x noise_shape``, a pure function of the seed."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    return policy.noise((episodes, steps), generator)


def silence(policy: ClusterPolicy, episodes: int, steps: int) -> Tensor:
    """No noise: the likeliest action is taken."""
    return torch.zeros(episodes, steps, *policy.noise_shape())
