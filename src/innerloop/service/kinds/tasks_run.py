"""Runs a training by PPO."""

from innerloop.rl.ppo_run import train
from innerloop.service.kinds.kind import Finished, Place
from innerloop.service.kinds.policy_running import judge, policy_config, policy_results
from innerloop.service.kinds.run_metrics import last_metrics
from innerloop.service.kinds.tasks import TrainingRequest, TrainingResults


def run(request: TrainingRequest, place: Place) -> Finished[TrainingResults]:
    """Trains and judges, or goes on where it stopped.

    Raises:
        InputError: the request cannot be met.
        NonFiniteError: a loss became NaN or infinite.
        Interrupted: a signal came; all is saved to go on from.
    """
    config = policy_config(
        place,
        request.task_distribution,
        request.total_episodes,
        request.seed,
        request.evaluation,
        {"ppo": {"lr": request.learning_rate, "clusters": request.clusters}},
    )
    trained = train(config)
    judged = policy_results(judge(place, trained.checkpoint))
    results = TrainingResults(**dict(judged), training=last_metrics(trained.metrics))
    return Finished(results, trained.checkpoint)
