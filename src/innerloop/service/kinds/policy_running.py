"""What running the three kinds that train scaling policies shares: settings, judging, results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innerloop.core.errors import InputError
from innerloop.core.signals import StopRequest
from innerloop.rl.config import Config, config_from_dict
from innerloop.rl.evaluate import evaluate
from innerloop.rl.records import SCRATCH, Evaluation
from innerloop.service.kinds.distribution import TaskDistribution
from innerloop.service.kinds.held_out import AdaptationSpeed, CurvePoint, HeldOut, PolicyResults
from innerloop.service.kinds.kind import Place
from innerloop.service.kinds.run_metrics import finite

SAVES = 20
"""Checkpoints of a run, about; a kill loses what came after the last."""

TRAINED = "trained"
"""What the job's policy is called in its evaluation."""


def policy_config(
    place: Place,
    distribution: TaskDistribution,
    total: int,
    seed: int,
    held_out: HeldOut,
    sections: Mapping[str, Mapping[str, object]],
) -> Config:
    """The settings of a run in the job's folder.

    Args:
        place: of the job.
        distribution: its family of clusters.
        total: steps of the run.
        seed: of training.
        held_out: how it is judged.
        sections: what the kind itself sets, by section.

    Raises:
        InputError: settings that the domain refuses.
    """
    name, family = distribution.chosen
    test = {**held_out.model_dump(mode="json"), **sections.get("test", {})}
    settings: dict[str, Any] = {
        **sections,
        "family": {"name": name, **family.model_dump(mode="json")},
        "test": test,
        "trainer": {
            "seed": seed,
            "total_steps": total,
            "save_freq": max(1, total // SAVES),
            "logger": ["console"],
            "default_local_dir": str(place.run),
            "max_ckpt_to_keep": 1,
        },
    }
    return config_from_dict(settings, "the job's request")


def judge(place: Place, model: Path) -> Evaluation:
    """Measures the trained policy beside training from scratch and the baselines.

    Raises:
        InputError: an artifact that cannot be read, or a folder that cannot be written.
        Interrupted: a signal came; what was measured of other methods is kept.
    """
    with StopRequest() as stop:
        return evaluate(
            {TRAINED: model},
            None,
            "test",
            f"job {place.folder.name}",
            place.folder / "evaluation",
            lambda *_: stop.check(),
        )


def policy_results(evaluation: Evaluation) -> PolicyResults:
    """What an evaluation says of the trained policy."""
    trained = evaluation.method(TRAINED)
    figures = evaluation.figures(TRAINED)
    last = len(evaluation.episodes) - 1
    training = trained.training
    if training is None:
        raise InputError(f"the evaluation knows nothing of how '{TRAINED}' was trained")
    return PolicyResults(
        task_performance={
            f"{evaluation.family}/{evaluation.split}/{cluster}": value
            for cluster, value in enumerate(trained.by_cluster(last).tolist())
        },
        adaptation_curve=_curve(evaluation, TRAINED),
        scratch_curve=_curve(evaluation, SCRATCH),
        baselines={
            method.name: evaluation.curve(method.name)[-1].mean
            for method in evaluation.methods
            if not method.adapts
        },
        adaptation_speed=AdaptationSpeed(episodes=figures.speed.episodes, area=figures.speed.area),
        adaptation_accuracy=figures.accuracy,
        slo_violations=evaluation.violations(TRAINED)[-1].mean,
        environment_steps=training.environment_steps,
        training_seconds=training.seconds,
    )


def _curve(evaluation: Evaluation, name: str) -> list[CurvePoint]:
    points = zip(evaluation.episodes, evaluation.curve(name), evaluation.violations(name), strict=True)
    return [
        CurvePoint(
            episodes=episodes,
            mean=interval.mean,
            low=finite(interval.low),
            high=finite(interval.high),
            slo_violations=violations.mean,
        )
        for episodes, interval, violations in points
    ]
