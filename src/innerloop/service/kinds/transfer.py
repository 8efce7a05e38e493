"""Transfer of a scaling policy from one family of clusters to another."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from innerloop.service.jobs.job import Kind
from innerloop.service.kinds.fields import Clusters, Episodes, Identifier, Rate, Seed
from innerloop.service.kinds.held_out import HeldOut, PolicyResults
from innerloop.service.kinds.kind import JobKind, JobRequest, Source, Strict

LAYERS = ("application_encoder", "node_encoder", "context", "task", "actor", "critic", "cost")
"""As in ``innerloop.rl.policy``, which loads PyTorch; a test holds the two together."""

_LISTED = ", ".join(f"{number} {name}" for number, name in enumerate(LAYERS))


def _layer(number: int) -> int:
    if not 0 <= number < len(LAYERS):
        raise ValueError(f"there is no layer {number}; there are: {_LISTED}")
    return number


Layer = Annotated[int, Field(strict=True), AfterValidator(_layer)]


class TransferRequest(JobRequest):
    """Trains the policy of one job further on the family of another."""

    source_task_id: Identifier = Field(
        description="a completed job of kind tasks, transfer-tasks or meta-tasks, whose policy is taken"
    )
    target_task_id: Identifier = Field(
        description="a job of kind tasks whose task_distribution is learned; it need not have run"
    )
    transfer_type: Literal["feature_extraction", "fine_tuning", "layer_wise"] = Field(
        default="fine_tuning",
        description="feature_extraction trains the heads alone, fine_tuning everything; layer_wise freezes "
        "frozen_layers at first and thaws them one by one, that nearest to the action first",
    )
    frozen_layers: Annotated[tuple[Layer, ...], Field(max_length=len(LAYERS))] = Field(
        default=(0, 1), description=f"of layer_wise, by their places: {_LISTED}"
    )
    thaw_every: Episodes = Field(default=10, description="episodes until layer_wise thaws the next layer")
    learning_rate: Rate = Field(
        default=1e-4,
        description="of PPO, in training and on held-out clusters; from scratch PPO learns there at 1e-3",
    )
    total_episodes: Episodes = Field(
        default=50,
        description="rounds of PPO; each plays one episode on every one of its clusters, and learns",
    )
    clusters: Clusters = Field(default=64, description="simulated side by side in a round")
    seed: Seed = Field(default=0, description="of training")
    evaluation: HeldOut = Field(default=HeldOut(), description="how the policy is judged")


class TransferMetric(Strict):
    """What starting from another task brought, against training from scratch on the same clusters."""

    jumpstart: float = Field(description="the return before any episode, less that from scratch")
    area_ratio: float | None = Field(
        description="the area between the two adaptation curves, over that which the scratch curve gained; "
        "null if that gained nothing"
    )
    asymptotic_gain: float = Field(description="the return after the last episode, less that from scratch")


class ParameterDistance(Strict):
    """How far training moved the parameters, relative to their length (L2)."""

    whole: float = Field(description="of all parameters")
    layers: dict[str, float] = Field(description="of each layer; 0 for one that was frozen throughout")


class TransferResults(PolicyResults):
    """What came of a transfer."""

    transfer_metric: TransferMetric
    parameter_distance: ParameterDistance = Field(description="from the source policy")


def _sources(request: TransferRequest) -> dict[str, Source]:
    return {
        "source_task_id": Source(request.source_task_id, (Kind.TASKS, Kind.TRANSFER, Kind.META)),
        "target_task_id": Source(request.target_task_id, (Kind.TASKS,), model=False),
    }


TRANSFER = JobKind(
    kind=Kind.TRANSFER,
    title="Transfer tasks",
    summary="Trains a scaling policy of an earlier job further on another family of clusters.",
    request=TransferRequest,
    results=TransferResults,
    runs="innerloop.service.kinds.transfer_run:run",
    total=lambda request: request.total_episodes,
    sources=_sources,
    prefix=lambda _: "transfer",
    example={
        "name": "to larger clusters",
        "source_task_id": "5f2b8a1c9d3e4f6071829304",
        "target_task_id": "a1b2c3d4e5f60718293a4b5c",
        "transfer_type": "layer_wise",
        "frozen_layers": [0, 1],
        "thaw_every": 1,
        "learning_rate": 1e-3,
        "total_episodes": 3,
        "clusters": 4,
        "evaluation": {"clusters": 2, "episodes": 2, "adaptation_episodes": [0, 1]},
    },
)
