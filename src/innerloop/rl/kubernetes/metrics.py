"""What is measured on a cluster, and the source that most clusters have: the resource metrics API."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from innerloop.rl.kubernetes.api import KubernetesApi
from innerloop.rl.kubernetes.errors import ClusterError
from innerloop.rl.kubernetes.settings import ClusterSettings
from innerloop.rl.kubernetes.view import ClusterView, mebibytes, millicores
from innerloop.rl.simulator.padding import ratio
from innerloop.rl.simulator.snapshot import Array


@dataclass(frozen=True)
class Figures:
    """Means over the last control step; zeros where nothing is known or nothing is there.

    Args:
        request_rate: requests a second, ``D``.
        latency: mean seconds of a request, refused ones at what the settings say, ``D``.
        refused: share of the requests, ``D``.
        violations: share of the requests that were above the threshold or refused, ``D``.
        cpu_usage: CPU in use by ready pods over what they reserve, ``D``.
        memory_usage: the same of memory, ``D``.
        waiting: seconds that a new request would wait, ``D``.
        node_cpu: share of the node's CPU in use, ``N``.
        node_memory: share of its memory in use, ``N``.
        node_received: share of its network, ``N``.
        node_sent: the same, ``N``.
        node_latency: mean seconds of a request served there, without the way, ``N``.
        region_rate: requests a second from each region, ``U``; none spreads them evenly.
    """

    request_rate: Array
    latency: Array
    refused: Array
    violations: Array
    cpu_usage: Array
    memory_usage: Array
    waiting: Array
    node_cpu: Array
    node_memory: Array
    node_received: Array
    node_sent: Array
    node_latency: Array
    region_rate: Array | None = None

    def check(self, deployments: int, nodes: int, regions: int) -> None:
        """Refuses figures that no policy could use.

        Raises:
            ClusterError: an array of another length, or a number that is not finite or below 0.
        """
        lengths = {"node": nodes, "region": regions}
        for field in fields(self):
            values = getattr(self, field.name)
            if values is None:
                continue
            length = lengths.get(field.name.split("_")[0], deployments)
            if np.shape(values) != (length,) or not np.all(np.isfinite(values) & (values >= 0)):
                raise ClusterError(
                    f"the metrics' {field.name} is {np.asarray(values).tolist()}; "
                    f"it must be {length} finite numbers of 0 or more"
                )


class MetricsSource(Protocol):
    """Where figures come from."""

    def read(self, view: ClusterView, settings: ClusterSettings) -> Figures:
        """The figures of the control step that has just ended.

        Args:
            view: what is there now; its deployments and nodes give the order of the figures.
            settings: names the namespace and says what counts as slow.

        Raises:
            ClusterError: they cannot be had.
        """


class ResourceMetrics:
    """CPU and memory from the API ``metrics.k8s.io``, which the add-on metrics-server provides.

    It knows nothing of requests: their rate, latency and refusals are zeros, and so is the network. A policy
    that needs them takes :class:`~innerloop.rl.kubernetes.prometheus.PrometheusMetrics`.

    Args:
        api: of the cluster.
    """

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api

    def read(self, view: ClusterView, settings: ClusterSettings) -> Figures:  # noqa: ARG002 - the protocol's
        """See :class:`MetricsSource`."""
        cpu, memory = _usage(self._api.pod_metrics(), self._api.server)
        node_cpu, node_memory = _usage(self._api.node_metrics(), self._api.server)
        unknown, unknown_of_node = np.zeros(len(view.deployments)), np.zeros(len(view.nodes))
        cpu_usage, memory_usage = pod_usage(view, cpu, memory)
        return Figures(
            request_rate=unknown,
            latency=unknown,
            refused=unknown,
            violations=unknown,
            cpu_usage=cpu_usage,
            memory_usage=memory_usage,
            waiting=unknown,
            node_cpu=node_share(view, node_cpu, "cpu"),
            node_memory=node_share(view, node_memory, "memory"),
            node_received=unknown_of_node,
            node_sent=unknown_of_node,
            node_latency=unknown_of_node,
        )


def pod_usage(
    view: ClusterView, cpu: Mapping[str, float], memory: Mapping[str, float]
) -> tuple[Array, Array]:
    """CPU and memory in use by the ready pods of each deployment over what they reserve, ``D`` each.

    Pods that have not been measured yet count on neither side; pods that reserve nothing give 0.

    Args:
        view: what is there.
        cpu: millicores in use, by pod.
        memory: MiB in use, by pod.
    """
    used, reserved = np.zeros((2, len(view.deployments))), np.zeros((2, len(view.deployments)))
    for number, deployment in enumerate(view.deployments):
        for pod in deployment.ready if deployment else ():
            for row, (measured, asked) in enumerate(((cpu, pod.cpu), (memory, pod.memory))):
                if pod.name in measured:
                    used[row, number] += measured[pod.name]
                    reserved[row, number] += asked
    shares = ratio(used, reserved)
    return shares[0], shares[1]


def node_share(view: ClusterView, used: Mapping[str, float], resource: str) -> Array:
    """What is in use of each node's CPU (in millicores) or memory (in MiB), ``N``."""
    measured = np.array([used.get(node.name, 0.0) for node in view.nodes])
    return ratio(measured, np.array([getattr(node, resource) for node in view.nodes], dtype=np.float64))


def _usage(answer: Any, server: str) -> tuple[dict[str, float], dict[str, float]]:
    """Millicores and MiB in use by name, from a list of PodMetrics or NodeMetrics."""
    cpu: dict[str, float] = {}
    memory: dict[str, float] = {}
    try:
        for item in answer["items"]:
            name = item["metadata"]["name"]
            measured = [part["usage"] for part in item.get("containers", (item,))]
            cpu[name] = sum(millicores(usage["cpu"]) for usage in measured)
            memory[name] = sum(mebibytes(usage["memory"]) for usage in measured)
    except (KeyError, TypeError, ValueError) as error:
        raise ClusterError(
            f"{server} gives metrics that cannot be read ({error}); check what serves metrics.k8s.io/v1beta1"
        ) from error
    return cpu, memory
