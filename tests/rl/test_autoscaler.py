"""The autoscaler against Kubernetes' own algorithm, written down again pod by pod.

The reference follows GetResourceReplicas of pkg/controller/podautoscaler/replica_calculator.go and the
default behaviour of autoscaling/v2: no stabilisation upwards, the larger of 100 % and 4 pods a period; a
window of 300 s downwards. Utilisations stay fractions here; Kubernetes cuts them to whole per cent.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.rl.baselines import HorizontalPodAutoscaler
from innerloop.rl.simulator import Simulation
from innerloop.rl.simulator.snapshot import Snapshot
from rl.small import SCALING, course, scenarios

ONE = scenarios(replace(SCALING, applications=(1, 1)), 1)
BLANK = course(ONE)[0]


@dataclass
class Kubernetes:
    """The reference, for one deployment. Time is counted in periods of 15 s."""

    target: float
    tolerance: float
    window: int
    smallest: int
    largest: int
    recommended: list[tuple[int, int]] = field(default_factory=list)
    now: int = 0

    def replicas(self, current: int, ready: int, usage: float) -> int:
        """One pass of the control loop."""
        if not self.recommended:
            self.recommended.append((self.now, current))
        result = current
        metrics = self.from_metrics(current, ready, usage)
        if metrics is not None:
            result = self.rate_limited(current, self.stabilised(current, metrics))
        self.now += 1
        return min(max(result, self.smallest), self.largest)

    def from_metrics(self, current: int, ready: int, usage: float) -> int | None:
        """The replica calculator; none where no pod has metrics."""
        if ready == 0:
            return None
        metrics = [usage] * ready
        unready = current - ready
        ratio = sum(metrics) / len(metrics) / self.target
        if not (unready and ratio > 1):
            return current if self.within(ratio) else math.ceil(ratio * ready - 1e-9)
        metrics += [0.0] * unready
        again = sum(metrics) / len(metrics) / self.target
        if self.within(again) or again < 1:
            return current
        found = math.ceil(again * len(metrics) - 1e-9)
        return current if found < current else found

    def within(self, ratio: float) -> bool:
        return abs(ratio - 1) <= self.tolerance

    def stabilised(self, current: int, desired: int) -> int:
        """No lower than the highest recommendation of the window; recommendations are kept as they came."""
        recent = [value for when, value in self.recommended if when > self.now - self.window]
        self.recommended.append((self.now, desired))
        return desired if desired >= current else min(current, max([desired, *recent]))

    @staticmethod
    def rate_limited(current: int, desired: int) -> int:
        return min(desired, max(2 * current, current + 4)) if desired > current else desired


def snapshot_of(current: int, ready: int, usage: float, smallest: int = 1, largest: int = 40) -> Snapshot:
    def one(value: float) -> np.ndarray:
        return np.array([[float(value)]])

    return replace(
        BLANK,
        desired=one(current),
        ready=one(ready),
        starting=one(current - ready),
        cpu_usage=one(usage),
        min_replicas=one(smallest),
        max_replicas=one(largest),
    )


def decided(autoscaler: HorizontalPodAutoscaler, snapshot: Snapshot) -> int:
    replicas, share = autoscaler.decide(snapshot)
    assert share is None
    return int(replicas[0, 0])


SEEN = st.tuples(st.floats(0, 1), st.integers(0, 200))
"""Share of the pods that are ready, and per cent of the CPU that these use."""


@settings(max_examples=300)
@given(
    st.lists(SEEN, min_size=1, max_size=30),
    st.sampled_from([0.3, 0.5, 0.7, 0.9]),
    st.sampled_from([0.0, 0.1, 0.2]),
    st.integers(1, 8),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(12, 60),
    st.booleans(),
)
def test_it_decides_as_kubernetes_does(
    seen: list[tuple[float, int]],
    target: float,
    tolerance: float,
    window: int,
    current: int,
    smallest: int,
    largest: int,
    follows: bool,
) -> None:
    current = max(current, smallest)
    autoscaler = HorizontalPodAutoscaler(target, tolerance, window)
    reference = Kubernetes(target, tolerance, window, smallest, largest)
    for share, per_cent in seen:
        ready = round(share * current)
        # The borders of the tolerance are decided by rounding, in Kubernetes too.
        usage = per_cent / 100 + 1e-6
        expected = reference.replicas(current, ready, usage)
        assert decided(autoscaler, snapshot_of(current, ready, usage, smallest, largest)) == expected
        # Somebody else may scale too.
        current = expected if follows else min(max(current + per_cent % 5 - 2, smallest), largest)


@pytest.mark.parametrize(
    ("current", "ready", "usage", "expected"),
    [
        (4, 4, 0.76, 4),  # less than 10 % above the target of 70 %
        (4, 4, 0.78, 5),  # 4 · 0.78 / 0.7 = 4.46
        (4, 4, 2.0, 8),  # 11.4 is more than twice as many
        (2, 2, 3.0, 6),  # 8.6 is more than 4 more
        (8, 4, 1.3, 8),  # with the 4 unready ones at nothing 65 %, which would be down
        (8, 7, 1.3, 13),  # 7 · 1.3 / 0.7 = 13
        (8, 0, 0.0, 8),  # nothing to measure
    ],
)
def test_cases_by_hand(current: int, ready: int, usage: float, expected: int) -> None:
    assert decided(HorizontalPodAutoscaler(0.7), snapshot_of(current, ready, usage)) == expected


def test_scaling_down_waits_for_the_window() -> None:
    autoscaler = HorizontalPodAutoscaler(0.5, window=4)
    current, found = 10, []
    for usage in (0.5, 0.1, 0.1, 0.1, 0.1, 0.1):
        current = decided(autoscaler, snapshot_of(current, current, usage))
        found.append(current)
    # 10 was recommended last at the first step; four steps later that is 4 steps, a whole window, ago.
    assert found == [10, 10, 10, 10, 2, 2]


def test_a_window_of_one_step_forgets_at_once() -> None:
    autoscaler = HorizontalPodAutoscaler(0.5, window=1)
    assert decided(autoscaler, snapshot_of(10, 10, 0.5)) == 10
    assert decided(autoscaler, snapshot_of(10, 10, 0.1)) == 2


def test_it_does_not_begin_by_scaling_everything_down() -> None:
    """Before the first step nothing is in use, for want of time."""
    simulation = Simulation(scenarios(SCALING, 4), range(4))
    autoscaler = HorizontalPodAutoscaler()
    before = simulation.snapshot()
    assert not before.cpu_usage.any()
    replicas, _ = autoscaler.decide(before)
    np.testing.assert_array_equal(replicas, before.desired)


def test_clusters_and_applications_are_decided_for_on_their_own() -> None:
    given_ = scenarios(SCALING, 5)
    together, alone = HorizontalPodAutoscaler(0.3), [HorizontalPodAutoscaler(0.3) for _ in given_]
    simulation = Simulation(given_, range(5))
    moved = False
    while not simulation.done:
        snapshot = simulation.snapshot()
        replicas, _ = together.decide(snapshot)
        moved |= bool((replicas != snapshot.desired).any())
        for e, autoscaler in enumerate(alone):
            own = Snapshot(**{name: value[e : e + 1] for name, value in vars(snapshot).items()})
            np.testing.assert_array_equal(autoscaler.decide(own)[0][0], replicas[e])
        assert (replicas[snapshot.application == 0] == 0).all()
        simulation.step(replicas)
    assert moved
