"""What may go wrong in the middle of an episode, and that the cluster is left as it was found."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from kubernetes import client

from innerloop.core.errors import InputError
from innerloop.rl.kubernetes import ClusterError
from innerloop.rl.simulator import Scenario
from rl.kubernetes.gateway import Gateway
from rl.kubernetes.scenarios import one_node
from rl.kubernetes.world import World

MakeWorld = Callable[[Scenario], World]

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world(one_node())


class Meddler:
    """Changes a deployment between the moment its scale is read and the moment it is written."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.met, self._left, self._world = 0, times, world
        self._read = client.AppsV1Api.read_namespaced_deployment_scale
        meddler = self

        def read(api: client.AppsV1Api, name: str, namespace: str, **rest: object) -> client.V1Scale:
            scale = meddler._read(api, name, namespace, **rest)
            meddler.met += 1
            if meddler._left > 0:
                meddler._left -= 1
                note = {"metadata": {"annotations": {"test": str(meddler.met)}}}
                world.apps.patch_namespaced_deployment(name, namespace, note)
            return scale

        monkeypatch.setattr(client.AppsV1Api, "read_namespaced_deployment_scale", read)


def test_a_conflict_is_retried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.cluster(retries=2) as cluster:
        meddler = Meddler(world, monkeypatch, times=2)
        cluster.step(np.array([[4, 1]]))
        assert meddler.met == 3 + 1  # and once for the other deployment, which stays as it is
        assert cluster.failed_steps == []
        assert world.replicas("app-0") == 4


def test_a_conflict_that_does_not_end_is_a_failed_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.cluster(retries=1) as cluster:
        Meddler(world, monkeypatch, times=2)
        outcome = cluster.step(np.array([[4, 2]]))
        (failed,) = cluster.failed_steps
        assert failed.step == 1
        assert "something else keeps changing deployment app-0" in failed.message
        assert [world.replicas(name) for name in world.names] == [2, 2]
        assert np.isfinite(outcome.reward).all()


def test_a_deployment_that_goes_makes_failed_steps_and_the_others_go_on(world: World) -> None:
    with world.cluster() as cluster:
        cluster.step(np.array([[3, 2]]))
        world.apps.delete_namespaced_deployment("app-0", world.namespace)
        outcome = cluster.step(np.array([[4, 3]]))
        seen = cluster.snapshot()
        assert seen.application.tolist() == [[0, 1]]
        assert seen.desired.tolist() == [[0, 3]]
        assert outcome.replicas.tolist() == [3]
        cluster.step(np.array([[4, 2]]))
        assert [failed.step for failed in cluster.failed_steps] == [2, 3]
        assert f"no deployment app-0 in namespace {world.namespace}" in cluster.failed_steps[0].message
    assert [world.replicas(name) for name in world.names] == [0, 1]


def test_an_episode_without_any_deployment_left_ends(world: World) -> None:
    with world.cluster() as cluster:
        for name in world.names:
            world.apps.delete_namespaced_deployment(name, world.namespace)
        with pytest.raises(ClusterError, match="none of the listed deployments is left"):
            cluster.step(np.array([[4, 3]]))


def test_a_deployment_that_is_not_there_is_refused_at_once(world: World) -> None:
    with pytest.raises(InputError, match="no deployment missing in namespace"):
        world.cluster(deployments=(*world.names, "missing"))


def test_a_node_that_leaves_keeps_its_place(make_world: MakeWorld) -> None:
    scenario = one_node()
    nodes = (scenario.nodes[0],) * 2
    world = make_world(replace(scenario, nodes=nodes, round_trip=((0.01, 0.02),)))
    with world.cluster() as cluster:
        assert cluster.snapshot().node.tolist() == [[1, 1]]
        world.core.delete_node(f"{world.namespace}-0")
        world.core.patch_node(f"{world.namespace}-1", {"spec": {"unschedulable": True}})
        world.kubelet.nodes.pop(f"{world.namespace}-0")
        world.kubelet.advance = lambda seconds: None  # type: ignore[method-assign] - the pods have no place to go
        cluster.step(np.array([[2, 1]]))
        seen = cluster.snapshot()
        assert seen.node.tolist() == [[0, 1]]
        assert seen.node_cpu_reserved[0, 0] == 0
        assert seen.node_cpu[0, 0] == 0


def test_a_server_that_cannot_be_reached_ends_the_episode(world: World, gateway: Gateway) -> None:
    with world.cluster(kubeconfig=gateway.kubeconfig, retries=1) as cluster:
        cluster.step(np.array([[4, 2]]))
        gateway.shut()
        with pytest.raises(ClusterError, match=rf"cannot reach https://127.0.0.1:{gateway.port} .*refused"):
            cluster.step(np.array([[5, 3]]))
        assert [failed.step for failed in cluster.failed_steps] == [2, 2]
        # It cannot be left as it was found, and says what to do.
        with pytest.raises(ClusterError, match="scale app-0 to 2, app-1 to 1 by hand"):
            cluster.restore()
        assert [world.replicas(name) for name in world.names] == [4, 2]
        gateway.open()
    assert [world.replicas(name) for name in world.names] == [2, 1]


def test_a_server_that_is_away_for_a_moment_is_waited_for(world: World, gateway: Gateway) -> None:
    with world.cluster(kubeconfig=gateway.kubeconfig, retries=4) as cluster:
        gateway.shut()
        waited = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            gateway.open()

        cluster.api._sleep = sleep
        cluster.step(np.array([[4, 2]]))
        assert len(waited) == 1
        assert cluster.failed_steps == []


def test_a_slow_server_is_not_waited_for_longer_than_the_timeout(world: World, gateway: Gateway) -> None:
    with world.cluster(kubeconfig=gateway.kubeconfig, retries=1, timeout=0.3) as cluster:
        gateway.stall()
        cluster.api._sleep = lambda seconds: None
        started = time.monotonic()
        with pytest.raises(ClusterError, match=r"no answer from .* in time .*raise timeout"):
            cluster.step(np.array([[5, 3]]))
        # Two deployments and one look, each asked for twice.
        assert time.monotonic() - started < 6 * 0.3 + 2
        gateway.open()


def test_an_error_inside_the_block_leaves_the_cluster_as_it_was_found(world: World) -> None:
    with pytest.raises(KeyboardInterrupt), world.cluster() as cluster:  # noqa: PT012 - the block is what is tested
        cluster.step(np.array([[4, 2]]))
        raise KeyboardInterrupt
    assert [world.replicas(name) for name in world.names] == [2, 1]


def test_metrics_that_no_policy_could_use_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = world.metrics.read
    monkeypatch.setattr(
        world.metrics,
        "read",
        lambda view, settings: replace(figures(view, settings), latency=np.array([0.1, np.nan])),
    )
    with pytest.raises(ClusterError, match=r"the metrics' latency is .* 2 finite numbers of 0 or more"):
        world.cluster()


def test_wrong_credentials_are_told(world: World, tmp_path: Path) -> None:
    loaded = yaml.safe_load(world.kubeconfig.read_text())
    for user in loaded["users"]:
        user["user"] = {"token": "wrong"}
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(loaded))
    with pytest.raises(ClusterError, match=f"does not know who asks .*renew the credentials .*{path}"):
        world.cluster(kubeconfig=path)


def test_a_certificate_that_is_not_trusted_is_told(world: World, gateway: Gateway) -> None:
    loaded = yaml.safe_load(gateway.kubeconfig.read_text())
    for cluster in loaded["clusters"]:
        cluster["cluster"].pop("insecure-skip-tls-verify", None)
    gateway.kubeconfig.write_text(yaml.safe_dump(loaded))
    with pytest.raises(ClusterError, match=r"no secure connection to https://127.*check the certificates"):
        world.cluster(kubeconfig=gateway.kubeconfig)


def test_regions_must_name_the_nodes(world: World) -> None:
    with pytest.raises(InputError, match="region west and the cluster differ in node"):
        world.cluster(regions={"west": {"elsewhere": 0.1}})
    with pytest.raises(InputError, match="has no nodes with labels innerloop-test=nowhere"):
        world.cluster(node_selector="innerloop-test=nowhere")
