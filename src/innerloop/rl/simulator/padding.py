"""Many scenarios as arrays of one shape: what does not change during an episode."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from innerloop.core.errors import InputError
from innerloop.rl.simulator.latency import LatencyCurve
from innerloop.rl.simulator.scenario import Application, Node, RewardWeights, Scenario
from innerloop.rl.simulator.snapshot import Array


@dataclass(frozen=True)
class Padded:
    """E scenarios padded to D applications, N nodes and U regions.

    Fields named as in :class:`Scenario`, :class:`Node` and :class:`Application` hold the same, ``E``,
    ``E x N`` and ``E x D``; padding holds zeros. ``application`` and ``node`` say what is there; ``capacity``
    is requests a second that one pod serves.
    """

    application: Array
    node: Array
    node_cpu: Array
    node_memory: Array
    node_network: Array
    cpu_request: Array
    memory_request: Array
    request_cpu: Array
    base_memory: Array
    request_memory: Array
    request_traffic: Array
    startup: Array
    room: Array
    replicas: Array
    min_replicas: Array
    max_replicas: Array
    capacity: Array
    round_trip: Array
    threshold: Array
    timeout: Array
    reward: RewardWeights
    curve: LatencyCurve

    @property
    def count(self) -> int:
        """E."""
        return int(self.threshold.shape[0])

    @property
    def applications(self) -> int:
        """D."""
        return int(self.application.shape[1])

    @property
    def nodes(self) -> int:
        """N."""
        return int(self.node.shape[1])

    @property
    def regions(self) -> int:
        """U."""
        return int(self.round_trip.shape[1])

    @staticmethod
    def of(scenarios: Sequence[Scenario]) -> "Padded":
        """Pads scenarios to the largest of them.

        Raises:
            InputError: there are none.
        """
        if not scenarios:
            raise InputError("a simulation needs at least one scenario")
        count = len(scenarios)
        nodes = max(len(s.nodes) for s in scenarios)
        round_trip = np.zeros((count, max(len(s.round_trip) for s in scenarios), nodes))
        for number, scenario in enumerate(scenarios):
            for region, row in enumerate(scenario.round_trip):
                round_trip[number, region, : len(row)] = row

        def of_node(value: Callable[[Node], float]) -> Array:
            return _rows([[value(node) for node in s.nodes] for s in scenarios])

        def of_application(value: Callable[[Application], float]) -> Array:
            return _rows([[value(application) for application in s.applications] for s in scenarios])

        def of_scenario(value: Callable[[Scenario], float | Array]) -> Array:
            return np.array([value(s) for s in scenarios], dtype=np.float64)

        def of_curve(value: Callable[[LatencyCurve], float | Array]) -> Array:
            return np.array([value(s.curve) for s in scenarios], dtype=np.float64)[:, None, None]

        return Padded(
            application=of_application(lambda _: 1.0),
            node=of_node(lambda _: 1.0),
            node_cpu=of_node(lambda n: n.cpu),
            node_memory=of_node(lambda n: n.memory),
            node_network=of_node(lambda n: n.network),
            cpu_request=of_application(lambda a: a.cpu_request),
            memory_request=of_application(lambda a: a.memory_request),
            request_cpu=of_application(lambda a: a.request_cpu),
            base_memory=of_application(lambda a: a.base_memory),
            request_memory=of_application(lambda a: a.request_memory),
            request_traffic=of_application(lambda a: a.request_traffic),
            startup=of_application(lambda a: a.startup),
            room=of_application(lambda a: a.room),
            replicas=of_application(lambda a: a.replicas),
            min_replicas=of_application(lambda a: a.min_replicas),
            max_replicas=of_application(lambda a: a.max_replicas),
            capacity=of_application(lambda a: a.capacity),
            round_trip=round_trip,
            threshold=of_scenario(lambda s: s.threshold),
            timeout=of_scenario(lambda s: s.timeout),
            reward=RewardWeights(
                latency=of_scenario(lambda s: s.reward.latency),
                replica=of_scenario(lambda s: s.reward.replica),
                variance=of_scenario(lambda s: s.reward.variance),
                misfit=of_scenario(lambda s: s.reward.misfit),
            ),
            curve=LatencyCurve(
                of_curve(lambda c: c.threshold),
                of_curve(lambda c: c.unit),
                of_curve(lambda c: c.base),
                of_curve(lambda c: c.slope),
            ),
        )


def ratio(value: Array, whole: Array) -> Array:
    """``value / whole``, and 0 where the whole is 0: padding, or nothing there."""
    return np.divide(value, whole, out=np.zeros(np.broadcast(value, whole).shape), where=whole > 0)


def _rows(rows: Sequence[Sequence[float]]) -> Array:
    padded = np.zeros((len(rows), max(map(len, rows))))
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded
