"""Runs meta-learning."""

from innerloop.rl.meta import meta_train
from innerloop.service.kinds.kind import Finished, Place
from innerloop.service.kinds.library import model_of_source
from innerloop.service.kinds.meta import MetaRequest, MetaResults
from innerloop.service.kinds.policy_running import (
    judge,
    policy_config,
    policy_results,
)
from innerloop.service.kinds.run_metrics import last_metrics


def run(request: MetaRequest, place: Place) -> Finished[MetaResults]:
    """Meta-trains and judges, or goes on where it stopped.

    Raises:
        InputError: the request cannot be met; a source whose policy controls something else.
        NonFiniteError: a loss became NaN or infinite.
        Interrupted: a signal came; all is saved to go on from.
    """
    config = policy_config(
        place,
        request.task_distribution,
        request.total_episodes,
        request.seed,
        request.evaluation,
        {
            "meta": {
                "algorithm": request.meta_algorithm,
                "inner_lr": request.inner_lr,
                "inner_steps": request.adaptation_steps,
                "clusters": request.meta_batch_size,
                "clusters_at_once": request.meta_batch_size,
                # Every episode of a job is a new meta-batch, so that a checkpoint can fall after any of them.
                "repeats": 1,
            },
            "optim": {"lr": request.outer_lr},
        },
    )
    source = None if request.source_task_id is None else model_of_source(place, "source_task_id")
    trained = meta_train(config, source)
    judged = policy_results(judge(place, trained.checkpoint))
    last = last_metrics(trained.metrics)
    results = MetaResults(
        **dict(judged), meta_loss=last.get("meta/loss"), gradient_norm=last.get("meta/grad_norm")
    )
    return Finished(results, trained.checkpoint)
