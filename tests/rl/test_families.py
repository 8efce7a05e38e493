"""Families: members follow from their number, lie in their spans, and differ between splits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.rl.families import FAMILIES, Alone, Family, KubernetesScaling, LoadBalancing, layout_of
from innerloop.rl.simulator import Simulation
from innerloop.rl.simulator.scenario import Scenario

BREAKING = replace(KubernetesScaling(), node_failures=(1.0, 2.0), pod_failures=(0.0, 3.0), regions=(1, 3))
ALL = (KubernetesScaling(), LoadBalancing(), BREAKING)
every_family = pytest.mark.parametrize("family", ALL, ids=("scaling", "balancing", "breaking"))
NUMBERS = range(60)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
@every_family
def test_a_member_follows_from_its_number(family: Family, name: str) -> None:
    members, again = family.split(name), replace(family).split(name)  # type: ignore[arg-type]
    backwards = {number: again.scenario(number) for number in reversed(range(8))}
    assert [members.scenario(number) for number in range(8)] == [backwards[number] for number in range(8)]


@every_family
def test_splits_seeds_and_numbers_give_other_members(family: Family) -> None:
    splits = [family.split(name) for name in ("train", "validation", "test")]
    splits.append(replace(family, seed=1).split("train"))
    found = {replace(split.scenario(number), name="") for split in splits for number in range(20)}
    assert len(found) == 4 * 20


@every_family
def test_members_lie_in_their_spans(family: Family) -> None:
    members = [family.split("train").scenario(number) for number in NUMBERS]

    def spans(values: list[float], span: tuple[float, float]) -> None:
        assert span[0] - 1e-9 <= min(values)
        assert max(values) <= span[1] + 1e-9
        # Sixty draws come near both ends.
        assert max(values) - min(values) >= 0.6 * (span[1] - span[0]), span

    def over(part: str, field: str) -> list[float]:
        return [getattr(entry, field) for member in members for entry in getattr(member, part)]

    spans([len(m.nodes) for m in members], family.nodes)
    spans([len(m.applications) for m in members], family.applications)
    spans([len(m.round_trip) for m in members], family.regions)
    spans(over("nodes", "cpu"), family.node_cpu)
    spans(over("nodes", "memory"), family.node_memory)
    spans(over("applications", "max_replicas"), family.max_pods)
    spans(over("applications", "cpu_request"), family.cpu_requirement)
    spans(over("applications", "memory_request"), family.memory_requirement)
    spans(over("applications", "request_cpu"), family.request_cpu)
    spans(over("applications", "startup"), family.startup)
    spans(over("loads", "amplitude"), family.amplitude)
    spans(over("loads", "period"), family.period)
    assert set(over("loads", "pattern")) == set(family.traffic_pattern)
    spans([time for m in members for row in m.round_trip for time in row], family.round_trip)
    spans([m.threshold for m in members], family.latency_threshold)
    spans([m.failures.node_rate for m in members], family.node_failures)
    spans([m.failures.pod_rate for m in members], family.pod_failures)
    for field in ("latency", "replica"):
        span = getattr(family, f"{field}_weight")
        spans([np.log(getattr(m.reward, field)) for m in members], tuple(np.log(span)))
    spans([m.reward.variance for m in members], family.variance_weight)
    spans([m.reward.misfit for m in members], family.misfit_weight)
    demand = [
        load.rate / (application.capacity * application.max_replicas)
        for m in members
        for load, application in zip(m.loads, m.applications, strict=True)
    ]
    spans(demand, family.demand)
    assert {(m.steps, m.interval) for m in members} == {(family.steps, family.interval)}


@every_family
def test_every_member_fits_the_layout_and_all_can_be_simulated_together(family: Family) -> None:
    members = [family.split("test").scenario(number) for number in NUMBERS]
    for member in members:
        own = layout_of(member)
        assert family.layout.fits(own.applications, own.nodes, own.regions)
    assert Simulation(members, range(len(members))).steps == family.steps


def test_what_is_controlled_decides_the_first_replicas() -> None:
    for member in (KubernetesScaling().split("train").scenario(number) for number in range(10)):
        assert all(a.replicas == -(-a.max_replicas // 2) for a in member.applications)
        assert len(member.round_trip) == 1
    for member in (LoadBalancing().split("train").scenario(number) for number in range(10)):
        assert all(a.replicas == a.max_replicas and a.startup == 0 for a in member.applications)
        assert 2 <= len(member.round_trip) <= 3


def test_the_families_by_name() -> None:
    assert {name: family().name for name, family in FAMILIES.items()} == {name: name for name in FAMILIES}
    kinds = {name: family().kind for name, family in FAMILIES.items()}
    assert kinds == {"kubernetes_scaling": "scaling", "load_balancing": "balancing"}


@given(st.integers(0, 2**31), st.integers(0, 10**9))
def test_any_seed_and_number_give_a_sound_scenario(seed: int, number: int) -> None:
    member = KubernetesScaling(seed=seed).split("test").scenario(number)
    assert isinstance(member, Scenario)  # which refuses what no simulation could run
    assert member.name == f"kubernetes_scaling/test/{number}"


@pytest.mark.parametrize("field", ["nodes", "node_cpu", "demand", "round_trip", "pod_failures"])
def test_a_span_that_runs_backwards_is_refused(field: str) -> None:
    with pytest.raises(
        InputError, match=rf"family kubernetes_scaling: {field} must be \[from, to\], not \[3, 2\]"
    ):
        KubernetesScaling(**{field: (3, 2)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("patterns", "named"), [(("diurnal", "weekly", "rare"), "weekly, rare"), ((), "none")]
)
def test_an_unknown_pattern_is_refused(patterns: tuple[str, ...], named: str) -> None:
    with pytest.raises(InputError, match=f"names some of flat, diurnal, bursty, step, not {named}$"):
        LoadBalancing(traffic_pattern=patterns)  # type: ignore[arg-type]


def test_one_scenario_alone_is_given_whatever_the_number() -> None:
    only = KubernetesScaling().split("test").scenario(4)
    assert Alone(only).scenario(0) is Alone(only).scenario(9) is only
