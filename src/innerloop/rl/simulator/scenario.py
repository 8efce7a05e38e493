"""What a cluster, its applications and one episode on it are: plain numbers, checked when they are made."""

import math
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from innerloop.core.errors import InputError
from innerloop.rl.simulator.latency import LatencyCurve
from innerloop.rl.simulator.load import Load, Pattern


@dataclass(frozen=True)
class Node:
    """A machine.

    Args:
        cpu: millicores.
        memory: MiB.
        network: Mbit a second, each way.
    """

    cpu: float
    memory: float
    network: float = 1000.0


@dataclass(frozen=True)
class Application:
    """A deployment: what one of its pods asks for, and what a request costs it.

    Args:
        cpu_request: millicores reserved for a pod, which is also what it can use.
        memory_request: MiB reserved for a pod.
        request_cpu: millicore-seconds of work a request.
        base_memory: MiB a pod uses without any request.
        request_memory: MiB a request takes while it is in hand.
        request_traffic: Mbit received and sent again a request.
        startup: seconds until a new pod serves.
        room: seconds of work that may wait at a pod; what comes on top is refused.
        replicas: at the beginning.
        min_replicas: never fewer.
        max_replicas: never more.
    """

    cpu_request: float = 100.0
    memory_request: float = 256.0
    request_cpu: float = 3.5
    base_memory: float = 32.0
    request_memory: float = 3.5
    request_traffic: float = 0.05
    startup: float = 30.0
    room: float = 2.0
    replicas: int = 1
    min_replicas: int = 1
    max_replicas: int = 8

    @property
    def capacity(self) -> float:
        """Requests a second that one pod serves."""
        return self.cpu_request / self.request_cpu


@dataclass(frozen=True)
class Failures:
    """How often something breaks.

    Args:
        node_rate: failures of a node an hour.
        node_repair: seconds until the node is back, empty.
        pod_rate: crashes an hour for every deployment; a crashed pod starts anew in its place.
    """

    node_rate: float = 0.0
    node_repair: float = 120.0
    pod_rate: float = 0.0


@dataclass(frozen=True)
class RewardWeights:
    """What an operator cares for. A step's reward is minus the sum of these.

    The weights are numbers, or arrays with one for each cluster.

    Args:
        latency: a second of mean latency.
        replica: a replica.
        variance: of the share of CPU in use, between nodes.
        misfit: a step in which pods asked for found no place.
    """

    latency: float | NDArray[np.float64] = 1.0
    replica: float | NDArray[np.float64] = 0.1
    variance: float | NDArray[np.float64] = 0.1
    misfit: float | NDArray[np.float64] = 100.0


@dataclass(frozen=True)
class Scenario:
    """One task: a cluster, its applications, the load on them, and what counts.

    Args:
        name: in reports and errors.
        nodes: at least one.
        applications: at least one.
        loads: one for each application, all over the same regions.
        round_trip: seconds between each region and each node, ``[region][node]``.
        reward: weights.
        threshold: seconds of latency above which a request violates the objective.
        timeout: seconds that a refused request counts as.
        curve: how latency rises with load.
        failures: what breaks.
        steps: control steps in an episode.
        interval: seconds between them.
        tick: seconds that the clock moves at once; the interval is a multiple of it.
    """

    name: str
    nodes: tuple[Node, ...]
    applications: tuple[Application, ...]
    loads: tuple[Load, ...]
    round_trip: tuple[tuple[float, ...], ...]
    reward: RewardWeights = field(default_factory=RewardWeights)
    threshold: float = 0.25
    timeout: float = 2.0
    curve: LatencyCurve = field(default_factory=LatencyCurve)
    failures: Failures = field(default_factory=Failures)
    steps: int = 40
    interval: float = 15.0
    tick: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what no simulation could run.

        Raises:
            InputError: counts that do not fit together, or a number out of its range.
        """
        regions = len(self.round_trip)
        if not (self.nodes and self.applications and regions):
            raise InputError(f"scenario {self.name}: needs at least one node, application and region")
        if len(self.loads) != len(self.applications):
            raise InputError(
                f"scenario {self.name}: {len(self.loads)} loads for {len(self.applications)} applications"
            )
        for row in self.round_trip:
            if len(row) != len(self.nodes):
                raise InputError(
                    f"scenario {self.name}: a row of round_trip has {len(row)} times for "
                    f"{len(self.nodes)} nodes"
                )
        self._check_numbers()
        for load in self.loads:
            self._check_load(load)
        for application in self.applications:
            if not 0 <= application.min_replicas <= application.replicas <= application.max_replicas:
                raise InputError(
                    f"scenario {self.name}: replicas must lie between min_replicas and max_replicas"
                )
        if self.steps < 1 or self.ticks < 1:
            raise InputError(
                f"scenario {self.name}: steps must be above 0, and the interval no shorter than the tick"
            )
        if not math.isclose(self.ticks * self.tick, self.interval):
            raise InputError(f"scenario {self.name}: the interval must be a multiple of the tick")

    @property
    def ticks(self) -> int:
        """Ticks in a control step."""
        return round(self.interval / self.tick)

    def _check_load(self, load: Load) -> None:
        regions, patterns = len(self.round_trip), get_args(Pattern)
        if load.pattern not in patterns:
            raise InputError(
                f"scenario {self.name}: no load pattern '{load.pattern}'; there are: {', '.join(patterns)}"
            )
        whole = math.isclose(sum(load.shares), 1, abs_tol=1e-6) and min(load.shares) >= 0
        if len(load.shares) != regions or not whole:
            raise InputError(
                f"scenario {self.name}: a load needs {regions} shares, none below 0, with the sum 1"
            )
        if load.pattern == "diurnal" and not 0 <= load.amplitude <= 1:
            raise InputError(f"scenario {self.name}: a diurnal load's amplitude is between 0 and 1")
        if not (math.isfinite(load.amplitude) and load.amplitude >= -1):
            raise InputError(f"scenario {self.name}: a load's amplitude is -1 or more")
        if not 0 <= load.phase <= 1:
            raise InputError(f"scenario {self.name}: a load's phase is between 0 and 1")

    def _check_numbers(self) -> None:
        for part in (self, *self.nodes, *self.applications, *self.loads, self.failures):
            positive, others = _RANGES[type(part)]
            for name in (*positive, *others):
                value = getattr(part, name)
                if not (math.isfinite(value) and (value > 0 or (value == 0 and name in others))):
                    least = "above 0" if name in positive else "0 or more"
                    raise InputError(f"scenario {self.name}: {name} must be {least}, not {value}")
        if not all(math.isfinite(time) and time >= 0 for row in self.round_trip for time in row):
            raise InputError(f"scenario {self.name}: the times of round_trip must be 0 or more")


# The fields that must be above 0, and those that may be 0 too.
_RANGES: dict[type, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Scenario: (("interval", "tick", "timeout"), ("threshold",)),
    Node: (("cpu", "memory", "network"), ()),
    Application: (
        ("cpu_request", "memory_request", "request_cpu"),
        ("base_memory", "request_memory", "request_traffic", "startup", "room"),
    ),
    Load: (("period",), ("rate",)),
    Failures: ((), ("node_rate", "node_repair", "pod_rate")),
}
