"""What every kind of job says of itself: the request that makes one, how it runs, what it gives.

A new kind is one module that makes a :class:`JobKind`, and a place in the list of
``innerloop.service.kinds``. The part that runs is named, not imported: it needs libraries that only the
process of a job shall load.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints

from innerloop.service.jobs.job import Kind, Settings

NO_NUL = r"^[^\x00]*$"
"""PostgreSQL keeps no text with a NUL in it."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True, pattern=NO_NUL)]
Text = Annotated[str, StringConstraints(max_length=4000, pattern=NO_NUL)]


class Strict(BaseModel):
    """Plain data: what is not known is refused, so is what JSON has no number for, and nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class JobRequest(Strict):
    """What every request for a job holds."""

    name: Name
    description: Text = ""


class Results(Strict):
    """What came of a job that completed."""


RUN_GROUPS = ("meta", "train")
"""What the core's trainer puts before the names of what it measures of a whole step."""

S = TypeVar("S", bound=JobRequest)
R = TypeVar("R", bound=Results)


@dataclass(frozen=True)
class SourceJob:
    """Another job that was named in a request, as it stood when this one was taken up.

    Args:
        settings: what it was asked to do.
        model: the folder of its trained model, if it has one.
    """

    settings: Settings
    model: Path | None


@dataclass(frozen=True)
class Place:
    """Where a job runs, and what it starts from.

    Args:
        folder: the job's own. A run goes on from the checkpoints it finds there, and writes
            ``metrics.jsonl`` into ``folder / "run"``.
        sources: the jobs that the request named, by its fields.
        library: the folder that holds the models and the data sets which requests may name.
    """

    folder: Path
    sources: Mapping[str, SourceJob] = field(default_factory=dict)
    library: Path | None = None

    @property
    def run(self) -> Path:
        """The folder of checkpoints and metrics."""
        return self.folder / "run"


@dataclass(frozen=True)
class Finished(Generic[R]):
    """What a run gives at its end.

    Args:
        results: as the kind describes them.
        model: the trained model's folder, within the job's own.
    """

    results: R
    model: Path | None


class Run(Protocol[S, R]):  # type: ignore[misc]  # results are given, requests are taken
    """Does a job's work from wherever it stands to the end, in a process of its own."""

    def __call__(self, request: S, place: Place) -> Finished[R]:
        """Runs.

        Raises:
            InputError: the request cannot be met; the job fails with this line.
            NonFiniteError: the same.
            Interrupted: SIGTERM came; all is saved to go on from.
        """


@dataclass(frozen=True)
class JobKind(Generic[S, R]):
    """One kind of job.

    Args:
        kind: its name and place in the API.
        title: for people, in the plural.
        summary: one line on what it does.
        request: the model of the body that makes one.
        results: the model of what it gives.
        runs: ``module:function`` of its :class:`Run`.
        total: steps of the whole run.
        sources: jobs that it starts from, by the request's field: identifier and kinds allowed.
        prefix: what its metrics' names begin with, for example ``maml``.
        example: a body that the documentation shows and the tests submit.
        left_out: beginnings of names of the run's metrics that are not the job's: series that would be new at
            every step.
        content: fields of the request that hold people's own data, which leaves the service for nowhere else.
    """

    kind: Kind
    title: str
    summary: str
    request: type[S]
    results: type[R]
    runs: str
    total: Callable[[S], int]
    sources: Callable[[S], Mapping[str, "Source"]]
    prefix: Callable[[S], str]
    example: Mapping[str, object]
    left_out: tuple[str, ...] = ()
    content: tuple[str, ...] = ()

    def metric_name(self, request: S, name: str) -> str | None:
        """What a metric of the run is called among the job's; none where it is not one of them.

        ``meta/loss`` of the core's trainer becomes ``maml/loss`` in a job whose prefix is ``maml``.
        """
        if name.startswith(self.left_out):
            return None
        prefix = self.prefix(request)
        own = next((group for group in (prefix, *RUN_GROUPS) if name.startswith(f"{group}/")), None)
        return f"{prefix}/{name if own is None else name.removeprefix(f'{own}/')}"

    def load(self) -> Run[S, R]:
        """The function that runs it, its libraries imported."""
        module, function = self.runs.split(":")
        found: Run[S, R] = getattr(import_module(module), function)
        return found


@dataclass(frozen=True)
class Source:
    """Another job that a job starts from.

    Args:
        identifier: its id.
        kinds: what it may be.
        model: whether its trained model is needed, so that it must have completed before the job runs.
    """

    identifier: str
    kinds: tuple[Kind, ...]
    model: bool = True


AnyKind = JobKind[Any, Any]
"""A kind where it does not matter which."""
