"""The other baselines: each against its one sentence, and the best fixed number against trying by hand."""

from dataclasses import replace

import numpy as np
import pytest

from innerloop.rl.baselines import (
    Balanced,
    Controller,
    GreedyLatency,
    LeastAllocated,
    RandomBalancing,
    RandomScaling,
    Static,
    best_static,
)
from innerloop.rl.simulator import Simulation
from rl.small import BALANCING, SCALING, course, scenarios

SCALED = course(scenarios(SCALING, 4))[2]
BALANCED = course(scenarios(BALANCING, 4))[3]


def test_static_keeps_what_there_is_or_a_fixed_number_within_bounds() -> None:
    assert Static().decide(SCALED) == (SCALED.desired, None)
    replicas, share = Static(7).decide(SCALED)
    assert share is None
    np.testing.assert_array_equal(replicas, np.clip(7, SCALED.min_replicas, SCALED.max_replicas))
    assert (replicas[SCALED.application == 0] == 0).all()
    replicas, _ = Static([1, 2, 3, 100]).decide(SCALED)
    for cluster, wanted in enumerate((1, 2, 3, None)):
        there = SCALED.application[cluster] > 0
        most = SCALED.max_replicas[cluster, there]
        np.testing.assert_array_equal(replicas[cluster, there], most if wanted is None else wanted)


def test_random_scaling_draws_every_change_as_often_within_bounds() -> None:
    controller = RandomScaling(0, 2)
    free = replace(SCALED, min_replicas=np.zeros_like(SCALED.desired), max_replicas=SCALED.desired + 9)
    free = replace(free, desired=SCALED.desired + 3)
    changes = np.concatenate([(controller.decide(free)[0] - free.desired).ravel() for _ in range(200)])
    counts = np.array([(changes == change).sum() for change in range(-2, 3)])
    assert counts.sum() == changes.size
    assert (np.abs(counts / changes.size - 0.2) < 0.04).all()
    for _ in range(20):
        replicas, share = controller.decide(SCALED)
        assert share is None
        assert (replicas >= SCALED.min_replicas).all()
        assert (replicas <= SCALED.max_replicas).all()
    first, again, other = (RandomScaling(seed, 2).decide(SCALED)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_random_balancing_weighs_nodes_anew_and_leaves_out_those_that_are_down() -> None:
    node = BALANCED.node.copy()
    node[0, 0] = 0
    snapshot = replace(BALANCED, node=node)
    controller = RandomBalancing(0)
    (replicas, first), (_, second) = controller.decide(snapshot), controller.decide(snapshot)
    assert replicas is snapshot.desired
    for weights in (first, second):
        assert weights is not None
        up = np.broadcast_to(node[:, None, :] > 0, weights.shape)
        assert (weights[up] > 0).all()
        assert (weights[~up] == 0).all()
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("controller", "weight"),
    [
        (LeastAllocated(), lambda cpu, memory: ((1 - cpu) + (1 - memory)) / 2),
        (Balanced(), lambda cpu, memory: 1 - abs(cpu - memory)),
    ],
    ids=["least allocated", "balanced"],
)
def test_scores_of_the_scheduler_are_weights(controller: Controller, weight: object) -> None:
    cpu = np.where(
        BALANCED.node > 0, np.linspace(0.1, 0.9, BALANCED.node.size).reshape(BALANCED.node.shape), 0
    )
    memory = np.where(BALANCED.node > 0, 0.4, 0)
    snapshot = replace(BALANCED, node_cpu=cpu, node_memory=memory)
    replicas, weights = controller.decide(snapshot)
    assert replicas is snapshot.desired
    assert weights is not None
    assert weights.shape == snapshot.round_trip.shape
    for e, u, n in np.ndindex(weights.shape):
        expected = weight(cpu[e, n], memory[e, n]) if snapshot.node[e, n] else 0  # type: ignore[operator]
        assert weights[e, u, n] == pytest.approx(expected)


def test_a_full_node_still_weighs_something() -> None:
    full = replace(BALANCED, node_cpu=BALANCED.node * 1.0, node_memory=BALANCED.node * 1.0)
    _, weights = LeastAllocated().decide(full)
    assert weights is not None
    assert (weights[np.broadcast_to(full.node[:, None, :] > 0, weights.shape)] > 0).all()


def test_greedy_sends_everything_to_the_node_that_answers_soonest() -> None:
    serving = BALANCED.serving.copy()
    latency = np.random.default_rng(0).uniform(0, 0.1, BALANCED.node.shape)
    seconds = np.where(BALANCED.node[:, None] > 0, BALANCED.round_trip + latency[:, None], np.inf)
    soonest = int(seconds.argmin(2)[0, 0])
    serving[0, :, soonest] = 0  # it would be the best, if it had a pod
    snapshot = replace(BALANCED, serving=serving, node_latency=latency)
    replicas, share = GreedyLatency().decide(snapshot)
    assert replicas is snapshot.desired
    assert share is not None
    elsewhere = False
    for e, u in np.ndindex(share.shape[:2]):
        usable = [n for n in range(share.shape[2]) if snapshot.node[e, n] and serving[e, :, n].any()]
        best = min(usable, key=lambda n: snapshot.round_trip[e, u, n] + snapshot.node_latency[e, n])
        assert share[e, u].tolist() == [float(n == best) for n in range(share.shape[2])]
        elsewhere |= best != min(usable, key=lambda n: snapshot.round_trip[e, u, n])
    assert share[0, 0, soonest] == 0
    assert elsewhere


def test_the_best_fixed_number_is_the_best_of_all_tried_by_hand() -> None:
    best_numbers = set()
    for scenario in scenarios(SCALING, 6):
        seeds = (1, 2, 3)
        returns = {}
        for number in range(1, max(a.max_replicas for a in scenario.applications) + 1):
            total = 0.0
            for seed in seeds:
                simulation = Simulation([scenario], [seed])
                while not simulation.done:
                    wanted = [min(number, a.max_replicas) for a in scenario.applications]
                    total += float(simulation.step(np.array([wanted])).reward[0])
            returns[number] = total / len(seeds)
        found, value = best_static(scenario, seeds)
        assert found == max(returns, key=returns.__getitem__)
        assert value == pytest.approx(returns[found])
        best_numbers.add(found)
    assert len(best_numbers) > 1
