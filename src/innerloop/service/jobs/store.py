"""What a store of jobs does: a record of them, a queue for workers, a fence against workers that were lost.

Every change is atomic. Whoever takes a job gets a lease and a token; each report renews the lease. A lease
that ran out may be taken by another worker with the next token, and from then on reports with the old token
are refused, whatever the old worker believes.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from innerloop.core.errors import InnerloopError
from innerloop.service.jobs.job import Job, Kind, LogLine, MetricValue, Settings
from innerloop.service.jobs.states import State


class StoreUnavailable(InnerloopError):  # noqa: N818 - it says what is so, not what went wrong here
    """The database cannot be reached or gave up; the same call may succeed later."""


class LeaseLost(InnerloopError):  # noqa: N818 - as above
    """The job is another worker's now, or nobody's; the caller must stop working on it."""


class KeyReused(InnerloopError):  # noqa: N818 - as above
    """An idempotency key came back with another request."""


@dataclass(frozen=True)
class IdempotencyKey:
    """Makes a creation that is sent twice happen once.

    Args:
        key: the client's.
        fingerprint: of the request; the same key with another one is refused.
    """

    key: str
    fingerprint: str


@dataclass(frozen=True)
class Claim:
    """A worker's right to a job.

    Args:
        id: of the job.
        worker: its name.
        token: see :class:`~innerloop.service.jobs.job.Lease`.
    """

    id: str
    worker: str
    token: int


@dataclass(frozen=True)
class Report:
    """What a worker tells of a job; one with nothing in it only renews the lease.

    Args:
        step: steps done, if there is news.
        metrics: values; those of a step and name that are there already are left as they are.
        lines: of the log; those whose number is there already are left as they are, so a report that is sent
            again, since nobody knows whether it arrived, doubles nothing.
        wandb_run_id: once there is one.
    """

    step: int | None = None
    metrics: Sequence[MetricValue] = ()
    lines: Sequence[LogLine] = ()
    wandb_run_id: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        state: ``completed`` or ``failed``; none says that it stopped before its end and can go on.
        error_message: why it failed, one line.
        results: what came of it.
        model_path: where the trained model lies.
    """

    state: State | None
    error_message: str | None = None
    results: Settings | None = None
    model_path: str | None = None


@dataclass(frozen=True)
class Page:
    """Some of the jobs that were asked for, newest first.

    Args:
        jobs: these.
        total: how many there are in all.
    """

    jobs: list[Job] = field(default_factory=list)
    total: int = 0


class JobStore(Protocol):
    """All stores do the same; one suite of tests runs against each of them.

    Every method raises :class:`StoreUnavailable` where the database cannot be reached.
    """

    def create(self, job: Job, key: IdempotencyKey | None = None) -> Job:
        """Keeps a new job; gives it back, or the job that the key created before.

        Raises:
            KeyReused: the key created a job for another request.
        """

    def get(self, identifier: str) -> Job | None:
        """The job as it is now; none where there is none."""

    def page(self, kind: Kind | None, states: Collection[State] = (), skip: int = 0, limit: int = 50) -> Page:
        """Jobs of a kind (none: of all) in some states (none: in all), newest first."""

    def move(self, identifier: str, seen: State, to: State, keep: bool = False) -> Job | None:
        """Moves a job from the state it was seen in; none where it is not in that state any more."""

    def delete(self, identifier: str) -> bool:
        """Forgets a job that no worker holds, with its metrics and log; whether there was one to forget."""

    def claim(self, worker: str, seconds: float, most_losses: int) -> Claim | None:
        """Takes the job that waited longest, queued or with a lease that ran out; none where there is none.

        A job lost with its worker while ``pausing`` or ``cancelling`` is ``paused`` or ``cancelled`` then,
        and one that was lost more than ``most_losses`` times in a row without a step done is ``failed``.

        Args:
            worker: its name.
            seconds: the lease's length.
            most_losses: see above.
        """

    def report(self, claim: Claim, report: Report, seconds: float) -> Job:
        """Writes a report and renews the lease by so many seconds; gives the job as it is then.

        Raises:
            LeaseLost: the claim's token is not the job's any more, or nobody holds it.
        """

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
        """Ends a worker's part, as :func:`~innerloop.service.jobs.states.ended` or ``left`` say.

        Raises:
            LeaseLost: as :meth:`report`.
        """

    def metrics(
        self,
        identifier: str,
        name: str | None = None,
        since_step: int = 0,
        after: int = 0,
        limit: int = 10_000,
    ) -> list[MetricValue]:
        """Values of a job in the order of their numbers.

        Args:
            identifier: of the job.
            name: of one metric; none gives all.
            since_step: the first step wanted.
            after: only values with higher numbers.
            limit: at most so many.
        """

    def lines(self, identifier: str, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """Lines of a job's log with higher numbers than ``after``, in their order."""

    def counts(self) -> dict[tuple[Kind, State], int]:
        """How many jobs there are of each kind in each state; those without a job may be missing."""

    def close(self) -> None:
        """Lets go of all connections."""
