"""Task families as a request gives them: the fields of ``innerloop.rl.families``, with bounds.

They stand here once more because a service that checks requests shall not load PyTorch; a test holds the
two together, defaults and all.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from innerloop.service.kinds.fields import Seed
from innerloop.service.kinds.kind import Strict

FamilyName = Literal["kubernetes_scaling", "load_balancing"]
Pattern = Literal["flat", "diurnal", "bursty", "step"]


def _pair(value: Any) -> Any:
    """One number stands for itself at both ends."""
    single = isinstance(value, int | float) and not isinstance(value, bool)
    return (value, value) if single else value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("must be [from, to] with from at most to")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Number = Annotated[float, Field(strict=True, ge=0, le=1e9)]
_AboveZero = Annotated[float, Field(strict=True, gt=0, le=1e9)]
_Small = Annotated[int, Field(strict=True, ge=1, le=64)]
_Replicas = Annotated[int, Field(strict=True, ge=1, le=1000)]

Span = Annotated[
    tuple[_Number, _Number],
    BeforeValidator(_pair, json_schema_input_type=_Number | tuple[_Number, _Number]),
    AfterValidator(_rising),
]
"""From, to; a value is drawn between them. One number stands for both."""

AboveZero = Annotated[
    tuple[_AboveZero, _AboveZero],
    BeforeValidator(_pair, json_schema_input_type=_AboveZero | tuple[_AboveZero, _AboveZero]),
    AfterValidator(_rising),
]
Small = Annotated[
    tuple[_Small, _Small],
    BeforeValidator(_pair, json_schema_input_type=_Small | tuple[_Small, _Small]),
    AfterValidator(_rising),
]
Replicas = Annotated[
    tuple[_Replicas, _Replicas],
    BeforeValidator(_pair, json_schema_input_type=_Replicas | tuple[_Replicas, _Replicas]),
    AfterValidator(_rising),
]
Patterns = Annotated[
    tuple[Pattern, ...],
    BeforeValidator(_listed, json_schema_input_type=Pattern | tuple[Pattern, ...]),
    Field(min_length=1, max_length=4),
]


class ScalingFamily(Strict):
    """Clusters whose deployments are scaled under changing load. Every field is a range to draw from."""

    seed: Seed = Field(default=0, description="of all members of the family")
    nodes: Small = Field(default=(3, 6), description="in a cluster")
    applications: Small = Field(default=(1, 3), description="in a cluster")
    regions: Small = Field(default=(1, 1), description="of users")
    node_cpu: Span = Field(default=(2000.0, 4000.0), description="millicores")
    node_memory: Span = Field(default=(4096.0, 8192.0), description="MiB")
    max_pods: Replicas = Field(default=(6, 10), description="an application's most replicas")
    cpu_requirement: Span = Field(default=(100.0, 250.0), description="millicores a pod reserves")
    memory_requirement: Span = Field(default=(128.0, 384.0), description="MiB a pod reserves")
    request_cpu: Span = Field(default=(2.0, 8.0), description="millicore-seconds a request takes")
    startup: Span = Field(default=(5.0, 60.0), description="seconds until a pod serves")
    traffic_pattern: Patterns = Field(
        default=("diurnal", "bursty", "step"), description="of which one is drawn for every application"
    )
    demand: Span = Field(default=(0.2, 0.5), description="the mean load over what max_pods pods serve")
    amplitude: Span = Field(
        default=(0.3, 1.0), description="of the load's changes; at most 1 with diurnal traffic"
    )
    period: Span = Field(default=(200.0, 600.0), description="seconds of a load's period")
    round_trip: AboveZero = Field(default=(0.005, 0.03), description="seconds between a region and a node")
    saturation: Span = Field(
        default=(0.4, 0.9), description="the load of a pod from which on its requests are slowed down"
    )
    latency_threshold: AboveZero = Field(default=(0.1, 0.4), description="seconds that the objective allows")
    latency_weight: Span = Field(
        default=(0.3, 10.0), description="of the reward; drawn evenly in the logarithm"
    )
    replica_weight: Span = Field(
        default=(0.02, 0.4), description="of the reward; drawn evenly in the logarithm"
    )
    variance_weight: Span = Field(default=(0.1, 0.1), description="of the reward")
    misfit_weight: Span = Field(default=(2.0, 2.0), description="of the reward")
    node_failures: Span = Field(default=(0.0, 0.0), description="of a node an hour")
    pod_failures: Span = Field(default=(0.0, 0.0), description="of an application's pods an hour")
    steps: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=40, description="control steps of an episode"
    )
    interval: _AboveZero = Field(default=15.0, description="seconds between two control steps")

    @model_validator(mode="after")
    def _amplitude_fits(self) -> Self:
        if "diurnal" in self.traffic_pattern and self.amplitude[1] > 1:
            raise ValueError("amplitude is at most 1 where traffic_pattern holds diurnal")
        return self


class BalancingFamily(ScalingFamily):
    """Users of several regions whose requests are spread over the nodes that serve them."""

    applications: Small = Field(default=(1, 2), description="in a cluster")
    regions: Small = Field(default=(2, 3), description="of users")
    startup: Span = Field(default=(0.0, 0.0), description="seconds until a pod serves")
    traffic_pattern: Patterns = Field(
        default=("flat", "diurnal", "step"), description="of which one is drawn for every application"
    )
    demand: Span = Field(default=(0.4, 0.7), description="the mean load over what max_pods pods serve")
    amplitude: Span = Field(
        default=(0.0, 0.4), description="of the load's changes; at most 1 with diurnal traffic"
    )
    round_trip: AboveZero = Field(default=(0.005, 0.1), description="seconds between a region and a node")
    saturation: Span = Field(
        default=(0.7, 0.7), description="the load of a pod from which on its requests are slowed down"
    )
    latency_weight: Span = Field(
        default=(0.5, 4.0), description="of the reward; drawn evenly in the logarithm"
    )
    replica_weight: Span = Field(
        default=(0.1, 0.1), description="of the reward; drawn evenly in the logarithm"
    )


class TaskDistribution(Strict):
    """The family that clusters are drawn from: exactly one, with the fields that shall differ."""

    kubernetes_scaling: ScalingFamily | None = Field(
        default=None, description="replicas of deployments are chosen"
    )
    load_balancing: BalancingFamily | None = Field(
        default=None, description="shares of the traffic are chosen"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.kubernetes_scaling is None) == (self.load_balancing is None):
            raise ValueError(
                "must name exactly one task family: kubernetes_scaling or load_balancing; a job learns one"
            )
        return self

    @property
    def chosen(self) -> tuple[FamilyName, ScalingFamily]:
        """The family's name and fields."""
        if self.load_balancing is not None:
            return "load_balancing", self.load_balancing
        return "kubernetes_scaling", self.kubernetes_scaling or ScalingFamily()


SCALING = TaskDistribution(kubernetes_scaling=ScalingFamily())
"""The family of scaling with nothing changed."""
