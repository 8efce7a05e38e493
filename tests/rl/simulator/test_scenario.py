"""What no simulation could run is refused with one clear line."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from innerloop.core.errors import InputError
from innerloop.rl.simulator import Failures, Load, Node, Scenario, Simulation
from rl.simulator.clusters import PLAIN, cluster, replicas


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": ()}, "at least one node, application and region"),
        ({"applications": (), "loads": ()}, "at least one node, application and region"),
        ({"round_trip": ()}, "at least one node, application and region"),
        ({"loads": (Load("flat", 1.0),) * 2}, "2 loads for 1 applications"),
        ({"round_trip": ((0.0, 0.0),)}, "a row of round_trip has 2 times for 1 nodes"),
        ({"round_trip": ((-0.1,),)}, "the times of round_trip must be 0 or more"),
        ({"round_trip": ((float("nan"),),)}, "the times of round_trip must be 0 or more"),
        ({"steps": 0}, "steps must be above 0"),
        ({"tick": 0.0}, "tick must be above 0, not 0.0"),
        ({"interval": float("inf")}, "interval must be above 0, not inf"),
        ({"interval": -10.0}, "interval must be above 0, not -10.0"),
        ({"interval": 0.1}, "the interval no shorter than the tick"),
        ({"interval": 10.5}, "the interval must be a multiple of the tick"),
        ({"timeout": 0.0}, "timeout must be above 0"),
        ({"threshold": -1.0}, "threshold must be 0 or more"),
        ({"failures": Failures(node_rate=-1)}, "node_rate must be 0 or more"),
        ({"failures": Failures(node_repair=float("nan"))}, "node_repair must be 0 or more"),
        ({"failures": Failures(pod_rate=-1)}, "pod_rate must be 0 or more"),
        ({"nodes": (Node(0, 1),)}, "cpu must be above 0"),
        ({"nodes": (Node(1, -1),)}, "memory must be above 0"),
        ({"nodes": (Node(1, 1, 0),)}, "network must be above 0"),
    ],
)
def test_scenario(changes: dict[str, Any], message: str) -> None:
    assert_refused(changes, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu_request": 0}, "cpu_request must be above 0, not 0"),
        ({"memory_request": 0}, "memory_request must be above 0, not 0"),
        ({"request_cpu": 0}, "request_cpu must be above 0, not 0"),
        ({"base_memory": -1}, "base_memory must be 0 or more, not -1"),
        ({"request_memory": -1}, "request_memory must be 0 or more, not -1"),
        ({"request_traffic": -1}, "request_traffic must be 0 or more, not -1"),
        ({"startup": -1}, "startup must be 0 or more, not -1"),
        ({"room": float("inf")}, "room must be 0 or more, not inf"),
        ({"replicas": 9}, "replicas must lie between min_replicas and max_replicas"),
        ({"min_replicas": 2}, "replicas must lie between min_replicas and max_replicas"),
        ({"min_replicas": -1}, "replicas must lie between min_replicas and max_replicas"),
    ],
)
def test_application(changes: dict[str, Any], message: str) -> None:
    assert_refused({"applications": (replace(PLAIN, **changes),)}, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "weekly"}, "no load pattern 'weekly'; there are: flat, diurnal, bursty, step"),
        ({"rate": -1.0}, "rate must be 0 or more, not -1.0"),
        ({"period": 0.0}, "period must be above 0, not 0.0"),
        ({"phase": 1.5}, "a load's phase is between 0 and 1"),
        ({"amplitude": -1.5}, "a load's amplitude is -1 or more"),
        ({"amplitude": float("inf")}, "a load's amplitude is -1 or more"),
        ({"pattern": "diurnal", "amplitude": 1.5}, "a diurnal load's amplitude is between 0 and 1"),
        ({"pattern": "diurnal", "amplitude": -0.5}, "a diurnal load's amplitude is between 0 and 1"),
        ({"shares": (0.5, 0.5)}, "a load needs 1 shares, none below 0, with the sum 1"),
        ({"shares": ()}, "a load needs 1 shares, none below 0, with the sum 1"),
        ({"shares": (0.9,)}, "a load needs 1 shares, none below 0, with the sum 1"),
    ],
)
def test_load(changes: dict[str, Any], message: str) -> None:
    assert_refused({"loads": (replace(Load("flat", 1.0), **changes),)}, message)


def test_shares_below_0() -> None:
    changes = {"round_trip": ((0.0,),) * 2, "loads": (Load("flat", 1.0, shares=(1.5, -0.5)),)}
    assert_refused(changes, "a load needs 2 shares, none below 0, with the sum 1")


def assert_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        cluster(**changes)
    assert str(caught.value).startswith("scenario plain: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ticks_that_are_no_exact_fractions_are_taken() -> None:
    assert cluster(interval=0.3, tick=0.1).ticks == 3


# The simulation


def test_no_scenarios() -> None:
    with pytest.raises(InputError, match="at least one scenario"):
        Simulation([], [])


@pytest.mark.parametrize("changes", [{"steps": 7}, {"interval": 20.0}, {"tick": 0.5}])
def test_different_clocks(changes: dict[str, Any]) -> None:
    scenario: Scenario = cluster()
    with pytest.raises(InputError, match="need the same steps, interval and tick"):
        Simulation([scenario, replace(scenario, **changes)], [0, 1])


@pytest.mark.parametrize("seeds", [[], [1], [1, 2, 3]])
def test_seeds_for_other_than_all(seeds: list[int]) -> None:
    with pytest.raises(InputError, match=f"2 scenarios need as many seeds, not {len(seeds)}"):
        Simulation([cluster()] * 2, seeds)


def test_an_episode_that_is_over() -> None:
    simulation = Simulation([cluster(steps=2)], [0])
    for _ in range(2):
        assert not simulation.done
        simulation.step(replicas(1))
    assert simulation.done
    seen = simulation.snapshot()
    with pytest.raises(InputError, match="the episode is over"):
        simulation.step(replicas(1))
    assert simulation.snapshot() is seen
    assert np.array_equal(seen.step, [2])
    assert np.array_equal(seen.horizon, [2])
