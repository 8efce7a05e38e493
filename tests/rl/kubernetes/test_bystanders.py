"""Nothing but the scale of the listed deployments is touched: in what is asked, and in what is left."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from kubernetes import client
from kubernetes.client.rest import RESTClientObject

from innerloop.core.errors import InputError
from innerloop.rl.simulator import Scenario
from rl.kubernetes.scenarios import API, WEB, three_nodes
from rl.kubernetes.world import World

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")

KINDS = {
    "core": ("config_map", "secret", "service", "service_account", "pod", "persistent_volume_claim"),
    "apps": ("deployment", "replica_set", "stateful_set", "daemon_set"),
    "batch": ("job",),
    "rbac": ("role", "role_binding"),
    "autoscaling": ("horizontal_pod_autoscaler",),
    "networking": ("network_policy", "ingress"),
}

Key = tuple[str, str, str]


@pytest.fixture
def other_namespace(admin: client.ApiClient) -> Iterator[str]:
    core = client.CoreV1Api(admin)
    made = core.create_namespace({"metadata": {"generateName": "innerloop-other-"}}).metadata.name
    yield made
    client.AppsV1Api(admin).delete_collection_namespaced_deployment(made)
    for pod in core.list_namespaced_pod(made).items:
        core.delete_namespaced_pod(pod.metadata.name, made, grace_period_seconds=0)
    core.delete_namespace(made)


def inventory(admin: client.ApiClient, counts: Callable[[str], bool], world: World) -> dict[Key, str]:
    """The resourceVersion of all that is in the namespaces that count and of no listed deployment."""
    apis = {
        "core": client.CoreV1Api(admin),
        "apps": client.AppsV1Api(admin),
        "batch": client.BatchV1Api(admin),
        "rbac": client.RbacAuthorizationV1Api(admin),
        "autoscaling": client.AutoscalingV1Api(admin),
        "networking": client.NetworkingV1Api(admin),
    }
    versions: dict[Key, str] = {}
    for group, kinds in KINDS.items():
        for kind in kinds:
            for item in getattr(apis[group], f"list_{kind}_for_all_namespaces")().items:
                meta = item.metadata
                labels = meta.labels or {}
                listed = meta.namespace == world.namespace and (
                    meta.name in world.names or labels.get("app") in world.names
                )
                if counts(meta.namespace) and not listed:
                    versions[kind, meta.namespace, meta.name] = meta.resource_version
    return versions


def quiet_inventory(admin: client.ApiClient, counts: Callable[[str], bool], world: World) -> dict[Key, str]:
    """Waits until the controllers have done what they do to new namespaces."""
    seen = inventory(admin, counts, world)
    for _ in range(40):
        time.sleep(0.5)
        before, seen = seen, inventory(admin, counts, world)
        if before == seen:
            return seen
    raise AssertionError("the control plane does not come to rest")


def test_everything_else_stays_as_it_is(
    make_world: Callable[[Scenario], World],
    admin: client.ApiClient,
    other_namespace: str,
    own_control_plane: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_world(three_nodes())
    # Bystanders: beside the listed ones, and under the same name elsewhere.
    world.deploy("bystander", API)
    world.deploy("app-0", WEB, namespace=other_namespace)
    for namespace in (world.namespace, other_namespace):
        name, spec = {"name": "app-0"}, {"selector": {"app": "app-0"}, "ports": [{"port": 80}]}
        world.core.create_namespaced_config_map(namespace, {"metadata": name, "data": {"a": "b"}})
        world.core.create_namespaced_service(namespace, {"metadata": name, "spec": spec})
    world.kubelet.start_all()

    active = {n.metadata.name for n in world.core.list_namespace().items if n.status.phase == "Active"}
    mine = {world.namespace, other_namespace}
    counted = active if own_control_plane else mine

    def counts(namespace: str) -> bool:
        return namespace in counted

    before = quiet_inventory(admin, counts, world)
    assert ("deployment", other_namespace, "app-0") in before
    assert ("deployment", world.namespace, "bystander") in before

    asked: list[tuple[str, str]] = []
    request = RESTClientObject.request

    def recording(self: RESTClientObject, method: str, url: str, **rest: object) -> object:
        if self is not admin.rest_client:
            asked.append((method, url.split("?")[0]))
        return request(self, method, url, **rest)

    monkeypatch.setattr(RESTClientObject, "request", recording)
    with world.cluster() as cluster:
        for desired in ([4, 2], [6, 1], [1, 3]):
            cluster.step(np.array([desired]))
        assert cluster.failed_steps == []
        with pytest.raises(InputError, match=r"bystander in namespace .* is not listed"):
            cluster.api.scale("bystander", 3)
        server = cluster.api.server
    monkeypatch.undo()

    base = f"{server}/apis/apps/v1/namespaces/{world.namespace}/deployments"
    written = {(method, url) for method, url in asked if method != "GET"}
    assert written == {("PUT", f"{base}/{name}/scale") for name in world.names}
    assert {url for method, url in asked if method == "GET"} == {
        f"{server}/api/v1/nodes",
        f"{server}/api/v1/namespaces/{world.namespace}/pods",
        *(f"{base}/{name}{end}" for name in world.names for end in ("", "/scale")),
    }
    after = quiet_inventory(admin, counts, world)
    assert after == before
