"""What the routes answer."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from innerloop.service.jobs.job import Job, Kind, LogLine, MetricValue
from innerloop.service.jobs.states import Action, State, allowed
from innerloop.service.kinds.kind import AnyKind


class View(BaseModel):
    """Plain data for a client."""

    model_config = ConfigDict(frozen=True)


class JobView(View):
    """A job of any kind."""

    id: str
    kind: Kind
    name: str
    description: str
    state: State
    actions: list[Action] = Field(description="What may be asked of the job in this state")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: float = Field(ge=0, le=100)
    current_episode: int
    total_episodes: int
    metrics: dict[str, float | None] = Field(
        description="The newest value of each metric; null where it is not finite"
    )
    error_message: str | None
    model_path: str | None = Field(description="Of the trained model, within the service's folder of jobs")
    wandb_run_id: str | None


class PageView(View):
    """Some of the jobs, newest first, without what was asked of each in detail."""

    items: list[JobView]
    total: int
    skip: int
    limit: int


class ProgressView(View):
    """How far a job is."""

    id: str
    state: State
    progress: float = Field(ge=0, le=100)
    current_episode: int
    total_episodes: int
    metrics: dict[str, float | None]
    error_message: str | None
    updated_at: datetime


class MetricView(View):
    """One value of one metric."""

    number: int = Field(description="Its place among all values of the job, from 1")
    step: int
    name: str
    value: float | None = Field(description="Null where it is not finite")


class MetricsView(View):
    """Values in the order they were written in."""

    id: str
    values: list[MetricView]
    next: int | None = Field(description="What to give as `after` for more; null where there are no more")


class LineView(View):
    """One line of a log."""

    number: int = Field(description="Its place, from 1")
    text: str


class LogsView(View):
    """Lines in their order."""

    id: str
    lines: list[LineView]
    next: int | None = Field(description="What to give as `after` for more; null where there are no more")


class ErrorView(View):
    """What was wrong with a request."""

    detail: str


class FieldError(View):
    """What was wrong with one field of a request."""

    loc: list[str | int]
    msg: str
    type: str


class FieldErrorsView(View):
    """What was wrong with the fields of a request."""

    detail: list[FieldError]


class HealthView(View):
    """Whether the service can do its work."""

    status: str
    version: str
    store: str


def job_view(job: Job) -> JobView:
    """A job without the details of its request."""
    return JobView(**_common(job))


def detail_model(kind: AnyKind) -> type[JobView]:
    """The view of one kind: a job and the fields of its request."""
    asked, known = kind.request.model_fields.items(), JobView.model_fields
    fields: dict[str, Any] = {name: (info.annotation, info) for name, info in asked if name not in known}
    name = f"{kind.request.__name__.removesuffix('Request')}View"
    found: type[JobView] = create_model(name, __base__=JobView, **fields)
    return found


def detail_view(job: Job, kind: AnyKind, model: type[JobView]) -> JobView:
    """A job with the fields of its request."""
    request = kind.request.model_validate(job.settings)
    fields = {name: getattr(request, name) for name in kind.request.model_fields}
    return model(**fields | _common(job))


def results_model(kind: AnyKind) -> type[View]:
    """The view of what a kind gives."""
    fields: dict[str, Any] = {"id": (str, ...), "state": (State, ...), "results": (kind.results, ...)}
    found: type[View] = create_model(f"{kind.results.__name__}View", __base__=View, **fields)
    return found


def progress_view(job: Job) -> ProgressView:
    """How far a job is."""
    common = _common(job)
    return ProgressView(**{name: common[name] for name in ProgressView.model_fields})


def metric_views(values: list[MetricValue]) -> list[MetricView]:
    """Values as JSON can hold them."""
    return [MetricView(number=v.number, step=v.step, name=v.name, value=_finite(v.value)) for v in values]


def line_views(lines: list[LogLine]) -> list[LineView]:
    """Lines of a log."""
    return [LineView(number=line.number, text=line.text) for line in lines]


def _common(job: Job) -> dict[str, Any]:
    return {
        **{name: getattr(job, name) for name in JobView.model_fields if name not in ("actions", "metrics")},
        "actions": list(allowed(job.state)),
        "metrics": _all_finite(job.metrics),
    }


def _all_finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in metrics.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
