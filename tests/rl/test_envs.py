"""The environments keep Gymnasium's promises, and show the simulation as it is."""

import warnings
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import innerloop.rl  # noqa: F401 - registers the environments
from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.rl.controls import BalancingControl, Control, ScalingControl
from innerloop.rl.envs import BalancingEnv, ClusterVectorEnv, ScalingEnv
from innerloop.rl.families import Family, layout_of
from innerloop.rl.simulator import Simulation
from rl.small import BALANCING, BOTH, SCALING, scenarios

IDS = ("innerloop/KubernetesScaling-v0", "innerloop/LoadBalancing-v0")
CLUSTERS = 3


def control_of(family: Family) -> Control:
    return ScalingControl() if family.kind == "scaling" else BalancingControl()


def vector_of(family: Family, clusters: int = CLUSTERS) -> ClusterVectorEnv:
    return ClusterVectorEnv(family.split("train"), control_of(family), family.layout, clusters)


def played(env: ClusterVectorEnv, steps: int, seed: int = 3) -> list[NDArray[np.float64]]:
    """What an environment gives under random actions: observations, rewards, ends of episodes."""
    env.action_space.seed(seed)
    observations, _ = env.reset(seed=seed)
    found = [observations]
    for _ in range(steps):
        observations, rewards, terminated, truncated, _ = env.step(env.action_space.sample())
        found += [observations, rewards, terminated, truncated]
    return found


@pytest.mark.parametrize("name", IDS)
def test_the_registered_environments_pass_both_checkers(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Both checkers recommend actions and observations scaled to ±1, which changes of replicas are not.
        warnings.filterwarnings("ignore", message=".*(recommend|symmetric|normalized).*")
        check_env(gym.make(name, render_mode="rgb_array").unwrapped)
        check_env_of_sb3(gym.make(name, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("family", BOTH, ids=lambda family: family.name)
def test_a_seed_decides_the_episodes_of_all_clusters(family: Family) -> None:
    first, again = (played(vector_of(family), 2 * family.steps + 1) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    other_seed = played(vector_of(family), family.steps, seed=4)
    assert any((one != other).any() for one, other in zip(first[2::4], other_seed[2::4], strict=False))


@pytest.mark.parametrize("family", BOTH, ids=lambda family: family.name)
def test_observations_lie_in_their_space(family: Family) -> None:
    env = vector_of(family)
    found = played(env, 2 * family.steps)
    for observations in (found[0], *found[1::4]):
        assert observations in env.observation_space


def test_the_step_after_the_last_begins_the_next_scenarios() -> None:
    env = vector_of(SCALING)
    assert env.metadata["autoreset_mode"] is gym.vector.AutoresetMode.NEXT_STEP
    _, rewards, terminated, truncated = (np.array(part) for part in _by_kind(played(env, SCALING.steps + 1)))
    assert not terminated.any()
    assert truncated[:-2].sum() == 0
    assert truncated[-2].all()
    assert not truncated[-1].any()
    assert (rewards[:-1] != 0).all()
    assert (rewards[-1] == 0).all()
    begun = [s.name for s in env.simulation.scenarios]
    assert begun == [f"kubernetes_scaling/train/{number}" for number in range(CLUSTERS, 2 * CLUSTERS)]
    assert env.simulation.step_number == 0


def _by_kind(found: list[NDArray[np.float64]]) -> list[list[NDArray[np.float64]]]:
    return [found[1:][kind::4] for kind in range(4)]


def test_observations_tell_of_the_step_before() -> None:
    env = vector_of(SCALING)
    env.action_space.seed(0)
    seen, _ = env.reset(seed=0)
    np.testing.assert_array_equal(seen, SCALING.layout.observe(env.simulation.snapshot()))
    for _ in range(SCALING.steps):
        before = env.simulation.snapshot()
        seen, *_ = env.step(env.action_space.sample())
        now = env.simulation.snapshot()
        np.testing.assert_array_equal(seen, SCALING.layout.observe(now, before))
        assert not np.array_equal(seen, SCALING.layout.observe(now))


def test_without_a_seed_episodes_go_on_and_with_one_they_begin_anew() -> None:
    env = vector_of(SCALING)
    names = []
    for seed in (5, None, None, 5):
        env.reset(seed=seed)
        names.append(env.simulation.scenarios[0].name.rpartition("/")[2])
    assert names == ["0", str(CLUSTERS), str(2 * CLUSTERS), "0"]


@pytest.mark.parametrize("family", BOTH, ids=lambda family: family.name)
def test_a_single_environment_is_the_simulation_moved_by_hand(family: Family) -> None:
    scenario = scenarios(family, 3)[2]
    control, layout = control_of(family), layout_of(scenario)
    env = ScalingEnv(scenario) if family.kind == "scaling" else BalancingEnv(scenario)
    env.action_space.seed(1)
    seen, _ = env.reset(seed=7)
    episode_seed = int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(7))).integers(2**31))
    simulation = Simulation([scenario], [derive_seed(episode_seed, "single")])
    before = None
    over = False
    while not over:
        snapshot = simulation.snapshot()
        np.testing.assert_array_equal(seen, layout.observe(snapshot, before)[0])
        action = env.action_space.sample()
        seen, reward, terminated, over, info = env.step(action)
        outcome = simulation.step(*control.apply(action[None], snapshot, layout))
        before = snapshot
        assert reward == outcome.reward[0]
        assert info == {
            name: getattr(outcome, name)[0]
            for name in ("latency", "replicas", "requests", "violations", "refused")
        }
        assert over == simulation.done
        assert not terminated
    assert simulation.step_number == scenario.steps


def test_episodes_of_a_single_environment_take_the_next_member() -> None:
    env = ScalingEnv(family=SCALING)
    names = []
    for seed in (1, None, 1):
        env.reset(seed=seed)
        assert isinstance(env.cluster, Simulation)
        names.append(env.cluster.scenarios[0].name)
    assert [name.rpartition("/")[2] for name in names] == ["0", "1", "0"]


def test_a_picture_grows_with_the_episode() -> None:
    env = BalancingEnv(family=BALANCING, render_mode="rgb_array")
    env.reset(seed=0)
    pictures = [env.render()]
    for _ in range(3):
        env.step(env.action_space.sample())
        pictures.append(env.render())
    env.reset(seed=0)
    for picture in pictures:
        assert picture is not None
        assert picture.dtype == np.uint8
        assert picture.shape == (576, 576, 3)
    for earlier, later in pairwise(pictures):
        assert not np.array_equal(earlier, later)
    assert np.array_equal(pictures[0], env.render())
    assert BalancingEnv(family=BALANCING).render() is None


@pytest.mark.parametrize("env", [ScalingEnv(family=SCALING), vector_of(SCALING)], ids=["single", "vector"])
def test_nothing_happens_before_reset(env: ScalingEnv | ClusterVectorEnv) -> None:
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())


def test_an_unknown_render_mode_is_refused() -> None:
    with pytest.raises(InputError, match=r"no render mode 'human'; there is rgb_array"):
        ScalingEnv(render_mode="human")
