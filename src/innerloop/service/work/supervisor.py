"""One claimed job from the claim to its end.

Its process runs; what that writes reaches the store, and each report renews the lease; what people ask of the
job reaches the process.
"""

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from innerloop.core.errors import InputError
from innerloop.service.jobs.job import Job
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Claim, JobStore, LeaseLost, Outcome, Report, StoreUnavailable
from innerloop.service.kinds import KINDS
from innerloop.service.kinds.kind import SourceJob
from innerloop.service.work.folder import JobFolder, JobFolders, Order
from innerloop.service.work.mirror import Mirror, mirror_of
from innerloop.service.work.process import JobProcess
from innerloop.service.work.settings import WorkerSettings
from innerloop.service.work.tail import MOST_ROWS_AT_ONCE, LogTail, MetricTail

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class _Attempt:
    """One process of a job, and what of its news the store does not have yet."""

    folder: JobFolder
    process: JobProcess
    metrics: MetricTail
    log: LogTail
    mirror: Mirror
    untold: Report | None = None
    ended: bool = False

    def news(self) -> Report:
        """What the store shall be told next: the same again until it was.

        Raises:
            InputError: the metrics are damaged.
        """
        if self.untold is None:
            # Looked at before its files: what it wrote before it ended is then among the news.
            self.ended = self.process.status() is not None
            values = self.metrics.read()
            self.untold = Report(
                step=max((value.step for value in values), default=None),
                metrics=values,
                lines=self.log.read(self.ended),
                wandb_run_id=self.mirror.run_id(),
            )
        return self.untold

    def told(self, news: Report) -> None:
        """The store has them."""
        self.mirror.log(news.metrics)
        self.untold = None


class Supervisor:
    """Runs claimed jobs, one at a time.

    Args:
        store: of jobs.
        settings: the worker's.
        stopping: whether the worker shall stop; a job is then given back, to go on elsewhere.
    """

    def __init__(self, store: JobStore, settings: WorkerSettings, stopping: Callable[[], bool]) -> None:
        self._store, self._settings, self._stopping = store, settings, stopping
        self._folders = JobFolders(settings.jobs)
        self._renewed = 0.0

    def run(self, claim: Claim) -> None:
        """Works on a job until it ends, pauses, is cancelled, or is lost to another worker."""
        self._renewed = time.monotonic()
        try:
            job = self._patiently(lambda: self._report(claim, Report()))
            try:
                outcome = self._work(claim, job)
            except InputError as error:
                outcome = Outcome(State.FAILED, error_message=str(error))
            except LeaseLost:
                raise
            except Exception as fault:  # one that would bring down every worker, one after the other
                logger.exception("job %s: the worker cannot go on with it", claim.id)
                outcome = Outcome(State.FAILED, error_message=f"the worker's fault: {_line(fault)}")
            ended = self._patiently(lambda: self._store.finish(claim, outcome))
            logger.info("job %s (%s): %s", ended.id, ended.name, ended.state)
            if ended.state is State.CANCELLED and not ended.keep:
                self._forget_run(ended.id)
        except LeaseLost as loss:
            logger.warning("job %s is not this worker's any more: %s", claim.id, loss)

    def _forget_run(self, identifier: str) -> None:
        try:
            self._folders.of(identifier).forget_run()
        except OSError as error:
            logger.warning("the run of the cancelled job %s is not removed whole: %s", identifier, error)

    def _work(self, claim: Claim, job: Job) -> Outcome:
        """Runs processes until one comes to an end that is no crash.

        Raises:
            InputError: the job cannot begin.
            LeaseLost: it is another worker's.
        """
        folder = self._folders.of(job.id)
        order = self._order(job)
        for number in range(1, self._settings.attempts + 1):
            folder.give(order)
            attempt = self._begin(folder, job)
            try:
                job = self._follow(claim, attempt)
                if (outcome := self._outcome(attempt)) is not None:
                    return outcome
                logger.warning(
                    "job %s: its process %s, attempt %d", job.id, _ending(attempt.process.status()), number
                )
            finally:
                attempt.process.close()
                attempt.mirror.close()
        ending = _ending(attempt.process.status())
        return Outcome(
            State.FAILED,
            error_message=f"its process {ending} {number} times in a row; the log tells more, and resuming "
            "goes on from the last checkpoint",
        )

    def _order(self, job: Job) -> Order:
        """What the process is to do.

        Raises:
            InputError: a job it starts from is gone, or has no trained model.
        """
        kind = KINDS[job.kind]
        sources = {}
        for field_, wanted in kind.sources(kind.request.model_validate(job.settings)).items():
            found = self._patiently(partial(self._store.get, wanted.identifier))
            if found is None:
                raise InputError(f"{field_}: there is no job {wanted.identifier} any more")
            if wanted.model and found.model_path is None:
                raise InputError(
                    f"{field_}: job {wanted.identifier} has no trained model; it must complete first"
                )
            model = None if found.model_path is None else self._folders.root / found.model_path
            sources[field_] = SourceJob(found.settings, model)
        return Order(job.kind, job.settings, sources, self._settings.library)

    def _begin(self, folder: JobFolder, job: Job) -> _Attempt:
        kind, settings = KINDS[job.kind], self._settings
        request = kind.request.model_validate(job.settings)
        process = JobProcess(folder, settings.lease, settings.grace)
        return _Attempt(
            folder,
            process,
            MetricTail(folder.metrics, partial(kind.metric_name, request)),
            LogTail(folder.log, job.log_count),
            mirror_of(folder, job),
        )

    def _follow(self, claim: Claim, attempt: _Attempt) -> Job:
        """Carries news and wishes until the process has ended and all its news are told; gives the job then.

        Raises:
            LeaseLost: it is another worker's.
        """
        while True:
            news = attempt.news()
            count = len(news.metrics) + len(news.lines)
            try:
                job = self._report(claim, news)
            except StoreUnavailable as failure:
                self._bear(failure)
                count = 0
            else:
                attempt.told(news)
                attempt.process.beat()
                if attempt.ended and not count:
                    return job
                if job.state in (State.PAUSING, State.CANCELLING):
                    attempt.process.ask_to_stop()
            if self._stopping():
                attempt.process.ask_to_stop()
            # Much means more: a log that grows fast, or the rows of a job that was taken over.
            if count < MOST_ROWS_AT_ONCE:
                time.sleep(self._settings.pause)

    def _outcome(self, attempt: _Attempt) -> Outcome | None:
        """How the process ended; none for a crash."""
        said = attempt.folder.outcome()
        if said is not None:
            return replace(said, model_path=self._relative(said.model_path))
        if attempt.process.interrupted:
            return Outcome(None, model_path=self._relative(attempt.folder.checkpoint()))
        return None

    def _relative(self, path: str | None) -> str | None:
        """A model's place within the folder of jobs, which may be mounted elsewhere on another machine."""
        if path is None:
            return None
        return Path(path).relative_to(self._folders.root).as_posix()

    def _report(self, claim: Claim, report: Report) -> Job:
        job = self._store.report(claim, report, self._settings.lease)
        self._renewed = time.monotonic()
        return job

    def _patiently(self, call: Callable[[], T]) -> T:
        """The call's answer, as soon as the store gives one while the lease holds.

        Raises:
            LeaseLost: the store was away for too long.
        """
        while True:
            try:
                return call()
            except StoreUnavailable as failure:
                self._bear(failure)
                time.sleep(self._settings.pause)

    def _bear(self, failure: StoreUnavailable) -> None:
        """Goes on without the store while the lease holds.

        Raises:
            LeaseLost: it ran out.
        """
        if time.monotonic() - self._renewed > self._settings.lease:
            raise LeaseLost(f"the store was not reached while the lease lasted ({failure})") from failure
        logger.warning("the store is not reached, trying again: %s", failure)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with status {status} and no outcome"
