"""A job as a row of named values and back; SQL's tables and MongoDB's documents have the same names."""

from collections.abc import Mapping
from typing import Any, cast

from innerloop.service.jobs.job import Job, Kind, Lease, Settings
from innerloop.service.jobs.states import State
from innerloop.service.stores.changes import due

Row = dict[str, Any]
"""Values by name, of the job's own types; each database makes its own of these."""


def new_row(job: Job) -> Row:
    """All columns of a job."""
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "description": job.description,
        "settings": job.settings,
        "total_episodes": job.total_episodes,
        "created_at": job.created_at,
        **changed_row(job),
    }


def changed_row(job: Job) -> Row:
    """The columns that may change after a job was created."""
    return {
        "state": job.state,
        "keep": job.keep,
        "version": job.version,
        "updated_at": job.updated_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "current_episode": job.current_episode,
        "metrics": job.metrics,
        "error_message": job.error_message,
        "results": job.results,
        "model_path": job.model_path,
        "wandb_run_id": job.wandb_run_id,
        "lease_worker": job.lease.worker if job.lease else None,
        "lease_token": job.lease.token if job.lease else None,
        "lease_until": job.lease.until if job.lease else None,
        "metric_count": job.metric_count,
        "log_count": job.log_count,
        "losses": job.losses,
        "due_at": due(job),
    }


def job_of(row: Mapping[str, Any]) -> Job:
    """The job that a row keeps."""
    lease = None
    if row["lease_until"] is not None:
        lease = Lease(row["lease_worker"], row["lease_token"], row["lease_until"])
    return Job(
        kind=Kind(row["kind"]),
        name=row["name"],
        description=row["description"],
        settings=cast(Settings, row["settings"]),
        total_episodes=row["total_episodes"],
        id=row["id"],
        state=State(row["state"]),
        keep=row["keep"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        current_episode=row["current_episode"],
        metrics=row["metrics"],
        error_message=row["error_message"],
        results=row["results"],
        model_path=row["model_path"],
        wandb_run_id=row["wandb_run_id"],
        lease=lease,
        losses=row["losses"],
        metric_count=row["metric_count"],
        log_count=row["log_count"],
    )
