"""Meta-learning of a scaling policy over many clusters."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from innerloop.service.jobs.job import Kind
from innerloop.service.kinds.distribution import SCALING, TaskDistribution
from innerloop.service.kinds.fields import Episodes, Identifier, Rate, Seed
from innerloop.service.kinds.held_out import HeldOut, PolicyResults
from innerloop.service.kinds.kind import JobKind, JobRequest, Source

MetaAlgorithm = Literal["maml", "fomaml", "implicit_fomaml", "reptile"]


USUAL_BATCH, FIRST_ORDER_BATCH = 4, 6
FIRST_ORDER = ("fomaml", "implicit_fomaml")


class MetaRequest(JobRequest):
    """Meta-trains a policy that adapts to a new cluster of the family within a few episodes."""

    meta_algorithm: MetaAlgorithm = Field(default="maml", description="how the meta-gradient is had")
    inner_lr: Rate = Field(
        default=0.01,
        description="of the inner loop; maml and fomaml learn it, for each tensor and step, from there",
    )
    outer_lr: Rate = Field(default=0.001, description="of the outer optimizer")
    adaptation_steps: Annotated[int, Field(strict=True, ge=1, le=50)] = Field(
        default=5, description="of the inner loop, each on one episode"
    )
    meta_batch_size: Annotated[int, Field(strict=True, ge=1, le=256)] = Field(
        default=USUAL_BATCH,
        description=f"clusters in a meta-batch; unless given {USUAL_BATCH}, and {FIRST_ORDER_BATCH} for "
        f"{' and '.join(FIRST_ORDER)}",
    )
    task_distribution: TaskDistribution = Field(default=SCALING, description="the family of clusters")
    total_episodes: Episodes = Field(
        default=100,
        description="meta-steps; each plays episodes to adapt on and to be judged by on every cluster of a "
        "new meta-batch, and learns",
    )
    source_task_id: Identifier | None = Field(
        default=None,
        description="a completed RL job whose policy is begun with; none begins with nothing learned",
    )
    seed: Seed = Field(default=0, description="of training")
    evaluation: HeldOut = Field(default=HeldOut(), description="how the policy is judged")

    @model_validator(mode="before")
    @classmethod
    def _usual_batch(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("meta_algorithm") in FIRST_ORDER:
            return {"meta_batch_size": FIRST_ORDER_BATCH, **given}
        return given


class MetaResults(PolicyResults):
    """What came of meta-learning."""

    meta_loss: float | None = Field(
        description="loss of the adapted policies on the query episodes, in the last meta-step"
    )
    gradient_norm: float | None = Field(
        description="of the meta-gradient, after backward and before clipping, in the last meta-step"
    )


def _sources(request: MetaRequest) -> dict[str, Source]:
    if request.source_task_id is None:
        return {}
    return {"source_task_id": Source(request.source_task_id, (Kind.TASKS, Kind.TRANSFER, Kind.META))}


def _prefix(request: MetaRequest) -> str:
    return request.meta_algorithm if request.meta_algorithm in ("maml", "fomaml") else "meta"


META = JobKind(
    kind=Kind.META,
    title="Meta-learning tasks",
    summary="Meta-trains a scaling policy that adapts to a new cluster within a few episodes.",
    request=MetaRequest,
    results=MetaResults,
    runs="innerloop.service.kinds.meta_run:run",
    total=lambda request: request.total_episodes,
    sources=_sources,
    prefix=_prefix,
    example={
        "name": "scaling by FOMAML",
        "meta_algorithm": "fomaml",
        "adaptation_steps": 2,
        "meta_batch_size": 2,
        "task_distribution": {"kubernetes_scaling": {"max_pods": [4, 8], "steps": 10}},
        "total_episodes": 4,
        "evaluation": {"clusters": 2, "episodes": 2, "adaptation_episodes": [0, 1, 2]},
    },
    # Every meta-batch is of new clusters.
    left_out=("kubernetes_scaling/", "load_balancing/"),
)
