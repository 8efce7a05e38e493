"""Actions as replicas and shares."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from innerloop.rl.controls import BalancingControl, ScalingControl
from innerloop.rl.observation import Layout
from rl.small import BALANCING, SCALING, course, scenarios

SCALED = course(scenarios(SCALING, 4))[2]
BALANCED = course(scenarios(BALANCING, 4))[2]
WIDE = Layout(5, 6, 4)
SCORES = arrays(np.float32, (4, 24), elements=st.floats(-3, 3, width=32))


@given(st.integers(1, 9), st.data())
def test_changes_end_at_the_fewest_and_the_most_replicas(most: int, data: st.DataObject) -> None:
    control = ScalingControl(most)
    choices = data.draw(arrays(np.int64, (4, 5), elements=st.integers(0, 2 * most)))
    wanted, share = control.apply(choices, SCALED, WIDE)
    assert share is None
    for e, d in np.ndindex(SCALED.desired.shape):
        change = int(choices[e, d]) - most
        low, high = SCALED.min_replicas[e, d], SCALED.max_replicas[e, d]
        assert wanted[e, d] == min(max(SCALED.desired[e, d] + change, low), high)
    assert (wanted[SCALED.application == 0] == 0).all()


def test_the_middle_choice_changes_nothing() -> None:
    control = ScalingControl(4)
    space = control.space(WIDE)
    assert space.nvec.tolist() == [9] * 5
    wanted, _ = control.apply(np.full((4, 5), 4), SCALED, WIDE)
    assert np.array_equal(wanted, SCALED.desired)


@given(SCORES, st.floats(0.1, 8))
def test_shares_are_a_softmax_over_the_nodes_that_are_up(scores: np.ndarray, sharpness: float) -> None:
    node = BALANCED.node.copy()
    node[0, 0] = 0.0  # there, and down
    snapshot = replace(BALANCED, node=node)
    desired, share = BalancingControl(sharpness).apply(scores, snapshot, WIDE)
    assert desired is snapshot.desired
    assert share is not None
    assert share.shape == snapshot.round_trip.shape
    up = np.broadcast_to(node[:, None, :] > 0, share.shape)
    assert (share[up] > 0).all()
    assert (share[~up] == 0).all()
    _, regions, nodes = share.shape
    bounded = np.clip(scores.astype(np.float64).reshape(4, 4, 6)[:, :regions, :nodes], -1, 1)
    weights = np.where(up, np.exp(sharpness * bounded), 0)
    np.testing.assert_allclose(
        share / share.sum(2, keepdims=True), weights / weights.sum(2, keepdims=True), rtol=1e-5
    )


def test_scores_beyond_the_space_count_as_its_ends() -> None:
    control = BalancingControl()
    space = control.space(WIDE)
    assert space.shape == (24,)
    wild = np.where(np.arange(24) % 2, 1e6, -1e6)[None].repeat(4, 0).astype(np.float32)
    _, share = control.apply(wild, BALANCED, WIDE)
    _, ends = control.apply(np.sign(wild), BALANCED, WIDE)
    assert share is not None
    assert ends is not None
    np.testing.assert_array_equal(share, ends)
    assert np.isfinite(share).all()
