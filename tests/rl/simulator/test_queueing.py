"""The queue against theory: with ticks as long as a request takes, c pods on one node are the queue M/D/c.

What is in the system at the ends of the ticks, N, is then Crommelin's chain N' = max(N − c, 0) + Poisson(λ).
Its stationary distribution is computed here; for c = 1 the mean is Pollaczek and Khinchine's
ρ + ρ² / (2 (1 − ρ)). Standard errors are those of means over independent clusters.
"""

from dataclasses import replace

import numpy as np
import pytest

from innerloop.rl.simulator import Load, Node, Simulation
from rl.simulator.clusters import PLAIN, Array, cluster, replicas

CLUSTERS, WARM_UP, STEPS = 512, 400, 300
ERRORS = 4.0


def queue(pods: int, rate: float, room: float = 1e6, clusters: int = CLUSTERS) -> Simulation:
    """Clusters with this many pods on a node, each of which serves one request a tick of a second."""
    application = replace(PLAIN, replicas=pods, max_replicas=pods, room=room)
    scenario = cluster(
        applications=(application,),
        loads=(Load("flat", rate),),
        steps=WARM_UP + STEPS,
        interval=1.0,
        timeout=1e9,
    )
    return Simulation([scenario] * clusters, range(clusters))


def in_system(pods: int, rate: float) -> Array:
    """Requests in the system at the end of each tick after the warm-up, ``STEPS x CLUSTERS``."""
    simulation, rows = queue(pods, rate), []
    while not simulation.done:
        served = simulation.served.copy()
        simulation.step(replicas(pods))
        rows.append((simulation.in_hand + simulation.served - served)[:, 0])
    return np.array(rows[WARM_UP:])


def stationary(pods: int, rate: float, size: int = 200) -> Array:
    """The stationary distribution of Crommelin's chain, cut off at a size."""
    arrivals = np.zeros(size)
    arrivals[0] = np.exp(-rate)
    for count in range(1, size):
        arrivals[count] = arrivals[count - 1] * rate / count
    moves = np.zeros((size, size))
    for now in range(size):
        left = max(now - pods, 0)
        moves[now, left:] = arrivals[: size - left]
        moves[now, -1] += 1 - moves[now].sum()
    system = np.vstack([moves.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)[0]


def assert_mean(values: Array, expected: float) -> None:
    """The mean over independent clusters is the expected one, within its standard errors."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - expected) < ERRORS * error
    assert error < 0.03 * expected  # or the test could not tell


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_pollaczek_khinchine(load: float) -> None:
    assert_mean(in_system(1, load).mean(0), load + load**2 / (2 * (1 - load)))


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("pods", [1, 2, 4])
def test_crommelin(pods: int, load: float) -> None:
    expected = stationary(pods, pods * load)
    assert expected[-1] < 1e-9
    counts = in_system(pods, pods * load)
    assert_mean(counts.mean(0), float(expected @ np.arange(len(expected))))
    assert (counts == counts.round()).all()
    for number in np.flatnonzero(expected > 0.003):
        of_each = (counts == number).mean(0)
        error = of_each.std(ddof=1) / np.sqrt(CLUSTERS)
        assert abs(of_each.mean() - expected[number]) < ERRORS * error, number


def test_the_chain_knows_pollaczek_khinchine() -> None:
    expected = stationary(1, 0.8)
    assert expected.sum() == pytest.approx(1)
    assert expected @ np.arange(len(expected)) == pytest.approx(0.8 + 0.8**2 / (2 * 0.2))


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_latency_is_service_and_the_wait_of_littles_law(load: float) -> None:
    """W = 1 + ρ / (2 (1 − ρ)) of a service time."""
    simulation = queue(1, load)
    seconds, requests = np.zeros(CLUSTERS), np.zeros(CLUSTERS)
    while not simulation.done:
        outcome = simulation.step(replicas(1))
        if simulation.step_number > WARM_UP:
            seconds += outcome.latency * outcome.requests
            requests += outcome.requests
    assert_mean(seconds / requests, 1 + load / (2 * (1 - load)))


def test_below_capacity_all_is_served() -> None:
    simulation = queue(2, 1.5)
    while not simulation.done:
        simulation.step(replicas(2))
    assert not simulation.refused.any()
    assert_mean(simulation.served[:, 0] / simulation.steps, 1.5)


@pytest.mark.parametrize(("pods", "load"), [(1, 1.25), (2, 1.5), (4, 3.0)])
def test_in_overload_the_rest_is_refused(pods: int, load: float) -> None:
    """The pods serve what they can, and 1 − 1/ρ is refused."""
    simulation = queue(pods, pods * load, room=20.0)
    while simulation.step_number < WARM_UP:
        simulation.step(replicas(pods))
    before = [values[:, 0].copy() for values in (simulation.arrived, simulation.served, simulation.refused)]
    while not simulation.done:
        simulation.step(replicas(pods))
    now = [values[:, 0] for values in (simulation.arrived, simulation.served, simulation.refused)]
    arrived, served, refused = (late - early for late, early in zip(now, before, strict=True))
    assert served.mean() == pytest.approx(pods * STEPS, rel=1e-3)
    assert served.max() <= pods * STEPS
    assert_mean(refused / arrived, 1 - 1 / load)
    assert (simulation.in_hand <= pods * 20).all()


def test_the_network_holds_back_what_the_pods_could_serve() -> None:
    """10 Mbit a second and one a request; what has no traffic is not held back, there or elsewhere."""
    heavy = replace(PLAIN, cpu_request=10_000, request_traffic=1.0, room=0.05)
    light = replace(PLAIN, cpu_request=10_000)
    scenario = cluster(
        nodes=(Node(1e6, 1e6, 10.0), Node(1e6, 1e6, 1000.0)),
        applications=(heavy, light, light),
        loads=(Load("flat", 60.0), Load("flat", 40.0), Load("flat", 40.0)),
        round_trip=((0.0, 0.0),),
        interval=1.0,
    )
    simulation = Simulation([scenario], [0])
    # Least-allocated puts the three pods on nodes 0, 1 and 0.
    assert simulation.snapshot().serving[0].tolist() == [[1, 0], [0, 1], [1, 0]]
    for step in range(1, 11):
        simulation.step(replicas(1, 1, 1))
        assert simulation.served[0, 0] == pytest.approx(10 * step)
        assert simulation.snapshot().node_received[0].tolist() == pytest.approx([1.0, 0.0])
        assert simulation.snapshot().node_sent[0].tolist() == pytest.approx([1.0, 0.0])
    assert simulation.served[0, 1:].tolist() == simulation.arrived[0, 1:].tolist()
    assert (simulation.served[0, 1:] > 300).all()
    assert simulation.in_hand[0].tolist() == pytest.approx([5.0, 0.0, 0.0])  # what its room holds
