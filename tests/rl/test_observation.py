"""Observations: what is in them where, what padding holds, and what the policy makes of another layout."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from innerloop.core.errors import InputError
from innerloop.rl.families import Family, layout_of
from innerloop.rl.observation import HIGHEST, Layout
from innerloop.rl.policy import ClusterPolicy
from rl.small import BALANCING, BOTH, SCALING, course, policy_of, scenarios

both = pytest.mark.parametrize("family", BOTH, ids=lambda family: family.name)
APPLICATION = (
    *("application", "desired", "ready", "starting", "pending", "min_replicas", "request_rate", "change"),
    *("cpu_usage", "memory_usage", "latency", "refused", "waiting"),
)
NODE = ("node", "serving", "cpu_reserved", "memory_reserved", "cpu", "memory", "received", "sent", "latency")


@both
def test_the_parts_of_an_observation_are_the_features(family: Family) -> None:
    before, snapshot = course(scenarios(family, 4))[2:4]
    # In a quiet course several features are alike; here none is.
    wild = ("ready", "starting", "pending", "min_replicas", "refused", "waiting")
    generator = np.random.default_rng(0)
    drawn = {name: generator.uniform(0.1, 3, snapshot.ready.shape) * snapshot.application for name in wild}
    snapshot = replace(snapshot, **drawn)
    layout = family.layout
    parts = layout.split(layout.observe(snapshot, before))
    counts = snapshot.application.shape[1], snapshot.node.shape[1], snapshot.region_rate.shape[1]
    d, n, u = counts

    def application(name: str) -> np.ndarray:
        return parts.applications[:, :d, APPLICATION.index(name)]

    def node(name: str) -> np.ndarray:
        return parts.nodes[:, :n, NODE.index(name)]

    def same(left: np.ndarray, right: np.ndarray) -> None:
        np.testing.assert_allclose(left, np.clip(right, -HIGHEST, HIGHEST), rtol=1e-5, atol=1e-6)

    here = snapshot.application > 0
    most = np.where(here, snapshot.max_replicas, 1)
    limit = snapshot.threshold[:, None]
    same(application("application"), snapshot.application)
    for name in ("desired", "ready", "starting", "pending", "min_replicas"):
        same(application(name), getattr(snapshot, name) / most)
    for name in ("cpu_usage", "memory_usage", "refused", "waiting"):
        same(application(name), getattr(snapshot, name))
    same(application("latency"), snapshot.latency / limit)
    same(application("request_rate"), np.log(1 + snapshot.request_rate) / np.log(101))
    change = np.log((1 + snapshot.request_rate) / (1 + before.request_rate)) / np.log(101)
    assert (change != 0).any()
    same(application("change"), change)
    same(node("node"), snapshot.node)
    same(node("serving"), snapshot.serving.sum(1) / np.maximum(snapshot.serving.sum((1, 2)), 1)[:, None])
    same(node("cpu_reserved"), snapshot.node_cpu_reserved)
    same(node("memory_reserved"), snapshot.node_memory_reserved)
    for name in ("cpu", "memory", "received", "sent"):
        same(node(name), getattr(snapshot, f"node_{name}"))
    same(node("latency"), snapshot.node_latency / limit)
    same(parts.regions[:, :u], snapshot.region_rate / snapshot.region_rate.sum(1, keepdims=True))
    same(parts.ways[:, :u, :n], snapshot.round_trip / limit[..., None])
    total = np.log(1 + snapshot.region_rate.sum(1)) / np.log(101)
    same(parts.common, np.stack([snapshot.step / snapshot.horizon, total], 1))


@both
def test_padding_is_zero_and_marked(family: Family) -> None:
    given = scenarios(family, 8)
    layout = Layout(5, 6, 4)
    parts = layout.split(layout.observe(course(given)[2]))
    for number, scenario in enumerate(given):
        d, n, u = len(scenario.applications), len(scenario.nodes), len(scenario.round_trip)
        assert parts.applications[number, :, 0].tolist() == [1.0] * d + [0.0] * (5 - d)
        assert parts.nodes[number, :, 0].tolist() == [1.0] * n + [0.0] * (6 - n)
        assert (parts.ways[number, :u, :n] > 0).all()
        assert not parts.applications[number, d:].any()
        assert not parts.nodes[number, n:].any()
        assert not parts.regions[number, u:].any()
        assert not parts.ways[number, u:].any()
        assert not parts.ways[number, :, n:].any()


def test_splitting_keeps_leading_dimensions_and_takes_tensors_too() -> None:
    layout = Layout(2, 3, 2)
    flat = torch.arange(5 * 4 * layout.size, dtype=torch.float32).reshape(5, 4, layout.size)
    parts, same = layout.split(flat), layout.split(flat.numpy())
    assert parts.applications.shape == (5, 4, 2, 13)
    assert parts.nodes.shape == (5, 4, 3, 9)
    assert parts.regions.shape == (5, 4, 2)
    assert parts.ways.shape == (5, 4, 2, 3)
    assert parts.common.shape == (5, 4, 2)
    for name in ("applications", "nodes", "regions", "ways", "common"):
        np.testing.assert_array_equal(getattr(parts, name).numpy(), getattr(same, name))
    pieces = [
        getattr(parts, name).flatten(2) for name in ("applications", "nodes", "regions", "ways", "common")
    ]
    assert torch.cat(pieces, -1).equal(flat)


@pytest.mark.parametrize("layout", [Layout(1, 9, 9), Layout(9, 1, 9), Layout(9, 9, 1)])
def test_a_cluster_larger_than_the_layout_is_refused(layout: Layout) -> None:
    snapshot = course(scenarios(BALANCING, 8))[0]
    d, n, u = snapshot.application.shape[1], snapshot.node.shape[1], snapshot.region_rate.shape[1]
    assert min(d, n, u) > 1
    with pytest.raises(InputError) as refusal:
        layout.observe(snapshot)
    line = str(refusal.value)
    assert line.startswith(
        f"a cluster of {d} applications, {n} nodes and {u} regions does not fit the layout"
    )
    assert "\n" not in line


@both
def test_a_policy_does_the_same_whatever_the_layout(family: Family) -> None:
    scenario = next(s for s in scenarios(family, 9) if len(s.applications) == 2)
    snapshot = course([scenario])[3]
    snug, roomy = layout_of(scenario), Layout(6, 7, 5)
    policy = policy_of(family)
    d, n, u = snug.applications, snug.nodes, snug.regions
    found = []
    for layout in (snug, roomy):
        again = ClusterPolicy(policy.shape, layout)
        again.load_state_dict(policy.state_dict())  # of the same shapes
        seen = torch.from_numpy(layout.observe(snapshot))
        likeliest = again(seen, torch.zeros(1, *again.noise_shape()))
        # The same action on what is there, and anything on the padding.
        if family.kind == "scaling":
            action = torch.full((1, layout.applications), 4)
            action[0, :d] = torch.tensor([1, 5])
            likeliest = likeliest[:, :d]
        else:
            action = torch.full((1, layout.regions, layout.nodes), 9.0)
            action[0, :u, :n] = torch.linspace(-1, 1, u * n).reshape(u, n)
            action = action.flatten(1)
            likeliest = likeliest.reshape(1, layout.regions, layout.nodes)[:, :u, :n]
        found.append((likeliest, again.log_probability(seen, action), again.entropy(seen), again.value(seen)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_extreme_values_are_clipped() -> None:
    snapshot = course(scenarios(SCALING, 2))[1]
    wild = replace(snapshot, waiting=snapshot.waiting + 1e9)
    seen = SCALING.layout.observe(wild)
    assert seen.dtype == np.float32
    assert seen.max() == HIGHEST
