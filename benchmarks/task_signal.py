"""How much one episode tells a policy about its cluster, by what the loss of the inner loop holds.

On each held-out cluster two episodes are played; printed is the mean cosine between the two gradients of the
vector that stands for the task, as they are and less their mean over clusters. Run, after
``innerloop rl train --config-name scaling_told``::

    python benchmarks/task_signal.py --model-path checkpoints/rl/scaling_told
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch.nn.functional import cosine_similarity

from innerloop.core.sampler import derive_seed
from innerloop.rl.artifacts import load_artifact
from innerloop.rl.meta import build_collector
from innerloop.rl.policy_gradient import PolicyLoss
from innerloop.rl.tasks import ClusterLearner, ClusterTask, Support


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-path", required=True, type=Path)
    parser.add_argument("--clusters", type=int, default=40)
    options = parser.parse_args()
    artifact = load_artifact(options.model_path)
    collector = build_collector(artifact.config, artifact.policy)
    members = artifact.config.family.split("validation")
    table = Table("inner loss", "cosine", "less the mean over clusters")
    for name, loss in (
        ("surrogate alone", PolicyLoss(value=0.0)),
        ("with the critic's error", PolicyLoss(value=0.5)),
        ("with the error of costs", PolicyLoss(value=0.0, cost=10.0)),
    ):
        learner = ClusterLearner(artifact.policy, loss, options.clusters)
        tasks = [
            ClusterTask(members.scenario(number), derive_seed(0, number), collector, Support(1), 1)
            for number in range(options.clusters)
        ]
        bundle = learner.bundle(tasks)
        with learner.excursion() as theta:
            first, second = (
                learner.gradient(theta, bundle.support(step, theta))[1]["task"] for step in range(2)
            )
        plain = cosine_similarity(first, second, dim=1).mean()
        centred = cosine_similarity(first - first.mean(0), second - second.mean(0), dim=1).mean()
        table.add_row(name, f"{plain:.2f}", f"{centred:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
