"""What can be seen of clusters at one moment, simulated and real ones alike: arrays with a leading E."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Snapshot:
    """E clusters as they are, each padded to D applications, N nodes and U regions; padding holds zeros.

    Rates, usage and latencies are means over the control step that led here.

    Args:
        step: control steps done, ``E``.
        horizon: control steps in an episode, ``E``.
        application: which applications there are, 1 or 0, ``E x D``.
        desired: replicas asked for, ``E x D``.
        ready: pods that serve, ``E x D``.
        starting: pods that were placed and do not serve yet, ``E x D``.
        pending: pods without a place, ``E x D``.
        min_replicas: ``E x D``.
        max_replicas: ``E x D``.
        request_rate: requests a second, ``E x D``.
        cpu_usage: CPU in use by ready pods over what they reserved, ``E x D``.
        memory_usage: the same of memory, ``E x D``.
        latency: mean seconds of a request, refused ones at the timeout, ``E x D``.
        refused: how many over how many came, at most 1, ``E x D``.
        waiting: seconds that a new request would wait, ``E x D``.
        node: which nodes there are and are up, ``E x N``.
        node_cpu_reserved: share of the node's CPU, ``E x N``.
        node_memory_reserved: share of its memory, ``E x N``.
        node_cpu: share of its CPU in use, ``E x N``.
        node_memory: share of its memory in use, ``E x N``.
        node_received: share of its network, ``E x N``.
        node_sent: the same, ``E x N``.
        node_latency: mean seconds of a request served there, without the way, ``E x N``.
        serving: ready pods by node, ``E x D x N``.
        region_rate: requests a second from each region, ``E x U``.
        round_trip: seconds, ``E x U x N``.
        threshold: seconds of latency that the objective allows, ``E``.
    """

    step: Array
    horizon: Array
    application: Array
    desired: Array
    ready: Array
    starting: Array
    pending: Array
    min_replicas: Array
    max_replicas: Array
    request_rate: Array
    cpu_usage: Array
    memory_usage: Array
    latency: Array
    refused: Array
    waiting: Array
    node: Array
    node_cpu_reserved: Array
    node_memory_reserved: Array
    node_cpu: Array
    node_memory: Array
    node_received: Array
    node_sent: Array
    node_latency: Array
    serving: Array
    region_rate: Array
    round_trip: Array
    threshold: Array

    def __len__(self) -> int:
        """E."""
        return len(self.step)


@dataclass(frozen=True)
class Outcome:
    """What one control step cost, ``E`` each.

    A request's latency, and whether it violates the objective, is settled when it comes. One that waits and
    is dropped later, with the pod that had it or for want of room, adds to ``refused`` alone.

    Args:
        reward: minus the weighted sum of the costs.
        latency: mean seconds of a request.
        replicas: mean replicas an application.
        variance: of the share of CPU in use, between nodes.
        misfit: 1 where pods found no place.
        requests: how many came.
        violations: how many of them were above the threshold or refused at once.
        refused: how many were refused, those that came in an earlier step among them.
    """

    reward: Array
    latency: Array
    replicas: Array
    variance: Array
    misfit: Array
    requests: Array
    violations: Array
    refused: Array
