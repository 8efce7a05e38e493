"""What a request and a step cost: the latency curve, ways and timeouts, what is seen, and the reward."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.rl.simulator import (
    Application,
    LatencyCurve,
    Load,
    Node,
    RewardWeights,
    Scenario,
    Simulation,
)
from rl.simulator.clusters import BATCHES, NO_DELAY, PLAIN, SEEDS, Actions, cluster, course, replicas

FAST = replace(PLAIN, request_cpu=0.1)
"""A thousand requests a second."""

# The curve


def test_the_curve_is_nothing_then_jumps_then_rises() -> None:
    """The predecessor's: 0.5 s · (0.05 + 3 · (load − 0.7)) above 0.7."""
    loads = np.array([0.0, 0.5, 0.7, np.nextafter(0.7, 1), 0.8, 0.9, 1.0])
    expected = [0.0, 0.0, 0.0, 0.025, 0.175, 0.325, 0.475]
    assert LatencyCurve().delay(loads) == pytest.approx(expected)


def test_the_curve_takes_parameters_of_many_clusters() -> None:
    curve = LatencyCurve(np.array([[0.5], [0.9]]), np.array([[1.0], [2.0]]), 0.0, np.array([[2.0], [10.0]]))
    assert curve.delay(np.array([[0.6, 0.4], [1.0, 0.8]])) == pytest.approx(np.array([[0.2, 0], [2, 0]]))


def test_each_cluster_has_its_own_curve() -> None:
    """All of the CPU in use and half of the memory: the load is 0.75."""
    application = replace(PLAIN, base_memory=50, room=0)
    curves = [LatencyCurve(), LatencyCurve(0.5, 1.0, 0.1, 2.0), LatencyCurve(0.75), NO_DELAY]
    delays = [0.5 * (0.05 + 3 * 0.05), 0.1 + 2 * 0.25, 0.0, 0.0]
    many = [
        cluster(applications=(application,), loads=(Load("flat", 50.0),), curve=curve, timeout=9.0)
        for curve in curves
    ]
    simulation = Simulation(many, range(4))
    outcome = simulation.step(replicas(1))
    served = simulation.served[:, 0]
    expected = (served * (1 + np.array(delays)) + (outcome.requests - served) * 9) / outcome.requests
    assert outcome.latency == pytest.approx(expected)
    assert simulation.snapshot().node_latency[:, 0] == pytest.approx(1 + np.array(delays))


# Ways and timeouts


def test_an_idle_application_takes_its_service_and_the_way() -> None:
    """Two regions and two nodes; every region's requests go where they are sent."""
    scenario = cluster(
        nodes=(Node(100, 1e6), Node(100, 1e6)),
        applications=(replace(FAST, replicas=2),),
        loads=(Load("flat", 20.0, shares=(0.25, 0.75)),),
        round_trip=((0.01, 0.2), (0.3, 0.05)),
        threshold=0.1,
    )
    home, away = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]
    for share, ways, late in ((home, (0.01, 0.05), 0), (away, (0.2, 0.3), 1)):
        simulation = Simulation([scenario], [0])
        outcome = simulation.step(replicas(2), np.array([share]))
        came = simulation.snapshot().region_rate[0] * 10
        assert outcome.latency[0] == pytest.approx(0.001 + came @ ways / came.sum())
        assert outcome.violations[0] == pytest.approx(late * outcome.requests[0])
        assert simulation.snapshot().node_latency[0] == pytest.approx([0.001, 0.001])
    even = Simulation([scenario], [0])
    outcome = even.step(replicas(2))
    came = even.snapshot().region_rate[0] * 10
    assert outcome.latency[0] == pytest.approx(0.001 + came @ (0.105, 0.175) / came.sum())
    assert outcome.violations[0] == pytest.approx(came.sum() / 2)


def test_shares_go_only_to_nodes_with_pods() -> None:
    """As if they were asked for in proportion; a region that wants no such node is spread over the pods."""
    scenario = cluster(
        nodes=(Node(200, 1e6), Node(100, 1e6), Node(50, 1e6)),
        applications=(replace(PLAIN, replicas=3, room=1e6),),
        loads=(Load("flat", 300.0, shares=(0.5, 0.5)),),
        round_trip=((0.0, 0.0, 0.0),) * 2,
        timeout=1e9,
    )
    simulation = Simulation([scenario], [0])
    assert simulation.snapshot().serving[0, 0].tolist() == [2, 1, 0]
    simulation.step(replicas(3), np.array([[[1.0, 3.0, 4.0], [0.0, 0.0, 9.0]]]))
    first, second = simulation.snapshot().region_rate[0] * 10
    held = simulation.queues.backlog[0, 0] + [20, 10, 0]
    assert held == pytest.approx([first / 4 + second * 2 / 3, first * 3 / 4 + second / 3, 0])


def test_without_a_pod_every_request_is_refused_at_the_timeout() -> None:
    application = replace(FAST, min_replicas=0)
    weights = RewardWeights(latency=3, replica=1, variance=1, misfit=1)
    loads = (Load("flat", 20.0),)
    scenario = cluster(
        applications=(application,), loads=loads, round_trip=((0.5,),), timeout=1.5, reward=weights
    )
    simulation = Simulation([scenario], [0])
    outcome = simulation.step(replicas(0))
    assert outcome.requests[0] == outcome.refused[0] == outcome.violations[0] > 100
    assert outcome.latency[0] == pytest.approx(1.5)
    assert outcome.reward[0] == pytest.approx(-4.5)
    seen = simulation.snapshot()
    assert (seen.refused[0, 0], seen.latency[0, 0]) == (1, pytest.approx(1.5))
    assert not simulation.served.any()


def test_a_refused_request_counts_as_the_timeout() -> None:
    """Whatever its way; one that is served does not count as more either."""
    scenario = cluster(loads=(Load("flat", 50.0),), round_trip=((0.75,),), threshold=1.8)
    for timeout, served_in in ((4.0, 1.75), (1.5, 1.5)):
        simulation = Simulation([replace(scenario, timeout=timeout)], [0])
        outcome = simulation.step(replicas(2))
        served, refused, requests = simulation.served[0, 0], outcome.refused[0], outcome.requests[0]
        assert served == 20
        assert outcome.latency[0] == pytest.approx((served * served_in + refused * timeout) / requests)
        assert outcome.violations[0] == pytest.approx(refused)


def test_who_waits_meets_what_waits_in_the_middle_of_the_tick() -> None:
    """A pod takes one request a second off, and nothing is refused."""
    application = replace(PLAIN, room=1000)
    scenario = cluster(applications=(application,), loads=(Load("flat", 5.0),), interval=1.0, timeout=100.0)
    simulation = Simulation([scenario] * 20, range(20))
    for _ in range(5):
        before = simulation.in_hand[:, 0].copy()
        outcome = simulation.step(replicas(1))
        after = simulation.in_hand[:, 0]
        came = outcome.requests > 0
        assert outcome.latency[came] == pytest.approx((1 + (before + after) / 2)[came])
        assert simulation.snapshot().waiting[:, 0] == pytest.approx(after)


# What is seen


def test_usage_by_hand() -> None:
    """Two pods of 200 millicores and 100 MiB on a node of 1000 and 400; 20 MiB, and 10 a request in hand."""
    application = Application(
        cpu_request=200,
        memory_request=100,
        request_cpu=50,
        base_memory=20,
        request_memory=10,
        request_traffic=2,
        replicas=2,
        room=1,
    )
    loads = (Load("flat", 10.0),)
    scenario = cluster(nodes=(Node(1000, 400, 40),), applications=(application,), loads=loads, interval=1.0)
    simulation = Simulation([scenario] * 50, range(50))
    for _ in range(5):
        waited, served = simulation.in_hand[:, 0].copy(), simulation.served[:, 0].copy()
        outcome = simulation.step(replicas(2))
        hand = waited + outcome.requests
        done = simulation.served[:, 0] - served
        assert done == pytest.approx(np.minimum(hand, 8))
        seen = simulation.snapshot()
        memory = np.minimum(0.2 + hand / 2 * 0.1, 1)
        assert seen.request_rate[:, 0] == pytest.approx(outcome.requests)
        assert seen.cpu_usage[:, 0] == pytest.approx(done * 50 / 400)
        assert seen.memory_usage[:, 0] == pytest.approx(memory)
        assert seen.node_cpu[:, 0] == pytest.approx(done * 50 / 1000)
        assert seen.node_memory[:, 0] == pytest.approx(memory * 200 / 400)
        assert seen.node_received[:, 0] == pytest.approx(done * 2 / 40)
        assert seen.node_cpu_reserved[:, 0] == pytest.approx(0.4)
        assert seen.node_memory_reserved[:, 0] == pytest.approx(0.5)
        assert seen.waiting[:, 0] == pytest.approx(simulation.in_hand[:, 0] / 8)
        assert seen.refused[:, 0] * outcome.requests == pytest.approx(outcome.refused)
    assert simulation.refused.any()
    assert memory.max() == 1 > memory.min()


# The reward


def test_the_reward_by_hand() -> None:
    """One of two nodes does all the work of 100 requests a second: shares 0.05 and 0, variance 0.025²."""
    weights = RewardWeights(latency=2, replica=0.25, variance=1000, misfit=10)
    scenario = cluster(
        nodes=(Node(200, 1e6), Node(200, 1e6)),
        applications=(FAST, replace(PLAIN, replicas=4)),
        loads=(Load("flat", 100.0), Load("flat", 0.0)),
        round_trip=((0.1, 0.1),),
        reward=weights,
    )
    simulation = Simulation([scenario], [0])
    outcome = simulation.step(replicas(1, 4))
    share = outcome.requests[0] / 10 * 0.1 / 200
    assert share == pytest.approx(0.05, rel=0.1)
    assert outcome.latency[0] == pytest.approx(0.101)
    assert outcome.replicas[0] == 2.5
    assert outcome.variance[0] == pytest.approx((share / 2) ** 2)
    assert outcome.misfit[0] == 1  # the fifth pod has no place
    assert outcome.reward[0] == pytest.approx(-(2 * 0.101 + 0.25 * 2.5 + 1000 * (share / 2) ** 2 + 10))


@settings(max_examples=60)
@given(batch=BATCHES, seed=SEEDS, spread=st.booleans())
def test_the_reward_from_what_is_seen(batch: list[Scenario], seed: int, spread: bool) -> None:
    simulation = Simulation(batch, range(seed, seed + len(batch)))
    arrived = np.zeros_like(simulation.arrived)
    for seen, outcome in course(simulation, Actions.random(simulation, seed, spread)):
        came, arrived = simulation.arrived - arrived, simulation.arrived.copy()
        for e, scenario in enumerate(batch):
            latency = seen.latency[e] @ came[e] / came[e].sum() if came[e].sum() else 0.0
            pods = seen.desired[e].sum() / len(scenario.applications)
            usage = seen.node_cpu[e][seen.node[e] == 1]
            variance = float(np.var(usage)) if usage.size else 0.0
            misfit = float(seen.pending[e].any())
            weights = scenario.reward
            assert outcome.latency[e] == pytest.approx(latency)
            assert outcome.replicas[e] == pytest.approx(pods)
            assert outcome.variance[e] == pytest.approx(variance, abs=1e-12)
            assert outcome.misfit[e] == misfit
            assert outcome.reward[e] == pytest.approx(
                -(
                    weights.latency * latency
                    + weights.replica * pods
                    + weights.variance * variance
                    + weights.misfit * misfit
                ),
                abs=1e-9,
            )
