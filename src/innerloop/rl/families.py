"""Families of tasks: distributions over clusters, applications, loads and what counts, with held-out members.

A member is a pure function of the family, its seed, the split and its number, so members never need saving,
and those of another split are other draws from the same distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.rl.observation import Layout
from innerloop.rl.simulator.latency import LatencyCurve
from innerloop.rl.simulator.load import Load, Pattern
from innerloop.rl.simulator.scenario import Application, Failures, Node, RewardWeights, Scenario
from innerloop.settings.kinds import Count, NonNegative, Positive, Seed

Span = tuple[NonNegative, NonNegative]
"""From, to; a value is drawn evenly between them, or evenly in its logarithm where the field says so."""

Numbers = tuple[Count, Count]
"""From, to, both included."""

ABOVE_ZERO = ("round_trip", "latency_threshold")
"""Fields whose zero the observation could not tell from what is not there."""

LEAST_WEIGHT = 1e-9
"""What a weight of 0 counts as in its logarithm."""

Split = Literal["train", "validation", "test"]
Kind = Literal["scaling", "balancing"]


@dataclass(frozen=True)
class Family:
    """A distribution over scenarios.

    Args:
        name: of the family.
        seed: of all members.
        nodes: in a cluster.
        applications: in a cluster.
        regions: of users.
        node_cpu: millicores.
        node_memory: MiB.
        max_pods: an application's most replicas.
        cpu_requirement: millicores a pod reserves.
        memory_requirement: MiB a pod reserves.
        request_cpu: millicore-seconds a request.
        startup: seconds until a pod serves.
        traffic_pattern: of which one is drawn for every application.
        demand: the mean load over what ``max_pods`` pods serve.
        amplitude: see :class:`Load`; of ``diurnal`` it is at most 1.
        period: seconds.
        round_trip: seconds between a region and a node.
        saturation: the load of a pod from which on its requests are slowed down.
        latency_threshold: seconds of latency that the objective allows.
        latency_weight: of the reward; even in the logarithm.
        replica_weight: of the reward; even in the logarithm.
        variance_weight: of the reward.
        misfit_weight: of the reward.
        node_failures: of a node an hour.
        pod_failures: of an application's pods an hour.
        steps: control steps of an episode.
        interval: seconds between them.
    """

    name: str
    seed: Seed = 0
    nodes: Numbers = (3, 6)
    applications: Numbers = (1, 3)
    regions: Numbers = (1, 1)
    node_cpu: Span = (2000.0, 4000.0)
    node_memory: Span = (4096.0, 8192.0)
    max_pods: Numbers = (6, 10)
    cpu_requirement: Span = (100.0, 250.0)
    memory_requirement: Span = (128.0, 384.0)
    request_cpu: Span = (2.0, 8.0)
    startup: Span = (5.0, 60.0)
    traffic_pattern: tuple[Pattern, ...] = ("diurnal", "bursty", "step")
    demand: Span = (0.2, 0.5)
    amplitude: Span = (0.3, 1.0)
    period: Span = (200.0, 600.0)
    round_trip: Span = (0.005, 0.03)
    saturation: Span = (0.4, 0.9)
    latency_threshold: Span = (0.1, 0.4)
    latency_weight: Span = (0.3, 10.0)
    replica_weight: Span = (0.02, 0.4)
    variance_weight: Span = (0.1, 0.1)
    misfit_weight: Span = (2.0, 2.0)
    node_failures: Span = (0.0, 0.0)
    pod_failures: Span = (0.0, 0.0)
    steps: Count = 40
    interval: Positive = 15.0

    def __post_init__(self) -> None:
        """Refuses spans that run backwards and patterns that do not exist.

        Raises:
            InputError: naming the field.
        """
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "traffic_pattern":
                unknown = [pattern for pattern in value if pattern not in get_args(Pattern)]
                if unknown or not value:
                    raise InputError(
                        f"family {self.name}: traffic_pattern names some of {', '.join(get_args(Pattern))}, "
                        f"not {', '.join(map(str, unknown)) or 'none'}"
                    )
            elif entry.name in ABOVE_ZERO and value[0] <= 0:
                raise InputError(f"family {self.name}: {entry.name} must be above 0, not {list(value)}")
            elif isinstance(value, tuple) and not (len(value) == 2 and 0 <= value[0] <= value[1]):
                raise InputError(f"family {self.name}: {entry.name} must be [from, to], not {list(value)}")

        if "diurnal" in self.traffic_pattern and self.amplitude[1] > 1:
            raise InputError(
                f"family {self.name}: amplitude is at most 1 where traffic_pattern holds diurnal, "
                f"not {self.amplitude[1]:g}"
            )

    @property
    def kind(self) -> Kind:
        """What is controlled: ``scaling`` changes replicas, ``balancing`` spreads requests."""
        return "scaling"

    @property
    def layout(self) -> Layout:
        """Room for every member."""
        return Layout(self.applications[1], self.nodes[1], self.regions[1])

    def split(self, name: Split) -> "Members":
        """The members of a split."""
        return Members(self, name)


@dataclass(frozen=True)
class Members:
    """The members of one split of a family, without end.

    Args:
        family: that they are drawn from.
        name: of the split.
    """

    family: Family
    name: Split

    def scenario(self, number: int) -> Scenario:
        """The member of this number, always the same."""
        f = self.family
        generator = np.random.default_rng(derive_seed("family", f.name, f.seed, self.name, number))

        def between(span: Span) -> float:
            return float(generator.uniform(*span))

        def logarithmic(span: Span) -> float:
            return float(np.exp(generator.uniform(*np.log(np.maximum(span, LEAST_WEIGHT)))))

        def count(span: Numbers) -> int:
            return int(generator.integers(span[0], span[1] + 1))

        nodes = tuple(Node(between(f.node_cpu), between(f.node_memory)) for _ in range(count(f.nodes)))
        regions = count(f.regions)
        applications = tuple(_application(f, between, count) for _ in range(count(f.applications)))
        return Scenario(
            name=f"{f.name}/{self.name}/{number}",
            nodes=nodes,
            applications=applications,
            loads=tuple(_load(f, app, regions, between, generator) for app in applications),
            round_trip=tuple(tuple(between(f.round_trip) for _ in nodes) for _ in range(regions)),
            reward=RewardWeights(
                latency=logarithmic(f.latency_weight),
                replica=logarithmic(f.replica_weight),
                variance=between(f.variance_weight),
                misfit=between(f.misfit_weight),
            ),
            threshold=between(f.latency_threshold),
            curve=LatencyCurve(threshold=between(f.saturation)),
            failures=Failures(node_rate=between(f.node_failures), pod_rate=between(f.pod_failures)),
            steps=f.steps,
            interval=f.interval,
        )


@dataclass(frozen=True)
class KubernetesScaling(Family):
    """Replicas of deployments under changing load; clusters, applications, loads and what counts differ."""

    name: Literal["kubernetes_scaling"] = "kubernetes_scaling"


@dataclass(frozen=True)
class LoadBalancing(Family):
    """Users of several regions whose requests are spread over the nodes that serve them."""

    name: Literal["load_balancing"] = "load_balancing"
    applications: Numbers = (1, 2)
    regions: Numbers = (2, 3)
    startup: Span = (0.0, 0.0)
    traffic_pattern: tuple[Pattern, ...] = ("flat", "diurnal", "step")
    demand: Span = (0.4, 0.7)
    amplitude: Span = (0.0, 0.4)
    round_trip: Span = (0.005, 0.1)
    saturation: Span = (0.7, 0.7)
    latency_threshold: Span = (0.1, 0.4)
    latency_weight: Span = (0.5, 4.0)
    replica_weight: Span = (0.1, 0.1)

    @property
    def kind(self) -> Kind:
        """See :class:`Family`."""
        return "balancing"


FAMILIES: dict[str, type[Family]] = {"kubernetes_scaling": KubernetesScaling, "load_balancing": LoadBalancing}


@dataclass(frozen=True)
class Alone:
    """A source that gives the same scenario whatever the number.

    Args:
        only: the scenario.
    """

    only: Scenario

    def scenario(self, number: int) -> Scenario:  # noqa: ARG002 - every number is alike
        """The scenario."""
        return self.only


def layout_of(scenario: Scenario) -> Layout:
    """Room for one scenario."""
    return Layout(len(scenario.applications), len(scenario.nodes), len(scenario.round_trip))


def _application(f: Family, between: Callable[[Span], float], count: Callable[[Numbers], int]) -> Application:
    most = count(f.max_pods)
    return Application(
        cpu_request=between(f.cpu_requirement),
        memory_request=between(f.memory_requirement),
        request_cpu=between(f.request_cpu),
        startup=between(f.startup),
        # Spread requests need pods to be spread over; scaled ones begin in the middle.
        replicas=most if f.kind == "balancing" else (most + 1) // 2,
        max_replicas=most,
    )


def _load(
    f: Family,
    application: Application,
    regions: int,
    between: Callable[[Span], float],
    generator: np.random.Generator,
) -> Load:
    pattern = f.traffic_pattern[int(generator.integers(len(f.traffic_pattern)))]
    shares = generator.dirichlet(np.full(regions, 4.0))
    return Load(
        pattern=pattern,
        rate=between(f.demand) * application.capacity * application.max_replicas,
        amplitude=between(f.amplitude),
        period=between(f.period),
        phase=float(generator.uniform()),
        shares=tuple(float(share) for share in shares),
    )
