"""What users send: each pattern against its definition, and the counts against Poisson's distribution."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.rl.simulator import Load, Simulation
from rl.simulator.clusters import Array, cluster, replicas, spans

RATES = spans(0.1, 1000)


def profile(load: Load, seconds: Array, seed: int = 0) -> Array:
    return load.profile(seconds, np.random.default_rng(seed))


@given(rate=RATES, amplitude=spans(0, 1))
def test_flat(rate: float, amplitude: float) -> None:
    assert (profile(Load("flat", rate, amplitude), np.arange(50.0)) == rate).all()


@given(rate=RATES, amplitude=spans(0, 1), period=spans(10, 500), phase=spans(0, 1))
def test_diurnal(rate: float, amplitude: float, period: float, phase: float) -> None:
    """The mean over whole periods is the rate; the extremes are at a quarter and at three quarters."""
    load = Load("diurnal", rate, amplitude, period, phase)
    turns = np.arange(400) / 200
    rates = profile(load, turns * period)
    assert rates.mean() == pytest.approx(rate)
    assert rates.min() >= 0
    at = (np.array([0, 0.25, 0.5, 0.75]) + 1 - phase) * period
    expected = rate * np.array([1, 1 + amplitude, 1, 1 - amplitude])
    assert profile(load, at) == pytest.approx(expected, rel=1e-9, abs=1e-9 * rate)


@given(rate=RATES, amplitude=spans(0.1, 9), period=spans(5, 500), seed=st.integers(0, 1000))
def test_bursty(rate: float, amplitude: float, period: float, seed: int) -> None:
    """One burst in each period, whole, a tenth of it long, and not at the same place in all of them."""
    load = Load("bursty", rate, amplitude, period)
    rates = profile(load, (np.arange(10_000) + 0.5) / 1000 * period, seed).reshape(10, 1000)
    burst = rates > rate
    assert rates[burst] == pytest.approx(rate * (1 + amplitude))
    assert (rates[~burst] == rate).all()
    assert (abs(burst.sum(1) - 100) <= 1).all()
    assert (np.diff(burst.astype(int), prepend=0, append=0, axis=1) == 1).sum() == 10
    assert rates.mean() == pytest.approx(rate * (1 + 0.1 * amplitude), rel=0.01)
    assert len(set(burst.argmax(1).tolist())) > 1


@pytest.mark.parametrize(("phase", "first"), [(0.0, 0), (0.25, 25), (0.5, 50), (0.9, 90), (0.999, 99)])
@pytest.mark.parametrize("amplitude", [-0.5, 2.0])
def test_step(phase: float, first: int, amplitude: float) -> None:
    rates = profile(Load("step", 10.0, amplitude, phase=phase), np.arange(100.0))
    assert (rates[:first] == 10).all()
    assert (rates[first:] == 10 * (1 + amplitude)).all()


@pytest.mark.parametrize("tick", [0.5, 1.0, 4.0])
def test_counts_are_poisson_and_split_by_region(tick: float) -> None:
    """Mean and variance are λ, for each region its share; regions and ticks are independent."""
    load, ticks = Load("flat", 6.0, shares=(0.5, 0.3, 0.2)), 40_000
    counts = load.draw(ticks, tick, np.random.default_rng(0))
    assert counts.shape == (ticks, 3)
    assert (counts == counts.round()).all()
    expected = 6 * tick * np.array(load.shares)
    error = np.sqrt(expected / ticks)
    assert (abs(counts.mean(0) - expected) < 4 * error).all()
    # The variance of a sample variance is about (λ + 2 λ²) / n.
    assert (abs(counts.var(0) - expected) < 4 * np.sqrt((expected + 2 * expected**2) / ticks)).all()
    assert abs(np.corrcoef(counts.T)[0, 1:]).max() < 4 / np.sqrt(ticks)
    assert abs(np.corrcoef(counts[1:, 0], counts[:-1, 0])[0, 1]) < 4 / np.sqrt(ticks)


@pytest.mark.parametrize(
    "load",
    [
        Load("flat", 40.0, shares=(0.7, 0.3)),
        Load("diurnal", 40.0, 0.8, 100.0, 0.3, shares=(0.7, 0.3)),
        Load("step", 40.0, 1.5, phase=0.4, shares=(0.7, 0.3)),
    ],
    ids=lambda load: load.pattern,
)
def test_a_simulation_gets_what_the_profile_says(load: Load) -> None:
    """Step by step, over the mean of 200 clusters, from each region."""
    scenario = cluster(loads=(load,), round_trip=((0.0,), (0.0,)))
    simulation = Simulation([replace(scenario, tick=0.5)] * 200, range(200))
    times = np.arange(scenario.steps * 20) * 0.5
    expected = profile(load, times).reshape(scenario.steps, 20).mean(1)
    for rate in expected:
        simulation.step(replicas(1))
        seen = simulation.snapshot()
        assert seen.region_rate.sum(1) == pytest.approx(seen.request_rate[:, 0])
        of_regions = rate * np.array(load.shares)
        assert (abs(seen.region_rate.mean(0) - of_regions) < 4 * np.sqrt(of_regions / 10 / 200)).all()
