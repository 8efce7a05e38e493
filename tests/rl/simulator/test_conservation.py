"""What must hold of any cluster at any time, whatever comes, breaks and is done."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from innerloop.rl.simulator import Application, Failures, Load, Node, Scenario, Simulation
from rl.simulator.clusters import BATCHES, SEEDS, SHAPES, Actions, arrays, course

ROUNDING = 1e-9
HARSH = Scenario(
    name="harsh",
    nodes=(Node(400, 1000, 2), Node(300, 500, 50), Node(100, 90)),
    applications=(Application(startup=6, replicas=3), Application(startup=0, request_traffic=0, room=0.3)),
    loads=(Load("bursty", 90, 4, 20), Load("flat", 30)),
    round_trip=((0.0, 0.1, 0.3),),
    failures=Failures(node_rate=100, node_repair=20, pod_rate=200),
    steps=40,
    interval=4,
)
"""Where everything happens: too little room, network and capacity, and much that breaks."""


@settings(max_examples=150)
@example(batch=[HARSH] * 4, seed=0, spread=False, balanced=False)
@example(batch=[HARSH] * 4, seed=1, spread=True, balanced=True)
@given(batch=BATCHES, seed=SEEDS, spread=st.booleans(), balanced=st.booleans())
def test_invariants(batch: list[Scenario], seed: int, spread: bool, balanced: bool) -> None:
    simulation = Simulation(batch, range(seed, seed + len(batch)), balanced)
    actions = Actions.random(simulation, seed, spread)
    p = simulation.padded
    counts = [np.zeros_like(simulation.arrived)] * 3
    for step, (seen, outcome) in enumerate(course(simulation, actions)):
        before, counts = (
            counts,
            [simulation.arrived.copy(), simulation.served.copy(), simulation.refused.copy()],
        )

        # Requests
        arrived, served, refused = counts
        assert_allclose(served + refused + simulation.in_hand, arrived, rtol=ROUNDING, atol=ROUNDING)
        assert all((now >= then).all() for now, then in zip(counts, before, strict=True))
        assert_allclose(outcome.requests, (arrived - before[0]).sum(1))
        assert_allclose(outcome.refused, (refused - before[2]).sum(1), atol=ROUNDING)
        assert (outcome.violations <= outcome.requests * (1 + ROUNDING)).all()
        assert (outcome.latency <= p.timeout * (1 + ROUNDING)).all()
        for name, values in (arrays(seen) | {"violations": outcome.violations}).items():
            assert np.isfinite(values).all(), name
            assert (values >= 0).all(), name
        capacity = simulation.pods.ready * p.capacity[:, :, None]
        assert (simulation.queues.backlog <= capacity * p.room[:, :, None] * (1 + ROUNDING)).all()
        assert (seen.waiting <= p.room * (1 + ROUNDING)).all()

        # Pods
        assert_array_equal(seen.desired, np.clip(actions.desired[step], p.min_replicas, p.max_replicas))
        assert_array_equal(seen.ready + seen.starting + seen.pending, seen.desired)
        assert_array_equal(seen.serving.sum(2), seen.ready)
        placed = seen.serving + simulation.pods.starting
        for asks, holds in ((p.cpu_request, p.node_cpu), (p.memory_request, p.node_memory)):
            assert ((placed * asks[:, :, None]).sum(1) <= holds * (1 + ROUNDING)).all()
        assert not (placed * (seen.node == 0)[:, None]).any()
        down = (seen.node == 0) & (p.node == 1)
        assert_array_equal(simulation.pods.up, (p.node == 1) & ~down)

        # Shares
        for name in (
            "cpu_usage", "memory_usage", "refused", "node_cpu_reserved", "node_memory_reserved", "node_cpu",
            "node_memory", "node_received",
        ):  # fmt: skip
            assert (arrays(seen)[name] <= 1 + ROUNDING).all(), name

        # Padding
        axes = {"D": p.application, "N": p.node}
        for name, shape in SHAPES.items():
            for axis, letter in enumerate(shape):
                if letter in axes:
                    values = np.moveaxis(arrays(seen)[name], axis + 1, 1)
                    assert not values[axes[letter] == 0].any(), name


def test_the_harsh_example_is_harsh() -> None:
    """All that the invariants are about does happen there, so that they are not met by nothing happening."""
    simulation = Simulation([HARSH] * 4, range(4))
    seen = [snapshot for snapshot, _ in course(simulation, Actions.random(simulation, 0, False))]
    assert any((snapshot.node == 0).any() for snapshot in seen)
    assert any(snapshot.pending.any() for snapshot in seen)
    assert any(snapshot.starting.any() for snapshot in seen)
    assert max(snapshot.node_received.max() for snapshot in seen) > 0.999
    assert max(snapshot.waiting.max() for snapshot in seen) > 0.299
    assert (simulation.refused > 0).all()
    assert (simulation.served > 0).all()
