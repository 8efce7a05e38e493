"""Many clusters at once as one Gymnasium vector environment."""

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from innerloop.core.sampler import derive_seed
from innerloop.rl.controls import Control
from innerloop.rl.observation import HIGHEST, Layout, Observations
from innerloop.rl.simulator.engine import Simulation
from innerloop.rl.simulator.scenario import Scenario
from innerloop.rl.simulator.snapshot import Outcome, Snapshot


class ScenarioSource(Protocol):
    """Gives the scenario of an episode."""

    def scenario(self, number: int) -> Scenario:
        """The scenario of this number, always the same."""


class ClusterVectorEnv(gym.vector.VectorEnv[Observations, NDArray[Any], NDArray[Any]]):
    """E clusters, moved together. All episodes are equally long and begin anew together, on the next step.

    Episode k of cluster e takes the source's scenario ``k E + e``, and its seed follows from the
    environment's.

    Args:
        source: of scenarios, all with the same steps, interval and tick.
        control: what actions are.
        layout: room for the largest scenario.
        num_envs: E.
    """

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012 - Gymnasium's

    def __init__(self, source: ScenarioSource, control: Control, layout: Layout, num_envs: int) -> None:
        self.source, self.control, self.layout, self.num_envs = source, control, layout, num_envs
        self.single_observation_space = observation_space(layout)
        self.single_action_space = control.space(layout)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seed, self._episode = 0, -1
        self._simulation: Simulation | None = None
        self._before: Snapshot | None = None

    @property
    def simulation(self) -> Simulation:
        """The clusters of the running episodes."""
        if self._simulation is None:
            raise gym.error.ResetNeeded("call reset() before anything else")
        return self._simulation

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 - Gymnasium's signature
    ) -> tuple[Observations, dict[str, Any]]:
        """Begins the next episodes; with a seed, those of that seed from the first on."""
        if isinstance(seed, list):
            seed = seed[0]
        if seed is not None:
            self._seed, self._episode = seed, -1
        self._episode += 1
        numbers = range(self._episode * self.num_envs, (self._episode + 1) * self.num_envs)
        self._simulation = Simulation(
            [self.source.scenario(number) for number in numbers],
            [derive_seed(self._seed, number) for number in numbers],
        )
        self._before = None
        return self._observe(), {}

    def seek(self, seed: int, episode: int) -> None:
        """Makes the next reset begin the episodes of this seed and number, as if played up to there."""
        self._seed, self._episode = seed, episode - 1

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Moves every cluster by one control step; episodes end by the clock alone, so they are truncated."""
        never = np.zeros(self.num_envs, dtype=bool)
        if self.simulation.done:
            observations, info = self.reset()
            return observations, np.zeros(self.num_envs), never, never, info
        before = self.simulation.snapshot()
        outcome = self.simulation.step(*self.control.apply(np.asarray(actions), before, self.layout))
        self._before = before
        over = np.full(self.num_envs, self.simulation.done)
        return self._observe(), outcome.reward, never, over, info_of(outcome)

    def _observe(self) -> Observations:
        return self.layout.observe(self.simulation.snapshot(), self._before)


def observation_space(layout: Layout, facts: int = 0) -> spaces.Box:
    """The observations of one cluster, with so many facts behind them."""
    return spaces.Box(-HIGHEST, HIGHEST, (layout.size + facts,), np.float32)


def info_of(outcome: Outcome) -> dict[str, Any]:
    """The costs of a step beside its reward, as Gymnasium's info: an array each."""
    return {
        "latency": outcome.latency,
        "replicas": outcome.replicas,
        "requests": outcome.requests,
        "violations": outcome.violations,
        "refused": outcome.refused,
    }
