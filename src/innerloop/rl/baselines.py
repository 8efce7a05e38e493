"""What a learned policy must beat: fixed, random, the autoscaler people run, simple balancing, an oracle.

A baseline sees snapshots of E clusters and tells replicas and shares, like a policy does.
"""

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

import numpy as np

from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.rl.simulator.engine import Simulation
from innerloop.rl.simulator.padding import ratio
from innerloop.rl.simulator.scenario import Scenario
from innerloop.rl.simulator.snapshot import Array, Snapshot

Decision = tuple[Array, Array | None]
"""Replicas, ``E x D``, and the shares of requests, ``E x U x N``, or none for as many to each pod."""


class Controller(ABC):
    """Decides for E clusters, step by step through one episode."""

    @abstractmethod
    def decide(self, snapshot: Snapshot) -> Decision:
        """What to do at the end of a control step."""


class Static(Controller):
    """Leaves everything as it was at the beginning, or at a fixed number of replicas.

    Args:
        replicas: of every application, one number or one for each cluster, ``E``; none keeps what there is.
    """

    def __init__(self, replicas: int | Sequence[int] | None = None) -> None:
        self._replicas = None if replicas is None else np.asarray(replicas, dtype=np.float64).reshape(-1, 1)

    def decide(self, snapshot: Snapshot) -> Decision:
        """See :class:`Controller`."""
        if self._replicas is None:
            return snapshot.desired, None
        return np.clip(self._replicas, snapshot.min_replicas, snapshot.max_replicas), None


class RandomScaling(Controller):
    """Changes replicas by any number up to ``most``, each as likely.

    Args:
        seed: of the choices.
        most: as the policy's.
    """

    def __init__(self, seed: int, most: int) -> None:
        self._generator, self._most = np.random.default_rng(derive_seed(seed, "random")), most

    def decide(self, snapshot: Snapshot) -> Decision:
        """See :class:`Controller`."""
        change = self._generator.integers(-self._most, self._most + 1, snapshot.desired.shape)
        return np.clip(snapshot.desired + change, snapshot.min_replicas, snapshot.max_replicas), None


class RandomBalancing(Controller):
    """Spreads requests by weights drawn anew at every step.

    Args:
        seed: of the weights.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(derive_seed(seed, "random"))

    def decide(self, snapshot: Snapshot) -> Decision:
        """See :class:`Controller`."""
        weights = self._generator.exponential(size=snapshot.round_trip.shape)
        return snapshot.desired, weights * snapshot.node[:, None, :]


class HorizontalPodAutoscaler(Controller):
    """Kubernetes' own rule: desired = ceil(current · usage / target), with its brakes.

    Nothing changes while usage is within the tolerance of the target. Scaling up is limited to the larger of
    twice the replicas and four more; scaling down goes no lower than the highest recommendation of the
    window, and what there was at the beginning counts as one. Pods that do not serve yet count as using
    nothing when scaling up. All this as there.

    Args:
        target: CPU in use over reserved.
        tolerance: relative.
        window: control steps that scaling down looks back over; 300 s by Kubernetes' default.
    """

    def __init__(self, target: float = 0.7, tolerance: float = 0.1, window: int = 20) -> None:
        self._target, self._tolerance = target, tolerance
        self._recommended: deque[Array] = deque(maxlen=window)

    def decide(self, snapshot: Snapshot) -> Decision:
        """See :class:`Controller`."""
        s = snapshot
        current = s.desired
        usage = s.cpu_usage / self._target
        # All pods that are not ready, at no usage: the ratio that scaling up must still exceed.
        diluted = ratio(usage * s.ready, current)
        wanted = np.where(usage > 1, np.where(diluted > 1, np.ceil(current * diluted - 1e-9), current), 0.0)
        wanted = np.where(usage < 1, np.ceil(s.ready * usage - 1e-9), wanted)
        effective = np.where(usage > 1, diluted, usage)
        # Without a pod that serves there is nothing to measure, hence no recommendation.
        unknown = s.ready == 0
        wanted = np.where(unknown | (np.abs(effective - 1) <= self._tolerance), current, wanted)
        first = not self._recommended
        self._recommended.append(np.maximum(wanted, current) if first else np.where(unknown, 0, wanted))
        lowest = np.minimum(np.max(self._recommended, axis=0), current)
        highest = np.maximum(2 * current, current + 4)
        wanted = np.clip(wanted, lowest, highest)
        return np.clip(wanted, s.min_replicas, s.max_replicas), None


class LeastAllocated(Controller):
    """Spreads requests by the mean share of CPU and memory that a node has free."""

    def decide(self, snapshot: Snapshot) -> Decision:
        """See :class:`Controller`."""
        free = 1 - (snapshot.node_cpu + snapshot.node_memory) / 2
        return snapshot.desired, _to_all_regions(np.maximum(free, 1e-3), snapshot)


class Balanced(Controller):
    """Spreads requests by how even a node's use of CPU and memory is."""

    def decide(self, snapshot: Snapshot) -> Decision:
        """See :class:`Controller`."""
        even = 1 - np.abs(snapshot.node_cpu - snapshot.node_memory)
        return snapshot.desired, _to_all_regions(np.maximum(even, 1e-3), snapshot)


class GreedyLatency(Controller):
    """Sends every region's requests to the node that answered soonest in the last step, the way included.

    A node that served nothing is not known to be slow, so it is tried.
    """

    def decide(self, snapshot: Snapshot) -> Decision:
        """See :class:`Controller`."""
        serving = (snapshot.serving.sum(1) > 0) & (snapshot.node > 0)
        seconds = snapshot.round_trip + snapshot.node_latency[:, None, :]
        best = np.where(serving[:, None, :], seconds, np.inf).argmin(2)
        return snapshot.desired, np.eye(snapshot.node.shape[1])[best]


def oracle(scenario: Scenario, seed: int, choices: Sequence[Sequence[int]]) -> tuple[float, list[int]]:
    """The best that can be done on a small instance with the episode known beforehand, by trying everything.

    Args:
        scenario: with one application.
        seed: of the episode.
        choices: the replicas to try at each control step.

    Returns:
        The highest return, and the replicas that reach it.

    Raises:
        InputError: more than one application, other than one list of choices a step, or too many to try.
    """
    if len(scenario.applications) != 1 or len(choices) != scenario.steps:
        raise InputError("the oracle takes one application and a list of choices for each control step")
    most = 200_000
    if np.prod([float(len(step)) for step in choices]) > most:
        raise InputError(f"the oracle tries at most {most} courses; take fewer steps or choices")
    courses = np.array(list(itertools.product(*choices)))
    simulation = Simulation([scenario] * len(courses), [seed] * len(courses))
    total = np.zeros(len(courses))
    for step in range(scenario.steps):
        total += simulation.step(courses[:, step : step + 1]).reward
    best = int(total.argmax())
    return float(total[best]), [int(replicas) for replicas in courses[best]]


def best_static(scenario: Scenario, seeds: Sequence[int]) -> tuple[int, float]:
    """The number of replicas, the same for every application, whose mean return over episodes is highest.

    Returns:
        The number and its return.
    """
    most = max(application.max_replicas for application in scenario.applications)
    least = min(application.min_replicas for application in scenario.applications)
    numbers = np.repeat(np.arange(least, most + 1), len(seeds))
    simulation = Simulation([scenario] * len(numbers), [*seeds] * (most + 1 - least))
    total = np.zeros(len(numbers))
    wanted = np.repeat(numbers[:, None], len(scenario.applications), axis=1)
    while not simulation.done:
        total += simulation.step(wanted).reward
    returns = total.reshape(-1, len(seeds)).mean(1)
    best = int(returns.argmax())
    return least + best, float(returns[best])


def _to_all_regions(weights: Array, snapshot: Snapshot) -> Array:
    return np.broadcast_to((weights * snapshot.node)[:, None, :], snapshot.round_trip.shape)
