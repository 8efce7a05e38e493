"""A job as it is kept."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeAlias

from innerloop.service.jobs.states import State

JSON: TypeAlias = "Mapping[str, JSON] | list[JSON] | str | int | float | bool | None"
Settings = Mapping[str, JSON]
"""Plain data that the job's kind checked and reads again."""


class Kind(StrEnum):
    """What a job does; also its place in the API."""

    TASKS = "tasks"
    TRANSFER = "transfer-tasks"
    META = "meta-tasks"
    LLM = "llm-tasks"
    ADAPTATION = "adaptations"


@dataclass(frozen=True)
class Lease:
    """Who may write to a job, and until when.

    Args:
        worker: its name.
        token: rises by one whenever somebody takes the job; what carries an older one is refused.
        until: by the store's clock.
    """

    worker: str
    token: int
    until: datetime


@dataclass(frozen=True)
class Job:
    """One job.

    Args:
        kind: what it does.
        name: for people.
        description: for people.
        settings: what it was asked to do.
        total_episodes: steps of the whole run.
        id: unguessable.
        state: where it stands.
        keep: whether what it learned is kept when it is cancelled (``stop``).
        version: rises with every change of this record; watchers compare it.
        created_at: in UTC.
        updated_at: in UTC.
        started_at: when a worker first took it.
        finished_at: when it completed, failed or was cancelled.
        current_episode: steps done.
        metrics: the newest value of each.
        error_message: why it failed, one line.
        results: what came of it, as its kind describes it.
        model_path: where the trained model lies.
        wandb_run_id: of its W&B run, if it has one.
        lease: of its worker; kept after the end, for the token.
        losses: workers in a row that took it and were lost before they told of a step done.
        metric_count: metric values written so far.
        log_count: lines of the log written so far.
    """

    kind: Kind
    name: str
    description: str
    settings: Settings
    total_episodes: int
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    state: State = State.PENDING
    keep: bool = False
    version: int = 0
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    finished_at: datetime | None = None
    current_episode: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    error_message: str | None = None
    results: Settings | None = None
    model_path: str | None = None
    wandb_run_id: str | None = None
    lease: Lease | None = None
    losses: int = 0
    metric_count: int = 0
    log_count: int = 0

    @property
    def progress(self) -> float:
        """Between 0 and 100; 100 is kept for a job that completed."""
        if self.state is State.COMPLETED:
            return 100.0
        done = self.current_episode / self.total_episodes if self.total_episodes else 0.0
        return round(min(100 * done, 99.9), 1)


@dataclass(frozen=True)
class MetricValue:
    """One value of one metric.

    Args:
        step: that it belongs to.
        name: of the metric.
        value: a number; one that is not finite is kept as such.
        number: its place among all values of the job, from 1; given by the store.
    """

    step: int
    name: str
    value: float
    number: int = 0


@dataclass(frozen=True)
class LogLine:
    """One line of a job's log.

    Args:
        text: without its end.
        number: its place, from 1.
    """

    text: str
    number: int
