"""What a move, a claim, a report and an outcome make of a job; the same whatever database keeps it.

Functions of a job and the store's time. That nobody else changes the job meanwhile is the stores' work.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from innerloop.service.jobs.job import Job, Lease, LogLine, MetricValue
from innerloop.service.jobs.states import State, ended, left
from innerloop.service.jobs.store import Outcome, Report
from innerloop.service.stores.text import storable


def due(job: Job) -> datetime | None:
    """From when on a worker may take the job, if it may at all; who waited longest has the earliest.

    A queued job is not changed until it is taken or moved, so its last change is when it was queued.
    """
    if job.state is State.QUEUED:
        return job.updated_at
    return job.lease.until if job.state.held and job.lease is not None else None


def moved(job: Job, to: State, keep: bool, now: datetime) -> Job:
    """The job after a person moved it."""
    afresh = to is State.QUEUED
    return replace(
        _settled(replace(job, keep=keep), to, now),
        error_message=None if afresh else job.error_message,
        losses=0 if afresh else job.losses,
    )


def taken(job: Job, worker: str, seconds: float, most_losses: int, now: datetime) -> Job:
    """The job after a worker took it; one that it found lost may come to rest instead of running again."""
    losses = job.losses + 1 if job.state.held else job.losses
    if job.state in (State.PAUSING, State.CANCELLING):
        return _settled(job, left(job.state), now)
    if losses > most_losses:
        message = f"{losses} workers in a row were lost before they had done a step"
        return replace(_settled(job, State.FAILED, now), losses=losses, error_message=message)
    token = job.lease.token + 1 if job.lease is not None else 1
    return replace(
        _settled(job, State.RUNNING, now),
        started_at=job.started_at or now,
        lease=Lease(worker, token, now + timedelta(seconds=seconds)),
        losses=losses,
    )


def renewed(job: Job, seconds: float, now: datetime) -> Job:
    """The job with a longer lease: no news for those who watch it."""
    if job.lease is None:
        return job
    return replace(job, lease=replace(job.lease, until=now + timedelta(seconds=seconds)))


def reported(
    job: Job, report: Report, values: Sequence[MetricValue], lines: Sequence[LogLine], now: datetime
) -> Job:
    """The job after a worker's news.

    Args:
        job: before.
        report: what the worker tells.
        values: its metric values that are new, see :func:`fresh_values`.
        lines: its lines that are new, see :func:`fresh_lines`.
        now: the store's time.
    """
    # A resumed run goes through steps again that were told of before; progress does not run backwards.
    step = max(job.current_episode, report.step or 0)
    told = replace(
        job,
        current_episode=step,
        losses=0 if step > job.current_episode else job.losses,
        metrics={**job.metrics, **{value.name: value.value for value in values}} if values else job.metrics,
        metric_count=values[-1].number if values else job.metric_count,
        log_count=lines[-1].number if lines else job.log_count,
        wandb_run_id=report.wandb_run_id or job.wandb_run_id,
    )
    if _same(told, job):
        return job
    return replace(told, version=job.version + 1, updated_at=now)


def finished(job: Job, outcome: Outcome, now: datetime) -> Job:
    """The job after its worker is done with it."""
    to = left(job.state) if outcome.state is None else ended(job.state, outcome.state)
    told = replace(
        job,
        # A worker that gave the job back in an orderly way was not lost.
        losses=0,
        error_message=outcome.error_message if to is State.FAILED else None,
        results=outcome.results if outcome.results is not None else job.results,
        model_path=outcome.model_path or job.model_path,
    )
    return _settled(told, to, now)


def _settled(job: Job, to: State, now: datetime) -> Job:
    thrown_away = to is State.CANCELLED and not job.keep
    return replace(
        job,
        state=to,
        version=job.version + 1,
        updated_at=now,
        finished_at=now if to.over else None,
        model_path=None if thrown_away else job.model_path,
    )


def _same(told: Job, job: Job) -> bool:
    # The counts stand for the metrics, whose values may be NaN and so differ from themselves.
    return (told.current_episode, told.metric_count, told.log_count, told.wandb_run_id) == (
        job.current_episode,
        job.metric_count,
        job.log_count,
        job.wandb_run_id,
    )


def fresh_values(values: Sequence[MetricValue], known: set[tuple[int, str]], count: int) -> list[MetricValue]:
    """The values that are new, each once, numbered from the one after ``count``.

    Args:
        values: as told.
        known: steps and names that are there already.
        count: values there are.
    """
    new: dict[tuple[int, str], float] = {}
    for value in values:
        # As it is kept, since that is how the known names were read.
        name = storable(value.name)
        if (value.step, name) not in known:
            new.setdefault((value.step, name), float(value.value))
    return [
        MetricValue(step, name, value, number)
        for number, ((step, name), value) in enumerate(new.items(), start=count + 1)
    ]


def fresh_lines(lines: Sequence[LogLine], count: int) -> list[LogLine]:
    """The lines that are new, in the order of their numbers, ready to be kept.

    One below the last line there counts as there: who has read up to that one would not see it any more.

    Args:
        lines: as told.
        count: the last line's number.
    """
    new = {line.number: LogLine(storable(line.text), line.number) for line in lines if line.number > count}
    return [new[number] for number in sorted(new)]
