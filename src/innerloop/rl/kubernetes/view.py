"""What the API server's answers mean: nodes, deployments and pods as plain numbers. Nothing is asked here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes.utils.quantity import parse_quantity

Answer = Any
"""An object of the client's, whose own types say of every field that it may be missing."""

MEBIBYTE = 1024.0**2


@dataclass(frozen=True)
class NodeView:
    """A node.

    Args:
        name: its name.
        up: whether it is ready.
        cpu: millicores that pods may reserve.
        memory: MiB that pods may reserve.
    """

    name: str
    up: bool
    cpu: float
    memory: float


@dataclass(frozen=True)
class PodView:
    """A pod that has not ended.

    Args:
        name: its name.
        labels: its labels.
        node: where it is; none if it has no place yet.
        ready: whether it serves.
        leaving: whether it is being deleted: it is no longer counted, and holds its place until it is gone.
        cpu: millicores reserved.
        memory: MiB reserved.
    """

    name: str
    labels: dict[str, str]
    node: str | None
    ready: bool
    leaving: bool
    cpu: float
    memory: float


@dataclass(frozen=True)
class DeploymentView:
    """A deployment.

    Args:
        name: its name.
        desired: replicas asked for.
        pods: its pods, without those that are leaving.
    """

    name: str
    desired: int
    pods: tuple[PodView, ...]

    @property
    def ready(self) -> tuple[PodView, ...]:
        """The pods that serve."""
        return tuple(pod for pod in self.pods if pod.ready)

    @property
    def starting(self) -> int:
        """Pods that have a place and do not serve yet."""
        return sum(pod.node is not None and not pod.ready for pod in self.pods)

    @property
    def pending(self) -> int:
        """Pods without a place, and replicas asked for of which there is no pod yet."""
        return sum(pod.node is None for pod in self.pods) + max(self.desired - len(self.pods), 0)


@dataclass(frozen=True)
class ClusterView:
    """A cluster at one moment.

    Args:
        nodes: by name.
        pods: of the namespace, whichever deployment they belong to.
        deployments: as the settings list them; none where one is gone.
    """

    nodes: tuple[NodeView, ...]
    pods: tuple[PodView, ...]
    deployments: tuple[DeploymentView | None, ...]

    def reserved(self, node: str) -> tuple[float, float]:
        """Millicores and MiB that the namespace's pods reserve on a node."""
        here = [pod for pod in self.pods if pod.node == node]
        return sum(pod.cpu for pod in here), sum(pod.memory for pod in here)


def view_of(
    nodes: Iterable[Answer],
    pods: Iterable[Answer],
    deployments: Sequence[Answer],
) -> ClusterView:
    """Reads the answers.

    Args:
        nodes: of the cluster.
        pods: of the namespace.
        deployments: of the namespace; none where one is gone.

    Raises:
        ValueError: a quantity that Kubernetes would not have accepted.
    """
    seen = tuple(_pod(pod) for pod in pods if pod.status.phase not in ("Succeeded", "Failed"))
    return ClusterView(
        nodes=tuple(sorted((_node(node) for node in nodes), key=lambda node: node.name)),
        pods=seen,
        deployments=tuple(None if found is None else _deployment(found, seen) for found in deployments),
    )


def millicores(quantity: str) -> float:
    """A quantity of CPU."""
    return _number(quantity) * 1000


def mebibytes(quantity: str) -> float:
    """A quantity of memory."""
    return _number(quantity) / MEBIBYTE


def _number(quantity: str) -> float:
    return float(parse_quantity(quantity))  # type: ignore[no-untyped-call]


def _node(node: Answer) -> NodeView:
    room = node.status.allocatable or node.status.capacity or {}
    return NodeView(
        name=node.metadata.name,
        up=_holds(node.status.conditions, "Ready"),
        cpu=millicores(room.get("cpu", "0")),
        memory=mebibytes(room.get("memory", "0")),
    )


def _deployment(deployment: Answer, pods: Iterable[PodView]) -> DeploymentView:
    replicas = deployment.spec.replicas
    mine = (pod for pod in pods if not pod.leaving and _selects(deployment.spec.selector, pod.labels))
    return DeploymentView(deployment.metadata.name, 1 if replicas is None else replicas, tuple(mine))


def _pod(pod: Answer) -> PodView:
    leaving = pod.metadata.deletion_timestamp is not None
    return PodView(
        name=pod.metadata.name,
        labels=pod.metadata.labels or {},
        node=pod.spec.node_name or None,
        ready=not leaving and _holds(pod.status.conditions, "Ready"),
        leaving=leaving,
        cpu=_reserved(pod.spec, "cpu") * 1000,
        memory=_reserved(pod.spec, "memory") / MEBIBYTE,
    )


def _reserved(spec: Answer, resource: str) -> float:
    """What the scheduler counts: all containers, or the largest that runs before them, and the overhead."""
    before = spec.init_containers or []
    beside = [container for container in before if container.restart_policy == "Always"]
    running = sum(_request(container, resource) for container in (*spec.containers, *beside))
    largest = max((_request(container, resource) for container in before), default=0.0)
    return max(running, largest) + _number((spec.overhead or {}).get(resource, "0"))


def _request(container: Answer, resource: str) -> float:
    requests = (container.resources and container.resources.requests) or {}
    return _number(requests.get(resource, "0"))


def _holds(conditions: Iterable[Answer] | None, condition: str) -> bool:
    return any(c.type == condition and c.status == "True" for c in conditions or ())


def _selects(selector: Answer, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    if any(labels.get(key) != value for key, value in (selector.match_labels or {}).items()):
        return False
    for term in selector.match_expressions or ():
        value, values = labels.get(term.key), term.values or ()
        match term.operator:
            case "In":
                taken = value in values
            case "NotIn":
                taken = value not in values
            case "Exists":
                taken = value is not None
            case _:
                taken = value is None
        if not taken:
            return False
    return True
