"""A cluster's course is decided by its scenario, its seed and what is done to it, and by nothing else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from innerloop.rl.simulator import Load, Scenario, Simulation
from rl.simulator.clusters import BATCHES, SEEDS, Actions, arrays, cluster, course, cut, replicas


@settings(max_examples=40)
@given(batch=BATCHES, seed=SEEDS, spread=st.booleans(), balanced=st.booleans())
def test_the_same_again(batch: list[Scenario], seed: int, spread: bool, balanced: bool) -> None:
    seeds = range(seed, seed + len(batch))
    first, second = (Simulation(batch, seeds, balanced) for _ in range(2))
    actions = Actions.random(first, seed, spread)
    for one, other in zip(course(first, actions), course(second, actions), strict=True):
        for left, right in zip(one, other, strict=True):
            for name, values in arrays(left).items():
                assert_array_equal(values, arrays(right)[name], name)


@settings(max_examples=80)
@given(batch=BATCHES, seed=SEEDS, spread=st.booleans(), balanced=st.booleans())
def test_neighbours_change_nothing(batch: list[Scenario], seed: int, spread: bool, balanced: bool) -> None:
    seeds = range(seed, seed + len(batch))
    together = Simulation(batch, seeds, balanced)
    actions = Actions.random(together, seed, spread)
    seen = list(course(together, actions))
    for number, scenario in enumerate(batch):
        alone = Simulation([scenario], [seeds[number]], balanced)
        for one, other in zip(course(alone, actions.of(number, scenario)), seen, strict=True):
            for left, right in zip(one, other, strict=True):
                for name, values in arrays(right).items():
                    expected = arrays(left)[name][0]
                    got = cut(name, values, number, scenario) if left is one[0] else values[number]
                    assert_allclose(got, expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_seeds_decide_what_comes_and_what_was_seen_stays() -> None:
    scenario = cluster(loads=(Load("flat", 50.0),), steps=2)
    simulation = Simulation([scenario] * 3, [1, 1, 2])
    simulation.step(replicas(1))
    seen = simulation.snapshot()
    kept = {name: values.copy() for name, values in arrays(seen).items()}
    assert simulation.arrived[0] == simulation.arrived[1] != simulation.arrived[2]
    simulation.step(replicas(5))
    assert seen is not simulation.snapshot()
    for name, values in arrays(seen).items():
        assert_array_equal(values, kept[name], name)


def test_what_comes_does_not_depend_on_what_is_done() -> None:
    scenario = cluster(loads=(Load("bursty", 50.0, 2.0, 30.0),))
    simulation = Simulation([scenario] * 2, [1, 1])
    for _ in range(scenario.steps):
        simulation.step(np.array([[1], [8]]))
    assert simulation.arrived[0] == simulation.arrived[1]
    assert simulation.served[0] < simulation.served[1]
