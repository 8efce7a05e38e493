"""What the learned update of the LSTM meta-learner is worth: the same net trained by plain SGD.

The control starts from the same learned initialisation, or from one that was never trained, and takes plain
gradient steps on the same support batches. Its rate and number of steps are chosen from a grid on validation
classes, for each start by itself; then all are tested on the same episodes of test classes. Run, after
``innerloop fewshot bench omniglot_lstm_meta --output-dir comparison``::

    python benchmarks/lstm_meta_control.py --model-path comparison/omniglot_lstm_meta
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from innerloop.core.allocator import keep_freed_memory
from innerloop.core.stats import mean_interval
from innerloop.fewshot.accuracy import BLOCK
from innerloop.fewshot.artifacts import build_learner, load_artifact
from innerloop.fewshot.data.images import ImageSet
from innerloop.fewshot.data.load import load_splits
from innerloop.fewshot.episodes import Episodes, EpisodeShape, EpisodeStream
from innerloop.fewshot.learners.lstm_meta import LstmMetaLearner

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
STEPS = (1, 5, 20)
CPU = torch.device("cpu")

Scores = Callable[[Episodes], Tensor]


def accuracies(scores: Scores, images: ImageSet, shape: EpisodeShape, count: int, seed: int) -> list[float]:
    """Inductive accuracy on each of ``count`` episodes."""
    stream = EpisodeStream(images, shape, BLOCK, seed)
    found: list[float] = []
    while len(found) < count:
        episodes = stream.take()[: count - len(found)]
        found += (scores(episodes).argmax(-1) == episodes.query_labels).float().mean(1).tolist()
    return found


def descending(learner: LstmMetaLearner, rate: float, steps: int) -> Scores:
    """Plain SGD from the learner's initialisation."""
    return lambda episodes: learner.sgd_scores(episodes, rate, steps, transductive=False)


def main() -> None:
    """Chooses, tests and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-path", required=True, type=Path)
    parser.add_argument("--episodes", type=int, default=600, help="of test classes")
    parser.add_argument("--validation-episodes", type=int, default=100)
    options = parser.parse_args()
    keep_freed_memory()
    artifact = load_artifact(options.model_path, CPU)
    learner, config = artifact.learner, artifact.config
    if not isinstance(learner, LstmMetaLearner):
        raise SystemExit(f"{options.model_path} is a {config.method.name}, not an lstm_meta")
    splits = load_splits(config.data)
    shape = EpisodeShape(config.test.ways[0], config.test.shots, config.test.queries)
    torch.manual_seed(config.trainer.seed)
    untrained, _ = build_learner(config, artifact.problem.channels, CPU)
    assert isinstance(untrained, LstmMetaLearner)  # built by the same settings

    def test(scores: Scores) -> list[float]:
        return accuracies(scores, splits.get("test"), shape, options.episodes, config.test.seed)

    def best(start: LstmMetaLearner) -> tuple[float, int]:
        def on_validation(point: tuple[float, int]) -> float:
            images, count = splits.get("validation"), options.validation_episodes
            return fmean(accuracies(descending(start, *point), images, shape, count, config.test.seed))

        return max(product(RATES, STEPS), key=on_validation)

    learned = test(lambda episodes: learner.scores(episodes, transductive=False))
    table = Table("adapted by", "from", "rate", "steps", "accuracy, %", "meta-learner's gain, points")
    table.add_row("meta-learner", "learned start", "", "", _per_cent(learned), "")
    for name, start in (("learned start", learner), ("untrained start", untrained)):
        rate, steps = best(start)
        found = test(descending(start, rate, steps))
        gain = [mine - theirs for mine, theirs in zip(learned, found, strict=True)]
        table.add_row("plain SGD", name, f"{rate:g}", f"{steps}", _per_cent(found), _per_cent(gain))
    Console().print(table)


def _per_cent(shares: list[float]) -> str:
    interval = mean_interval(shares)
    return f"{100 * interval.mean:.1f} ± {100 * interval.half_width:.1f}"


if __name__ == "__main__":
    main()
