"""Jobs of every kind in every state, as a worker would have left them, without running anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from innerloop.service.jobs.job import Job, Kind, LogLine, MetricValue
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Claim, JobStore, Outcome, Report
from innerloop.service.kinds import KINDS

LONG = 600.0
"""Seconds of a lease that does not end during a test."""

_POLICY: Mapping[str, Any] = {
    "task_performance": {"cluster 1": -3.5},
    "adaptation_curve": [{"episodes": 0, "mean": -4.0, "low": None, "high": None, "slo_violations": 0.1}],
    "scratch_curve": [{"episodes": 0, "mean": -9.0, "low": -10.0, "high": -8.0, "slo_violations": 0.4}],
    "baselines": {"hpa": -5.0},
    "adaptation_speed": {"episodes": 1, "area": 0.5},
    "adaptation_accuracy": 0.75,
    "slo_violations": 0.05,
    "environment_steps": 400,
    "training_seconds": 1.5,
}
_MARKS = {"loss": 1.0, "accuracy": 0.5, "strict_accuracy": 0.5, "token_accuracy": 0.75}

RESULTS: Mapping[Kind, Mapping[str, Any]] = {
    Kind.TASKS: {**_POLICY, "training": {"ppo/return": -3.0}},
    Kind.TRANSFER: {
        **_POLICY,
        "transfer_metric": {"jumpstart": 1.0, "area_ratio": None, "asymptotic_gain": 0.5},
        "parameter_distance": {"whole": 0.1, "layers": {"trunk": 0.0}},
    },
    Kind.META: {**_POLICY, "meta_loss": 0.25, "gradient_norm": 1.5},
    Kind.LLM: {
        "meta_loss": 2.0,
        "gradient_norm": None,
        "training": {"meta/loss": 2.0},
        "held_out": {},
        "tokens": 120,
        "training_seconds": 2.0,
    },
    Kind.ADAPTATION: {
        "adapts": "lora",
        "adapted_on": 6,
        "tested_on": "test_examples",
        "tested": 1,
        "max_new_tokens": 8,
        "before": _MARKS,
        "after": _MARKS,
        "support_losses": [2.0, 1.0],
    },
}
"""What a worker may have made of each kind."""


def settings_of(kind: Kind) -> dict[str, Any]:
    """What the example of a kind is kept as."""
    settings: dict[str, Any] = KINDS[kind].request.model_validate(KINDS[kind].example).model_dump(mode="json")
    return settings


def pending(store: JobStore, kind: Kind = Kind.META, name: str = "a job") -> Job:
    """A new job."""
    settings = {**settings_of(kind), "name": name}
    return store.create(Job(kind=kind, name=name, description="", settings=settings, total_episodes=100))


def running(store: JobStore, kind: Kind = Kind.META, name: str = "a job") -> Claim:
    """The claim on a new job; nothing else may wait in the store."""
    job = pending(store, kind, name)
    assert store.move(job.id, State.PENDING, State.QUEUED) is not None
    claim = store.claim("a worker", LONG, 3)
    assert claim is not None
    assert claim.id == job.id
    return claim


def now(store: JobStore, identifier: str) -> Job:
    """A job that must be there."""
    job = store.get(identifier)
    assert job is not None
    return job


def told(store: JobStore, claim: Claim, values: Sequence[float], lines: Sequence[str] = ()) -> Job:
    """Reports the next values of ``loss``, one a step, and the next lines of the log."""
    job = now(store, claim.id)
    steps = range(job.metric_count + 1, job.metric_count + 1 + len(values))
    metrics = [MetricValue(step, "loss", value) for step, value in zip(steps, values, strict=True)]
    numbered = [LogLine(text, number) for number, text in enumerate(lines, job.log_count + 1)]
    return store.report(claim, Report(steps.stop - 1, metrics, numbered), LONG)


def completed(store: JobStore, kind: Kind = Kind.META, model: str | None = None) -> Job:
    """A job that was run to its end."""
    claim = running(store, kind)
    told(store, claim, [0.5, 0.25], ["begins", "ends"])
    return store.finish(claim, Outcome(State.COMPLETED, results=RESULTS[kind], model_path=model))


def failed(store: JobStore, kind: Kind = Kind.META) -> Job:
    """A job that went wrong."""
    return store.finish(running(store, kind), Outcome(State.FAILED, error_message="the disk is full"))


def in_state(store: JobStore, kind: Kind, state: State) -> Job:
    """A new job in a state; nothing else may wait in the store before, and nothing of it waits after.

    A queued job waits, of course: make it last.
    """
    if state is State.COMPLETED:
        return completed(store, kind)
    if state is State.FAILED:
        return failed(store, kind)
    if state in (State.RUNNING, State.PAUSING, State.CANCELLING):
        identifier = running(store, kind).id
        if state is not State.RUNNING:
            assert store.move(identifier, State.RUNNING, state) is not None
        return now(store, identifier)
    job = pending(store, kind)
    way = {
        State.PENDING: (),
        State.QUEUED: (State.QUEUED,),
        State.PAUSED: (State.QUEUED, State.PAUSED),
        State.CANCELLED: (State.CANCELLED,),
    }
    for to in way[state]:
        moved = store.move(job.id, job.state, to)
        assert moved is not None
        job = moved
    return job


def a_model(folder: Path, job: Job | Claim, files: Mapping[str, bytes]) -> str:
    """Writes the files of a trained model into a job's folder; gives the path that the store keeps."""
    model = folder / job.id / "model"
    for name, content in files.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(content)
    return f"{job.id}/model"
