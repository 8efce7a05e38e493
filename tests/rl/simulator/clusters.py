"""Clusters for the tests of the simulator: plain ones by hand, and random ones for properties."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from innerloop.rl.simulator import (
    Application,
    Failures,
    LatencyCurve,
    Load,
    Node,
    RewardWeights,
    Scenario,
    Simulation,
)
from innerloop.rl.simulator.snapshot import Outcome, Snapshot

Array = NDArray[np.float64]

SEEDS = st.integers(0, 2**31)
NO_DELAY = LatencyCurve(unit=0.0)
PLAIN = Application(
    cpu_request=100,
    memory_request=100,
    request_cpu=100,
    base_memory=0,
    request_memory=0,
    request_traffic=0,
    startup=0,
    room=0,
)
"""A pod of it serves one request a second and holds none back."""


def cluster(**changes: Any) -> Scenario:
    """One large node, one PLAIN application, no load, no way, no delay; ticks of one second, ten a step."""
    plain = Scenario(
        name="plain",
        nodes=(Node(1e6, 1e6),),
        applications=(PLAIN,),
        loads=(Load("flat", 0.0),),
        round_trip=((0.0,),),
        curve=NO_DELAY,
        interval=10.0,
    )
    return replace(plain, **changes)


def replicas(*counts: int) -> NDArray[np.int64]:
    """What is desired of the applications of one cluster, ``1 x D``."""
    return np.array([counts])


@dataclass(frozen=True)
class Clock:
    """What scenarios that are simulated together share."""

    steps: int
    interval: float
    tick: float


CLOCKS = st.builds(
    lambda steps, ticks, tick: Clock(steps, ticks * tick, tick),
    st.integers(1, 6),
    st.sampled_from([1, 1, 2, 5]),
    st.sampled_from([0.5, 1.0, 3.0]),
)


def spans(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most, allow_subnormal=False)


NODES = st.builds(Node, cpu=spans(50, 3000), memory=spans(50, 3000), network=spans(0.5, 50))
CURVES = st.builds(LatencyCurve, threshold=spans(0, 1), unit=spans(0, 2), base=spans(0, 1), slope=spans(0, 5))
FAILURES = st.builds(Failures, node_rate=spans(0, 1000), node_repair=spans(0, 20), pod_rate=spans(0, 2000))
WEIGHTS = st.builds(RewardWeights, *[spans(0, 100)] * 4)


@st.composite
def applications(draw: st.DrawFn) -> Application:
    least, first, most = sorted(draw(st.tuples(*[st.integers(0, 8)] * 3)))
    return Application(
        cpu_request=draw(spans(20, 500)),
        memory_request=draw(spans(20, 500)),
        request_cpu=draw(spans(1, 100)),
        base_memory=draw(spans(0, 300)),
        request_memory=draw(spans(0, 20)),
        request_traffic=draw(st.just(0.0) | spans(0, 2)),
        startup=draw(st.just(0.0) | spans(0, 20)),
        room=draw(st.just(0.0) | spans(0, 5)),
        replicas=first,
        min_replicas=least,
        max_replicas=most,
    )


@st.composite
def loads(draw: st.DrawFn, regions: int) -> Load:
    parts = draw(st.lists(st.integers(0, 5), min_size=regions, max_size=regions))
    shares = [part / sum(parts) for part in parts] if any(parts) else [1 / regions] * regions
    return Load(
        pattern=draw(st.sampled_from(["flat", "diurnal", "bursty", "step"])),
        rate=draw(spans(0, 60)),
        amplitude=draw(spans(0, 1)),
        period=draw(spans(5, 50)),
        phase=draw(spans(0, 1)),
        shares=tuple(shares),
    )


@st.composite
def scenarios(draw: st.DrawFn, clock: Clock) -> Scenario:
    nodes = draw(st.lists(NODES, min_size=1, max_size=4))
    regions = draw(st.integers(1, 3))
    deployments = draw(st.lists(applications(), min_size=1, max_size=3))
    ways = st.lists(spans(0, 0.5), min_size=len(nodes), max_size=len(nodes)).map(tuple)
    return Scenario(
        name="drawn",
        nodes=tuple(nodes),
        applications=tuple(deployments),
        loads=tuple(draw(loads(regions)) for _ in deployments),
        round_trip=tuple(draw(ways) for _ in range(regions)),
        reward=draw(WEIGHTS),
        threshold=draw(spans(0.01, 3)),
        timeout=draw(spans(0.1, 4)),
        curve=draw(CURVES),
        failures=draw(FAILURES),
        steps=clock.steps,
        interval=clock.interval,
        tick=clock.tick,
    )


BATCHES = CLOCKS.flatmap(lambda clock: st.lists(scenarios(clock), min_size=1, max_size=4))
"""Scenarios of different shapes that go by one clock."""


@dataclass(frozen=True)
class Actions:
    """What is done to E clusters in an episode: ``steps x E x D``, and ``steps x E x U x N`` or nothing."""

    desired: NDArray[np.int64]
    share: Array | None

    @staticmethod
    def random(simulation: Simulation, seed: int, spread: bool) -> "Actions":
        """Any replicas, out of bounds too, and shares of which half are 0."""
        generator = np.random.default_rng(seed)
        p = simulation.padded
        shape = (simulation.steps, p.count)
        share = generator.random((*shape, p.regions, p.nodes)) * generator.integers(
            0, 2, (*shape, p.regions, p.nodes)
        )
        return Actions(generator.integers(-1, 11, (*shape, p.applications)), share if spread else None)

    def of(self, number: int, scenario: Scenario) -> "Actions":
        """What is done to one of the clusters, without the padding."""
        one = slice(number, number + 1)
        regions, nodes = len(scenario.round_trip), len(scenario.nodes)
        return Actions(
            self.desired[:, one, : len(scenario.applications)],
            None if self.share is None else self.share[:, one, :regions, :nodes],
        )


def course(simulation: Simulation, actions: Actions) -> Iterator[tuple[Snapshot, Outcome]]:
    """Moves to the end; gives what each step led to."""
    for step in range(simulation.steps):
        outcome = simulation.step(
            actions.desired[step], None if actions.share is None else actions.share[step]
        )
        yield simulation.snapshot(), outcome


def arrays(seen: Snapshot | Outcome) -> dict[str, Array]:
    """All that was seen, by name."""
    return {entry.name: getattr(seen, entry.name) for entry in fields(seen)}


SHAPES = {
    "application": "D", "desired": "D", "ready": "D", "starting": "D", "pending": "D", "min_replicas": "D",
    "max_replicas": "D", "request_rate": "D", "cpu_usage": "D", "memory_usage": "D", "latency": "D",
    "refused": "D", "waiting": "D", "node": "N", "node_cpu_reserved": "N", "node_memory_reserved": "N",
    "node_cpu": "N", "node_memory": "N", "node_received": "N", "node_sent": "N", "node_latency": "N",
    "serving": "DN", "region_rate": "U", "round_trip": "UN",
}  # fmt: skip
"""What the axes of a snapshot's arrays count, beyond E."""


def cut(name: str, values: Array, number: int, scenario: Scenario) -> Array:
    """The part of a snapshot's array that is no padding, of one cluster."""
    sizes = {"D": len(scenario.applications), "N": len(scenario.nodes), "U": len(scenario.round_trip)}
    return values[(number, *(slice(sizes[axis]) for axis in SHAPES.get(name, "")))]
