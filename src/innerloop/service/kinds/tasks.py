"""Training of a scaling policy by PPO."""

from pydantic import Field

from innerloop.service.jobs.job import Kind
from innerloop.service.kinds.distribution import SCALING, TaskDistribution
from innerloop.service.kinds.fields import Clusters, Episodes, Rate, Seed
from innerloop.service.kinds.held_out import HeldOut, PolicyResults
from innerloop.service.kinds.kind import JobKind, JobRequest


class TrainingRequest(JobRequest):
    """Trains a policy on clusters of one family."""

    task_distribution: TaskDistribution = Field(default=SCALING, description="the family of clusters")
    total_episodes: Episodes = Field(
        default=100,
        description="rounds of PPO; each plays one episode on every one of its clusters, and learns",
    )
    learning_rate: Rate = Field(default=1e-3, description="of PPO")
    clusters: Clusters = Field(default=64, description="simulated side by side in a round")
    seed: Seed = Field(default=0, description="of training")
    evaluation: HeldOut = Field(default=HeldOut(), description="how the policy is judged")


class TrainingResults(PolicyResults):
    """What came of a training by PPO."""

    training: dict[str, float | None] = Field(description="the metrics of the last round")


TASKS = JobKind(
    kind=Kind.TASKS,
    title="Training tasks",
    summary="Trains a scaling policy for Kubernetes by PPO on clusters of one family.",
    request=TrainingRequest,
    results=TrainingResults,
    runs="innerloop.service.kinds.tasks_run:run",
    total=lambda request: request.total_episodes,
    sources=lambda _: {},
    prefix=lambda _: "ppo",
    example={
        "name": "scaling by PPO",
        "task_distribution": {
            "kubernetes_scaling": {"max_pods": [4, 8], "cpu_requirement": [100, 250], "steps": 10}
        },
        "total_episodes": 4,
        "clusters": 4,
        "evaluation": {"clusters": 2, "episodes": 2, "adaptation_episodes": [0, 1]},
    },
)
