"""Runs a transfer."""

from innerloop.rl.ppo_run import transfer
from innerloop.service.kinds.distribution import SCALING, TaskDistribution
from innerloop.service.kinds.kind import Finished, Place
from innerloop.service.kinds.library import model_of_source
from innerloop.service.kinds.policy_running import (
    TRAINED,
    judge,
    policy_config,
    policy_results,
)
from innerloop.service.kinds.run_metrics import last_metrics
from innerloop.service.kinds.transfer import (
    ParameterDistance,
    TransferMetric,
    TransferRequest,
    TransferResults,
)

MOVED = "transfer/parameter_distance_"


def run(request: TransferRequest, place: Place) -> Finished[TransferResults]:
    """Trains a source policy further and judges it, or goes on where it stopped.

    Raises:
        InputError: the request cannot be met; a source whose policy controls something else.
        NonFiniteError: a loss became NaN or infinite.
        Interrupted: a signal came; all is saved to go on from.
    """
    config = policy_config(
        place,
        _target(place),
        request.total_episodes,
        request.seed,
        request.evaluation,
        {
            "ppo": {"lr": request.learning_rate, "clusters": request.clusters},
            "transfer": {
                "kind": request.transfer_type,
                "frozen_layers": list(request.frozen_layers),
                "thaw_every": request.thaw_every,
            },
            "test": {"fine_tuning_lr": request.learning_rate},
        },
    )
    trained = transfer(config, model_of_source(place, "source_task_id"))
    evaluation = judge(place, trained.checkpoint)
    metric = evaluation.figures(TRAINED).transfer
    results = TransferResults(
        **dict(policy_results(evaluation)),
        transfer_metric=TransferMetric(
            jumpstart=metric.jumpstart,
            area_ratio=metric.area_ratio,
            asymptotic_gain=metric.asymptotic_gain,
        ),
        parameter_distance=_distance(last_metrics(trained.metrics)),
    )
    return Finished(results, trained.checkpoint)


def _target(place: Place) -> TaskDistribution:
    given = place.sources["target_task_id"].settings.get("task_distribution")
    return SCALING if given is None else TaskDistribution.model_validate(given)


def _distance(last: dict[str, float | None]) -> ParameterDistance:
    moved = {
        name.removeprefix(MOVED): value
        for name, value in last.items()
        if name.startswith(MOVED) and value is not None
    }
    return ParameterDistance(whole=moved.pop("whole"), layers=moved)
