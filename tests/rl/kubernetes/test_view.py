"""What the API server's answers mean."""

import pytest
from kubernetes import client

from innerloop.rl.kubernetes.view import ClusterView, DeploymentView, NodeView, mebibytes, millicores, view_of


def container(cpu: str = "100m", memory: str = "64Mi", **rest: object) -> client.V1Container:
    requests = {"cpu": cpu, "memory": memory}
    return client.V1Container(name="c", resources=client.V1ResourceRequirements(requests=requests), **rest)


def pod(
    name: str,
    node: str | None = "n1",
    ready: str = "True",
    phase: str = "Running",
    labels: dict[str, str] | None = None,
    deleted: str | None = None,
    **spec: object,
) -> client.V1Pod:
    condition = client.V1PodCondition(type="Ready", status=ready)
    return client.V1Pod(
        metadata=client.V1ObjectMeta(
            name=name, labels={"app": "web"} if labels is None else labels, deletion_timestamp=deleted
        ),
        spec=client.V1PodSpec(node_name=node, **({"containers": [container()]} | spec)),
        status=client.V1PodStatus(phase=phase, conditions=[condition] if node else None),
    )


def node(name: str, ready: str = "True", **room: dict[str, str]) -> client.V1Node:
    condition = client.V1NodeCondition(type="Ready", status=ready)
    return client.V1Node(
        metadata=client.V1ObjectMeta(name=name), status=client.V1NodeStatus(conditions=[condition], **room)
    )


def deployment(
    replicas: int | None = 3, selector: client.V1LabelSelector | None = None
) -> client.V1Deployment:
    return client.V1Deployment(
        metadata=client.V1ObjectMeta(name="web"),
        spec=client.V1DeploymentSpec(
            replicas=replicas,
            selector=selector or client.V1LabelSelector(match_labels={"app": "web"}),
            template=client.V1PodTemplateSpec(),
        ),
    )


def seen(*pods: client.V1Pod, replicas: int | None = 3) -> DeploymentView:
    (found,) = view_of((), pods, [deployment(replicas)]).deployments
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("quantity", "expected"), [("250m", 250), ("2", 2000), ("0.5", 500), ("1500u", 1.5), ("12500000n", 12.5)]
)
def test_cpu(quantity: str, expected: float) -> None:
    assert millicores(quantity) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("64Mi", 64),
        ("1Gi", 1024),
        ("512Ki", 0.5),
        ("1048576", 1),
        ("128M", 128e6 / 2**20),
        ("1e3", 1000 / 2**20),
    ],
)
def test_memory(quantity: str, expected: float) -> None:
    assert mebibytes(quantity) == pytest.approx(expected)


def test_nodes_are_ordered_and_give_what_pods_may_reserve() -> None:
    room = {"allocatable": {"cpu": "1900m", "memory": "3Gi"}, "capacity": {"cpu": "2", "memory": "4Gi"}}
    view = view_of([node("b", "Unknown", capacity={"cpu": "1", "memory": "1Gi"}), node("a", **room)], (), ())
    assert view.nodes == (NodeView("a", True, 1900, 3072), NodeView("b", False, 1000, 1024))


def test_pods_serve_start_or_wait() -> None:
    found = seen(
        pod("serves"), pod("starts", ready="False"), pod("waits", node=None, phase="Pending"), replicas=4
    )
    assert [p.name for p in found.ready] == ["serves"]
    # One waits for a place, and one has not been made yet.
    assert (found.desired, found.starting, found.pending) == (4, 1, 2)


def test_pods_that_ended_or_leave_do_not_count() -> None:
    found = seen(pod("failed", phase="Failed"), pod("leaves", deleted="2026-01-01T00:00:00Z"), pod("stays"))
    assert [p.name for p in found.pods] == ["stays"]
    assert found.pending == 2


def test_a_pod_that_leaves_holds_its_place_and_one_that_ended_does_not() -> None:
    view = view_of((), [pod("leaves", deleted="2026-01-01T00:00:00Z"), pod("ended", phase="Succeeded")], ())
    assert view.reserved("n1") == (100, 64)


def test_replicas_that_are_not_given_are_one_and_a_gone_deployment_is_none() -> None:
    assert seen(replicas=None).desired == 1
    assert seen(replicas=0).desired == 0
    assert view_of((), (), [None]) == ClusterView((), (), (None,))


def test_reservations_are_counted_as_the_scheduler_does() -> None:
    both = pod("a", containers=[container("100m", "64Mi"), container("50m", "32Mi")])
    first = pod("b", init_containers=[container("400m", "16Mi")])
    beside = pod("c", init_containers=[container("30m", "8Mi", restart_policy="Always")])
    more = pod("d", overhead={"cpu": "5m"})
    asks_nothing = pod("e", containers=[client.V1Container(name="c")])
    names = {"a": (150, 96), "b": (400, 64), "c": (130, 72), "d": (105, 64), "e": (0, 0)}
    view = view_of((), [both, first, beside, more, asks_nothing], ())
    assert {p.name: (p.cpu, p.memory) for p in view.pods} == {
        name: (pytest.approx(cpu), pytest.approx(memory)) for name, (cpu, memory) in names.items()
    }


@pytest.mark.parametrize(
    ("operator", "values", "taken"),
    [
        ("In", ["a", "b"], {"a"}),
        ("NotIn", ["a"], {"c", ""}),
        ("Exists", None, {"a", "c"}),
        ("DoesNotExist", None, {""}),
    ],
)
def test_selectors(operator: str, values: list[str] | None, taken: set[str]) -> None:
    term = client.V1LabelSelectorRequirement(key="tier", operator=operator, values=values)
    selector = client.V1LabelSelector(match_expressions=[term])
    tiers = {tier: {"tier": tier} if tier else {} for tier in ("a", "c", "")}
    pods = [pod(f"pod{tier}", labels=labels) for tier, labels in tiers.items()]
    (found,) = view_of((), pods, [deployment(selector=selector)]).deployments
    assert found is not None
    assert {p.name.removeprefix("pod") for p in found.pods} == taken
