"""Task families in requests are those of the simulator, field by field and default by default."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from innerloop.rl.families import FAMILIES
from innerloop.rl.simulator.load import Pattern as SimulatedPattern
from innerloop.service.kinds.distribution import (
    BalancingFamily,
    FamilyName,
    Pattern,
    ScalingFamily,
    TaskDistribution,
)

MODELS: Mapping[str, type[ScalingFamily]] = {
    "kubernetes_scaling": ScalingFamily,
    "load_balancing": BalancingFamily,
}


def refusal(distribution: object) -> dict[str, Any]:
    with pytest.raises(ValidationError) as refused:
        TaskDistribution.model_validate(distribution)
    (error,) = refused.value.errors()
    return dict(error)


@pytest.mark.parametrize("name", MODELS)
def test_a_family_has_the_fields_and_defaults_of_the_simulators(name: str) -> None:
    real = FAMILIES[name]()
    given = MODELS[name]()
    known = [field.name for field in fields(real) if field.name != "name"]
    assert list(ScalingFamily.model_fields) == known
    assert {key: getattr(given, key) for key in known} == {key: getattr(real, key) for key in known}


def test_there_are_no_other_families_and_patterns() -> None:
    assert MODELS.keys() == FAMILIES.keys() == TaskDistribution.model_fields.keys()
    assert set(get_args(FamilyName)) == FAMILIES.keys()
    assert get_args(Pattern) == get_args(SimulatedPattern)


def test_one_number_stands_for_both_ends() -> None:
    family = ScalingFamily.model_validate({"max_pods": 4, "demand": 0.25, "traffic_pattern": "flat"})
    assert (family.max_pods, family.demand, family.traffic_pattern) == ((4, 4), (0.25, 0.25), ("flat",))


def test_a_distribution_survives_being_kept_as_json() -> None:
    given = TaskDistribution.model_validate({"load_balancing": {"regions": [2, 4]}})
    assert TaskDistribution.model_validate_json(given.model_dump_json()) == given
    assert given.chosen[0] == "load_balancing"


@pytest.mark.parametrize("distribution", [{}, {"kubernetes_scaling": {}, "load_balancing": {}}])
def test_none_and_two_families_are_refused(distribution: object) -> None:
    error = refusal(distribution)
    assert error["loc"] == ()
    assert "exactly one task family" in error["msg"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_pods", [8, 4]),
        ("max_pods", 0),
        ("max_pods", [1, 2, 3]),
        ("max_pods", True),
        ("cpu_requirement", "many"),
        ("cpu_requirement", float("inf")),
        ("round_trip", [0, 1]),
        ("traffic_pattern", "calm"),
        ("traffic_pattern", []),
        ("nodes", [1, 100_000]),
        ("steps", 0),
        ("max_pod", 4),
    ],
)
def test_a_refusal_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        TaskDistribution.model_validate({"kubernetes_scaling": {field: value}})
    assert all(error["loc"][:2] == ("kubernetes_scaling", field) for error in refused.value.errors())


def test_diurnal_traffic_cannot_fall_below_nothing() -> None:
    error = refusal({"kubernetes_scaling": {"amplitude": [0.5, 2]}})
    assert error["loc"] == ("kubernetes_scaling",)
    assert "amplitude" in error["msg"]
    TaskDistribution.model_validate({"kubernetes_scaling": {"amplitude": 2, "traffic_pattern": ["bursty"]}})
