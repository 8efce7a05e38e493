"""Pods to the tick: when new ones serve, which are taken away, where they are placed, what failures do."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.rl.simulator import Failures, Load, Node, RewardWeights, Simulation
from rl.simulator.clusters import PLAIN, Array, cluster, replicas

INTERVAL = 10.0


def busy(startup: float, tick: float = 1.0, steps: int = 12) -> Simulation:
    """Far more requests than the pods can serve, so that what was served counts the seconds pods served."""
    return Simulation(
        [
            cluster(
                applications=(replace(PLAIN, startup=startup),),
                loads=(Load("flat", 2000.0),),
                interval=INTERVAL,
                tick=tick,
                steps=steps,
            )
        ],
        [0],
    )


# Starting


@pytest.mark.parametrize(
    ("startup", "first_step", "seconds"),
    [
        (0, 0, 10),
        (3, 0, 7),
        (3.2, 0, 6),  # at the next tick
        (9.5, 1, 10),
        (10, 1, 10),
        (14, 1, 6),
        (20, 2, 10),
        (37, 3, 3),
    ],
)
def test_a_new_pod_serves_after_its_start_up(startup: float, first_step: int, seconds: float) -> None:
    simulation = busy(startup)
    for step in range(6):
        before = simulation.served[0, 0]
        simulation.step(replicas(2))
        of_new = simulation.served[0, 0] - before - INTERVAL
        assert of_new == pytest.approx(
            0 if step < first_step else seconds if step == first_step else INTERVAL
        )
        seen = simulation.snapshot()
        assert (seen.ready[0, 0], seen.starting[0, 0]) == ((1, 1) if step < first_step else (2, 0))


@settings(max_examples=60)
@given(
    startup=st.integers(0, 220).map(lambda quarters: quarters / 4),
    tick=st.sampled_from([0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
    added=st.lists(st.integers(0, 2), min_size=1, max_size=3),
)
def test_pods_added_at_several_steps_each_serve_after_their_start_up(
    startup: float, tick: float, added: list[int]
) -> None:
    simulation = busy(startup, tick)
    total, begins = 1, [0.0]
    for step in range(simulation.steps):
        if step < len(added):
            total += added[step]
            begins += [np.ceil((step * INTERVAL + startup) / tick) * tick] * added[step]
        simulation.step(replicas(total))
        now = (step + 1) * INTERVAL
        assert simulation.served[0, 0] == pytest.approx(sum(max(0.0, now - begin) for begin in begins))


# Taking away


def test_those_that_serve_least_go_first() -> None:
    """Pending pods, then the youngest that start; the older of two keeps its date."""
    application = replace(PLAIN, startup=95, replicas=2)
    simulation = Simulation([cluster(nodes=(Node(400, 1e6),), applications=(application,))], [0])

    def counts(desired: int) -> tuple[float, ...]:
        simulation.step(replicas(desired))
        seen = simulation.snapshot()
        return tuple(float(values[0, 0]) for values in (seen.ready, seen.starting, seen.pending))

    assert counts(3) == (2, 1, 0)
    assert counts(4) == (2, 2, 0)
    assert counts(6) == (2, 2, 2)
    assert counts(5) == (2, 2, 1)
    assert counts(4) == (2, 2, 0)
    assert counts(3) == (2, 1, 0)
    assert [counts(3) for _ in range(3)] == [(2, 1, 0)] * 3
    assert counts(3) == (3, 0, 0)  # 95 s after the first step's; the second step's would start 10 s later
    assert counts(1) == (1, 0, 0)


def test_ready_pods_go_from_the_fullest_node() -> None:
    simulation = Simulation(
        [
            cluster(
                nodes=(Node(100, 1e6), Node(300, 1e6)),
                applications=(replace(PLAIN, replicas=4),),
                round_trip=((0.0, 0.0),),
            )
        ],
        [0],
    )
    served = [simulation.snapshot().serving[0, 0].tolist()]
    for desired in (3, 2, 1):
        simulation.step(replicas(desired))
        served.append(simulation.snapshot().serving[0, 0].tolist())
    assert served[:3] == [[1, 3], [1, 2], [1, 1]]
    assert sum(served[3]) == 1


def test_pods_that_go_hand_over_what_they_have() -> None:
    """What waits at a removed pod goes to the others as far as their room allows; the rest is refused."""
    application = replace(PLAIN, replicas=4, min_replicas=0, room=10)
    loads = (Load("step", 100.0, amplitude=-1.0, phase=0.5),)
    scenario = cluster(applications=(application,), loads=loads, steps=2, interval=1.0)
    for desired, waits, refused in ((4, 36, 0), (2, 20, 18), (1, 10, 29), (0, 0, 40)):
        simulation = Simulation([scenario], [0])
        simulation.step(replicas(4))
        assert simulation.in_hand[0, 0] == 40
        outcome = simulation.step(replicas(desired))
        assert (simulation.in_hand[0, 0], outcome.refused[0]) == (waits, refused)  # each pod serves one first
        assert (outcome.requests[0], outcome.violations[0]) == (0, 0)  # they were judged when they came


def test_desired_is_rounded_and_clipped() -> None:
    application = replace(PLAIN, replicas=3, min_replicas=2, max_replicas=6)
    simulation = Simulation([cluster(applications=(application,))], [0])
    for desired, expected in ((-5.0, 2), (3.4, 3), (3.6, 4), (99.0, 6)):
        simulation.step(np.array([[desired]]))
        assert simulation.snapshot().ready[0, 0] == expected
        assert simulation.snapshot().pending[0, 0] == 0


# Placing


def test_what_finds_no_place_waits_for_one() -> None:
    weights = RewardWeights(latency=0, replica=0.5, variance=0, misfit=7)
    scenario = cluster(
        nodes=(Node(400, 1e6),),
        applications=(replace(PLAIN, replicas=4), replace(PLAIN, cpu_request=150, request_cpu=150)),
        loads=(Load("flat", 0.0),) * 2,
        reward=weights,
    )
    simulation = Simulation([scenario], [0])
    assert simulation.snapshot().pending[0].tolist() == [0, 1]
    outcomes = [simulation.step(replicas(first, 1)) for first in (4, 3, 2, 2)]
    assert [float(outcome.misfit[0]) for outcome in outcomes] == [1, 1, 0, 0]
    assert [float(outcome.reward[0]) for outcome in outcomes] == [-7 - 1.25, -7 - 1.0, -0.75, -0.75]
    assert simulation.snapshot().ready[0].tolist() == [2, 1]
    assert simulation.snapshot().node_cpu_reserved[0, 0] == pytest.approx(350 / 400)


@pytest.mark.parametrize(
    ("cpu", "memory", "fits"), [(300, 1e6, 3), (299, 1e6, 2), (1e6, 300, 3), (1e6, 299, 2)]
)
def test_both_resources_limit(cpu: float, memory: float, fits: int) -> None:
    application = replace(PLAIN, replicas=5)
    seen = Simulation([cluster(nodes=(Node(cpu, memory),), applications=(application,))], [0]).snapshot()
    assert (seen.ready[0, 0], seen.pending[0, 0]) == (fits, 5 - fits)


@pytest.mark.parametrize(("balanced", "first", "second"), [(False, [0, 1], [1, 1]), (True, [1, 0], [2, 0])])
def test_scores(balanced: bool, first: list[float], second: list[float]) -> None:
    """By hand, 500 millicores and MiB on nodes of 1000 and 1000, and of 1000 and 4000.

    Least allocated: 50 against 68.75, then 50 against 37.5. Balanced: 100 against 62.5, then the same again.
    """
    scenario = cluster(
        nodes=(Node(1000, 1000), Node(1000, 4000)),
        applications=(replace(PLAIN, cpu_request=500, memory_request=500, startup=5),),
        round_trip=((0.0, 0.0),),
    )
    simulation = Simulation([scenario], [0], balanced)
    assert simulation.snapshot().serving[0, 0].tolist() == first
    simulation.step(replicas(2))
    assert simulation.snapshot().serving[0, 0].tolist() == second
    assert simulation.snapshot().node_memory_reserved[0].tolist() == [second[0] / 2, second[1] / 8]


# Failing


def placed(simulation: Simulation) -> Array:
    """Pods of the first application on each node, ``E x N``."""
    return (simulation.pods.ready + simulation.pods.starting)[:, 0]


def absences(rows: Array) -> list[int]:
    """How many steps in a row each row holds 0, but for those that the end cuts off."""
    runs = [[(state, sum(1 for _ in run)) for state, run in itertools.groupby(row)][:-1] for row in rows]
    return [length for row in runs for state, length in row if not state]


def assert_frequency(up: Array, chance: float) -> None:
    """How often 1 is followed by 0 along the rows, within four standard errors."""
    chances = up[:, :-1].sum()
    assert abs(up[:, :-1][up[:, 1:] == 0].sum() / chances - chance) < 4 * np.sqrt(
        chance * (1 - chance) / chances
    )


def failing(**changes: Any) -> Simulation:
    """64 clusters of four pods on two nodes, which fail in one step of ten and are back after four."""
    application = replace(PLAIN, replicas=4, startup=15)
    scenario = cluster(
        applications=(application,),
        nodes=(Node(600, 1e6), Node(600, 1e6)),
        round_trip=((0.0, 0.0),),
        failures=Failures(node_rate=36, node_repair=37),
        steps=60,
    )
    return Simulation([replace(scenario, **changes)] * 64, range(64))


def test_pods_of_a_failed_node_start_on_another() -> None:
    simulation = failing()
    up, moves, returns = np.ones((64, 2)), 0, 0
    while not simulation.done:
        before = placed(simulation)
        simulation.step(np.full((64, 1), 4))
        seen, after = simulation.snapshot(), placed(simulation)
        for e, (was, now) in enumerate(zip(up, seen.node, strict=True)):
            if was.all() and now.sum() == 1:
                gone, stays = now.argmin(), now.argmax()
                assert (after[e, gone], after[e, stays], seen.pending[e, 0]) == (0, 4, 0)
                assert simulation.pods.starting[e, 0, stays] >= before[e, gone]  # they start anew
                moves += 1
            elif was.sum() == 1 and now.all():
                assert after[e, was.argmin()] == 0  # back, and empty
                returns += 1
        up = seen.node
    assert min(moves, returns) > 50


def test_pods_of_a_failed_node_wait_where_no_other_has_room() -> None:
    simulation = failing(nodes=(Node(200, 1e6), Node(200, 1e6)))
    waited = 0
    while not simulation.done:
        outcome = simulation.step(np.full((64, 1), 4))
        seen = simulation.snapshot()
        # As soon as a node is back its two pods are placed there again.
        assert (seen.pending[:, 0] == 4 - 2 * seen.node.sum(1)).all()
        assert (outcome.misfit == (seen.node.sum(1) < 2)).all()
        assert (placed(simulation) == 2 * seen.node).all()
        waited += int(outcome.misfit.sum())
    assert waited > 100


def test_how_often_nodes_fail_and_for_how_long() -> None:
    simulation = failing(steps=200)
    rows = []
    while not simulation.done:
        simulation.step(np.full((64, 1), 4))
        rows.append(simulation.snapshot().node)
    up = np.array(rows).reshape(len(rows), -1).T
    assert_frequency(up, 0.1)
    lengths = absences(up)
    assert min(lengths) == 4  # 37 s are four steps; more if it fails again meanwhile
    assert np.bincount(lengths).argmax() == 4


def test_a_crashed_pod_starts_anew_in_its_place() -> None:
    """One pod, and a crash every tenth step on average; then it is away for its start-up of two steps."""
    application = replace(PLAIN, startup=20, room=30, request_cpu=50)
    scenario = cluster(
        applications=(application,),
        loads=(Load("flat", 2.5),),
        failures=Failures(pod_rate=36),
        steps=100,
    )
    simulation = Simulation([scenario] * 64, range(64))
    ready, lost = [np.ones(64)], 0.0
    while not simulation.done:
        waited = simulation.in_hand[:, 0].copy()
        outcome = simulation.step(np.ones((64, 1)))
        seen = simulation.snapshot()
        assert not seen.pending.any()
        assert (seen.ready + seen.starting == 1).all()
        crashed = (seen.ready[:, 0] == 0) & (ready[-1] == 1)
        assert outcome.refused[crashed] == pytest.approx((outcome.requests + waited)[crashed])
        assert (outcome.violations[crashed] == outcome.requests[crashed]).all()
        assert (simulation.in_hand[crashed] == 0).all()
        lost += waited[crashed].sum()
        ready.append(seen.ready[:, 0])
    assert lost > 0
    assert set(absences(np.array(ready).T)) == {2}
    assert_frequency(np.array(ready).T, 1 - np.exp(-0.1))


def test_a_crashed_pod_keeps_its_node_where_the_scheduler_would_choose_another() -> None:
    """Pods are on nodes of 300 and 210 as [2, 2], then [1, 2]; of those on the second one crashes."""
    application = replace(PLAIN, startup=5, replicas=4)
    scenario = cluster(
        nodes=(Node(300, 1e6), Node(210, 1e6)),
        applications=(application,),
        round_trip=((0.0, 0.0),),
        failures=Failures(pod_rate=90),
        interval=2.0,
        steps=50,
    )
    simulation = Simulation([scenario] * 64, range(64))
    assert (placed(simulation) == [2, 2]).all()
    whole = []
    while not simulation.done:
        simulation.step(np.full((64, 1), 3))
        assert (placed(simulation) == [1, 2]).all()
        whole.append(simulation.snapshot().ready[:, 0] == 3)
    assert_frequency(np.array(whole, dtype=float).T, 1 - np.exp(-0.05))


def test_a_crashed_pod_loses_its_part_of_what_waits() -> None:
    """Two pods on a node; requests come for two ticks, and then they work off what waits."""
    application = replace(PLAIN, startup=100, room=30, replicas=2)
    scenario = cluster(
        applications=(application,),
        loads=(Load("step", 12.0, amplitude=-1.0, phase=0.1),),
        failures=Failures(pod_rate=360),
        interval=1.0,
        steps=20,
    )
    simulation = Simulation([scenario] * 64, range(64))
    halved = 0
    while not simulation.done:
        ready, waited = simulation.snapshot().ready[:, 0], simulation.in_hand[:, 0].copy()
        outcome = simulation.step(np.full((64, 1), 2))
        if simulation.step_number > 2:
            now = simulation.snapshot().ready[:, 0]
            kept = now / np.maximum(ready, 1)
            lost = np.where(ready > 0, waited * (1 - kept), 0)
            assert outcome.refused == pytest.approx(lost)
            assert not outcome.violations.any()  # they were judged when they came
            halved += int(((kept == 0.5) & (waited > 0)).sum())
    assert halved > 20
