"""Nodes in name only, on a clock of their own: pods bound to them become ready when their start-up is over.

All else is the real thing: the deployment controller makes the pods, the scheduler binds them.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from kubernetes import client
from kubernetes.utils.quantity import parse_quantity

from innerloop.rl.simulator import Node

LABEL = "innerloop-test"
"""Of the nodes, and the key of their taint: says which test they belong to."""

PATIENCE = 60.0
"""Seconds until the control plane is taken to be stuck."""

HEARTBEAT = 5.0
"""Seconds between two signs of life; a node without any for 40 s is taken to be down."""


class FakeKubelet:
    """The kubelets of one test's nodes.

    Args:
        connection: of one who may do everything.
        pool: the test's name; the nodes are ``POOL-0``, ``POOL-1``, ...
        nodes: what they are.
        namespace: of the pods.
        startup: virtual seconds until a pod is ready, by the value of its label ``app``.
    """

    def __init__(
        self,
        connection: client.ApiClient,
        pool: str,
        nodes: tuple[Node, ...],
        namespace: str,
        startup: Mapping[str, float],
    ) -> None:
        self._core, self._apps = client.CoreV1Api(connection), client.AppsV1Api(connection)
        self._pool, self._namespace, self._startup = pool, namespace, startup
        self.nodes = {f"{pool}-{number}": node for number, node in enumerate(nodes)}
        self.now = 0.0
        """Virtual seconds."""
        self._bound_at: dict[str, float] = {}
        self._beat = 0.0

    def join(self) -> None:
        """Makes the nodes and waits until they take pods."""
        for name in self.nodes:
            taint = {"key": LABEL, "value": self._pool, "effect": "NoSchedule"}
            self._core.create_node(
                {"metadata": {"name": name, "labels": {LABEL: self._pool}}, "spec": {"taints": [taint]}}
            )
        self._heartbeat()
        _wait("nodes to become ready", lambda: all(self._takes_pods(name) for name in self.nodes))

    def leave(self) -> None:
        """Takes away the nodes that are left, and the pods on them."""
        for pod in self._core.list_namespaced_pod(self._namespace).items:
            self._delete(pod)
        for node in self._core.list_node(label_selector=f"{LABEL}={self._pool}").items:
            self._core.delete_node(node.metadata.name)

    def advance(self, seconds: float) -> None:
        """Waits until the controllers have done their part, then lets virtual time pass."""
        self.settle()
        for pod in self._pods():
            if pod.spec.node_name:
                self._bound_at.setdefault(pod.metadata.uid, self.now)
        self.now += seconds
        for pod in self._pods():
            bound, startup = self._bound_at.get(pod.metadata.uid), self._startup[pod.metadata.labels["app"]]
            if bound is not None and not _ready(pod) and self.now - bound > startup:
                self._set_running(pod)

    def start_all(self) -> None:
        """Makes every pod with a place ready at once."""
        self.settle()
        for pod in self._pods():
            if pod.spec.node_name:
                self._bound_at[pod.metadata.uid] = self.now
                self._set_running(pod)
        self.settle()

    def settle(self) -> None:
        """Waits until there are as many pods as asked for, each with a place or with none to be had."""
        _wait("the controllers to settle", self._is_settled)

    def _is_settled(self) -> bool:
        if time.monotonic() - self._beat > HEARTBEAT:
            self._heartbeat()
        pods = self._core.list_namespaced_pod(self._namespace).items
        leaving = [pod for pod in pods if pod.metadata.deletion_timestamp]
        for pod in leaving:
            self._delete(pod)
        if leaving:
            return False
        for deployment in self._apps.list_namespaced_deployment(self._namespace).items:
            wanted, status = deployment.spec.replicas, deployment.status
            mine = [pod for pod in pods if pod.metadata.labels["app"] == deployment.metadata.name]
            if status.observed_generation != deployment.metadata.generation or len(mine) != wanted:
                return False
            if (status.replicas or 0) != wanted or (status.ready_replicas or 0) != sum(map(_ready, mine)):
                return False
        free = self._free(pods)
        return all(pod.spec.node_name or (_unschedulable(pod) and not _fits(pod, free)) for pod in pods)

    def _free(self, pods: list[client.V1Pod]) -> list[tuple[float, float]]:
        return [
            (
                node.cpu - sum(_request(pod, "cpu") * 1000 for pod in pods if pod.spec.node_name == name),
                node.memory
                - sum(_request(pod, "memory") / 2**20 for pod in pods if pod.spec.node_name == name),
            )
            for name, node in self.nodes.items()
        ]

    def _pods(self) -> list[client.V1Pod]:
        pods: list[client.V1Pod] = self._core.list_namespaced_pod(self._namespace).items
        return [pod for pod in pods if not pod.metadata.deletion_timestamp]

    def _delete(self, pod: client.V1Pod) -> None:
        try:
            self._core.delete_namespaced_pod(pod.metadata.name, self._namespace, grace_period_seconds=0)
        except client.ApiException as error:
            if error.status != 404:
                raise

    def _set_running(self, pod: client.V1Pod) -> None:
        conditions = [_condition(name) for name in ("Initialized", "ContainersReady", "Ready")]
        status = {"phase": "Running", "startTime": _now(), "conditions": conditions}
        self._core.patch_namespaced_pod_status(pod.metadata.name, self._namespace, {"status": status})

    def _heartbeat(self) -> None:
        self._beat = time.monotonic()
        for node in self._core.list_node(label_selector=f"{LABEL}={self._pool}").items:
            here = self.nodes[node.metadata.name]
            room = {"cpu": f"{here.cpu:g}m", "memory": f"{here.memory:g}Mi", "pods": "110"}
            condition = _condition("Ready") | {"lastHeartbeatTime": _now()}
            self._core.patch_node_status(
                node.metadata.name,
                {"status": {"capacity": room, "allocatable": room, "conditions": [condition]}},
            )

    def _takes_pods(self, name: str) -> bool:
        node = self._core.read_node(name)
        return _ready(node) and all(taint.key == LABEL for taint in node.spec.taints or ())


def _wait(what: str, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.05)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(name: str) -> dict[str, str]:
    return {
        "type": name,
        "status": "True",
        "reason": "Fake",
        "message": "fake",
        "lastTransitionTime": _now(),
    }


def _ready(thing: client.V1Pod | client.V1Node) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in thing.status.conditions or ())


def _unschedulable(pod: client.V1Pod) -> bool:
    return any(c.type == "PodScheduled" and c.status == "False" for c in pod.status.conditions or ())


def _request(pod: client.V1Pod, resource: str) -> float:
    return sum(float(parse_quantity(c.resources.requests[resource])) for c in pod.spec.containers)


def _fits(pod: client.V1Pod, free: list[tuple[float, float]]) -> bool:
    cpu, memory = _request(pod, "cpu") * 1000, _request(pod, "memory") / 2**20
    return any(cpu <= has_cpu and memory <= has_memory for has_cpu, has_memory in free)
