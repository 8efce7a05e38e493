"""A real cluster is seen and moved as the simulated one is: on a real control plane, with a fake kubelet."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest

from innerloop.core.errors import InputError
from innerloop.rl.baselines import HorizontalPodAutoscaler
from innerloop.rl.controls import ScalingControl
from innerloop.rl.envs.single import ClusterEnv
from innerloop.rl.observation import Layout
from innerloop.rl.simulator import Scenario
from innerloop.rl.simulator.snapshot import Outcome, Snapshot
from rl.kubernetes.scenarios import one_node, three_nodes
from rl.kubernetes.world import World

MakeWorld = Callable[[Scenario], World]

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")

# Up; more of one than fits, then of both; down, which makes room for one that waits; down to the least.
COURSE = ([3, 2], [5, 2], [8, 2], [8, 4], [5, 4], [1, 1], [2, 1])


def assert_same(
    real: Snapshot | Outcome, simulated: Snapshot | Outcome, leave_out: tuple[str, ...] = ()
) -> None:
    for field in fields(simulated):
        if field.name not in leave_out:
            seen, expected = getattr(real, field.name), getattr(simulated, field.name)
            np.testing.assert_allclose(seen, expected, rtol=1e-9, err_msg=field.name)


def test_one_node_looks_as_the_simulated_one(make_world: MakeWorld) -> None:
    world = make_world(one_node())
    layout = Layout(2, 1)
    with world.cluster() as cluster:
        simulation = world.metrics.simulation
        assert_same(cluster.snapshot(), simulation.snapshot())
        pending = []
        for desired in COURSE:
            before = simulation.snapshot()
            outcome = cluster.step(np.array([desired]))
            assert world.metrics.last is not None
            assert_same(outcome, world.metrics.last)
            assert_same(cluster.snapshot(), simulation.snapshot())
            pending.append(cluster.snapshot().pending[0].tolist())
            np.testing.assert_array_equal(
                layout.observe(cluster.snapshot(), before), layout.observe(simulation.snapshot(), before)
            )
        assert pending == [[0, 0], [0, 0], [2, 0], [2, 2], [0, 1], [0, 0], [0, 0]]
        assert cluster.failed_steps == []
    assert [world.replicas(name) for name in world.names] == [2, 1]


def test_many_nodes_look_as_the_simulated_ones_wherever_the_scheduler_puts_pods(
    make_world: MakeWorld,
) -> None:
    # The scheduler weighs more than the simulator's does, so that only sums over the nodes must agree.
    world = make_world(three_nodes())
    by_node = ("serving", "node_cpu_reserved", "node_memory_reserved")
    with world.cluster() as cluster:
        simulation = world.metrics.simulation
        for desired in ([3, 2], [5, 3], [2, 1]):
            outcome = cluster.step(np.array([desired]))
            assert world.metrics.last is not None
            assert_same(outcome, world.metrics.last)
            real, simulated = cluster.snapshot(), simulation.snapshot()
            assert_same(real, simulated, leave_out=by_node)
            np.testing.assert_array_equal(real.serving.sum(2), simulated.serving.sum(2))
            for name in by_node[1:]:
                np.testing.assert_allclose(getattr(real, name).sum(1), getattr(simulated, name).sum(1))


def test_the_autoscaler_drives_deployments_end_to_end(make_world: MakeWorld) -> None:
    world = make_world(three_nodes())
    controller, asked = HorizontalPodAutoscaler(window=2), []
    with world.cluster() as cluster:
        while not cluster.done:
            cluster.step(*controller.decide(cluster.snapshot()))
            asked.append([world.replicas(name) for name in world.names])
        assert cluster.failed_steps == []
        seen = cluster.snapshot()
        assert (seen.ready + seen.starting + seen.pending)[0].tolist() == asked[-1]
    # The load of the first application trebles: it gets more replicas, and in the end the first ones back.
    assert max(web for web, _ in asked) > 2
    assert [world.replicas(name) for name in world.names] == [2, 1]


def test_a_real_cluster_is_a_gymnasium_environment(make_world: MakeWorld) -> None:
    world = make_world(one_node())
    environment = ClusterEnv(lambda seed: world.cluster(steps=2), ScalingControl(most=2), Layout(2, 1))
    observation, _ = environment.reset(seed=0)
    assert observation in environment.observation_space
    _, reward, _, over, _ = environment.step(np.array([3, 1]))  # one more, one fewer than what is allowed
    assert reward < 0
    assert not over
    assert [world.replicas(name) for name in world.names] == [3, 1]
    assert environment.step(np.array([2, 2]))[3]


def test_only_the_step_that_is_asked_for_is_taken(make_world: MakeWorld) -> None:
    world = make_world(one_node())
    with world.cluster(steps=1) as cluster:
        with pytest.raises(InputError, match="no shares of traffic"):
            cluster.step(np.array([[2, 1]]), np.ones((1, 1, 1)))
        with pytest.raises(InputError, match="1 x 2 finite numbers"):
            cluster.step(np.array([[2, np.nan]]))
        cluster.step(np.array([[99, 0]]))  # clipped
        assert [world.replicas(name) for name in world.names] == [8, 1]
        with pytest.raises(InputError, match="the episode is over"):
            cluster.step(np.array([[2, 1]]))


def test_a_dry_run_changes_nothing(make_world: MakeWorld) -> None:
    world = make_world(one_node())
    before = [world.apps.read_namespaced_deployment(n, world.namespace).metadata for n in world.names]
    with world.cluster(dry_run=True) as cluster:
        cluster.step(np.array([[5, 3]]))
        assert cluster.failed_steps == []
        assert cluster.snapshot().desired.tolist() == [[2, 1]]
    after = [world.apps.read_namespaced_deployment(n, world.namespace).metadata for n in world.names]
    assert [m.generation for m in after] == [m.generation for m in before]
    assert [m.resource_version for m in after] == [m.resource_version for m in before]


def test_what_was_scaled_stays_where_nothing_is_to_be_put_back(make_world: MakeWorld) -> None:
    world = make_world(one_node())
    with world.cluster(restore=False) as cluster:
        cluster.step(np.array([[4, 1]]))
    assert world.replicas("app-0") == 4
    cluster.restore()
    assert world.replicas("app-0") == 2
