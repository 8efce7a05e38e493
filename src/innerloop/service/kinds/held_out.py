"""What the three kinds that train scaling policies share: how they are judged, and what comes of it."""

from typing import Annotated

from pydantic import AfterValidator, Field

from innerloop.service.kinds.fields import Seed
from innerloop.service.kinds.kind import Results, Strict


def _a_curve(episodes: tuple[int, ...]) -> tuple[int, ...]:
    if len(episodes) < 2 or episodes[0] != 0 or list(episodes) != sorted(set(episodes)):
        raise ValueError(
            "must begin with 0 and rise, with at least one number more, for example [0, 1, 3, 5]"
        )
    return episodes


_Adaptation = Annotated[int, Field(strict=True, ge=0, le=100)]


class HeldOut(Strict):
    """Held-out clusters of the family, the same ones for every job of the family and the seeds."""

    clusters: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(default=5, description="how many")
    seeds: Annotated[int, Field(strict=True, ge=1, le=20)] = Field(
        default=1, description="of adaptation on each"
    )
    episodes: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=10, description="that a return is the mean of"
    )
    adaptation_episodes: Annotated[
        tuple[_Adaptation, ...], Field(min_length=2, max_length=20), AfterValidator(_a_curve)
    ] = Field(
        default=(0, 1, 3, 5), description="after how many episodes of adaptation returns are measured; from 0"
    )
    seed: Seed = Field(default=0, description="of the episodes")


class CurvePoint(Strict):
    """How the policy does after so many episodes on a held-out cluster."""

    episodes: int = Field(description="of adaptation")
    mean: float = Field(description="return, the mean over clusters")
    low: float | None = Field(description="of its 95 % interval; null for a single cluster")
    high: float | None = Field(description="of its 95 % interval; null for a single cluster")
    slo_violations: float = Field(description="share of the requests that took longer than allowed")


class AdaptationSpeed(Strict):
    """How soon adaptation pays."""

    episodes: int | None = Field(
        description="the fewest measured after which 90 % of the final gain is there; null if none was"
    )
    area: float = Field(description="the mean height of the adaptation curve above its beginning")


class PolicyResults(Results):
    """What came of training a scaling policy, measured on held-out clusters."""

    task_performance: dict[str, float] = Field(
        description="return on each held-out cluster after the last episode of adaptation"
    )
    adaptation_curve: list[CurvePoint] = Field(description="of the trained policy")
    scratch_curve: list[CurvePoint] = Field(
        description="of a policy that begins with nothing learned and trains on the cluster alone"
    )
    baselines: dict[str, float] = Field(description="mean return of each controller that does not learn")
    adaptation_speed: AdaptationSpeed
    adaptation_accuracy: float | None = Field(
        description="the return after adaptation, between that of random actions (0) and that of the best "
        "fixed number of replicas in hindsight (1); null for families without that oracle"
    )
    slo_violations: float = Field(description="share of the requests after adaptation")
    environment_steps: int = Field(description="control steps simulated to learn from")
    training_seconds: float = Field(description="of computing")
