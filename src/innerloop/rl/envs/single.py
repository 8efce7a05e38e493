"""One cluster as a Gymnasium environment, with a picture of its episode."""

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.rl.controls import BalancingControl, Control, ScalingControl
from innerloop.rl.envs.picture import Course, draw
from innerloop.rl.envs.vector import ScenarioSource, info_of, observation_space
from innerloop.rl.families import Alone, Family, KubernetesScaling, LoadBalancing, layout_of
from innerloop.rl.observation import Layout, Observations
from innerloop.rl.simulator.engine import Simulation
from innerloop.rl.simulator.scenario import Scenario
from innerloop.rl.simulator.snapshot import Array, Outcome, Snapshot


class Cluster(Protocol):
    """A cluster, simulated or real."""

    @property
    def done(self) -> bool:
        """Whether the episode is over."""

    def snapshot(self) -> Snapshot:
        """What can be seen now; E = 1."""

    def step(self, desired: Array, share: Array | None = None) -> Outcome:
        """Moves it by one control step."""


class ClusterEnv(gym.Env[Observations, NDArray[Any]]):
    """One cluster.

    Args:
        open_cluster: begins an episode: the cluster, given the episode's seed.
        control: what actions are.
        layout: room for the cluster.
        render_mode: ``rgb_array`` for a picture of the episode so far: load, replicas, latency.

    Raises:
        InputError: an unknown render mode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - Gymnasium's

    def __init__(
        self,
        open_cluster: Callable[[int], Cluster],
        control: Control,
        layout: Layout,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise InputError(f"no render mode '{render_mode}'; there is rgb_array")
        self._open, self.control, self.layout, self.render_mode = open_cluster, control, layout, render_mode
        self.observation_space = observation_space(layout)  # type: ignore[assignment]  # of wider type
        self.action_space = control.space(layout)
        self._cluster: Cluster | None = None
        self._before: Snapshot | None = None
        self._course = Course()

    @property
    def cluster(self) -> Cluster:
        """The cluster of the running episode."""
        if self._cluster is None:
            raise gym.error.ResetNeeded("call reset() before anything else")
        return self._cluster

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 - Gymnasium's signature
    ) -> tuple[Observations, dict[str, Any]]:
        """Begins an episode; its seed is drawn from the environment's."""
        super().reset(seed=seed)
        self._cluster = self._open(int(self.np_random.integers(2**31)))
        self._before, self._course = None, Course()
        return self._observe(), {}

    def step(self, action: NDArray[Any]) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        """Moves the cluster by one control step; an episode ends by the clock alone, so it is truncated."""
        before = self.cluster.snapshot()
        outcome = self.cluster.step(*self.control.apply(np.asarray(action)[None], before, self.layout))
        self._before = before
        self._course.add(self.cluster.snapshot())
        info = {name: float(values[0]) for name, values in info_of(outcome).items()}
        return self._observe(), float(outcome.reward[0]), False, self.cluster.done, info

    def render(self) -> NDArray[np.uint8] | None:
        """The picture, ``height x width x 3``; none without a render mode."""
        return draw(self._course) if self.render_mode == "rgb_array" else None

    def _observe(self) -> Observations:
        observations: Observations = self.layout.observe(self.cluster.snapshot(), self._before)[0]
        return observations


class _SimulatedEnv(ClusterEnv):
    """One simulated cluster, each episode on the next scenario of a family."""

    def __init__(
        self, source: ScenarioSource, control: Control, layout: Layout, render_mode: str | None
    ) -> None:
        self._source, self._episode = source, -1
        super().__init__(self._begin, control, layout, render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begins the next episode; with a seed, the first one of that seed."""
        if seed is not None:
            self._episode = -1
        return super().reset(seed=seed, options=options)

    def _begin(self, seed: int) -> Cluster:
        self._episode += 1
        return Simulation([self._source.scenario(self._episode)], [derive_seed(seed, "single")])


def _source_and_layout(scenario: Scenario | None, family: Family) -> tuple[ScenarioSource, Layout]:
    if scenario is not None:
        return Alone(scenario), layout_of(scenario)
    return family.split("train"), family.layout


class ScalingEnv(_SimulatedEnv):
    """``innerloop/KubernetesScaling-v0``: replicas of every application.

    Args:
        scenario: played in every episode; none plays the training members of the family.
        family: none takes ``kubernetes_scaling`` as it is.
        most: replicas added or removed in a step at most.
        render_mode: see :class:`ClusterEnv`.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        family: KubernetesScaling | None = None,
        most: int = 3,
        render_mode: str | None = None,
    ) -> None:
        source, layout = _source_and_layout(scenario, family or KubernetesScaling())
        super().__init__(source, ScalingControl(most), layout, render_mode)


class BalancingEnv(_SimulatedEnv):
    """``innerloop/LoadBalancing-v0``: where each region's requests go.

    Args:
        scenario: played in every episode; none plays the training members of the family.
        family: none takes ``load_balancing`` as it is.
        sharpness: see :class:`BalancingControl`.
        render_mode: see :class:`ClusterEnv`.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        family: LoadBalancing | None = None,
        sharpness: float = 4.0,
        render_mode: str | None = None,
    ) -> None:
        source, layout = _source_and_layout(scenario, family or LoadBalancing())
        super().__init__(source, BalancingControl(sharpness), layout, render_mode)
