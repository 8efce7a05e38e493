"""Accuracy on episodes of classes that training never saw."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop.core.stats import Interval, mean_interval
from innerloop.fewshot.data.images import ImageSet
from innerloop.fewshot.episodes import EpisodeShape, EpisodeStream
from innerloop.fewshot.learners import FewShotLearner

BLOCK = 20
"""Episodes drawn at a time. Fixed, so that every method is tested on the same episodes under one seed."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracies of ``E`` episodes, each a share of the episode's queries.

    Args:
        inductive: no query's answer depends on another query.
        transductive: batch norm sees an episode's queries together.
    """

    inductive: tuple[float, ...]
    transductive: tuple[float, ...]

    def intervals(self) -> tuple[Interval, Interval]:
        """Mean and 95 % interval, inductive and transductive."""
        return mean_interval(self.inductive), mean_interval(self.transductive)


def measure(
    learner: FewShotLearner,
    images: ImageSet,
    shape: EpisodeShape,
    count: int,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Accuracy:
    """Tests a learner.

    Args:
        learner: what is tested; its weights stay as they are.
        images: where episodes are drawn from.
        shape: of each episode.
        count: episodes.
        seed: of the episodes.
        device: where the learner computes.
        progress: told how many episodes of how many are done.

    Raises:
        InputError: such episodes cannot be drawn from the images.
    """
    stream = EpisodeStream(images, shape, BLOCK, seed)
    inductive: list[float] = []
    transductive: list[float] = []
    while len(inductive) < count:
        episodes = stream.take()[: count - len(inductive)].to(device)
        for found, together in ((inductive, False), (transductive, True)):
            found += _accuracies(learner.scores(episodes, together), episodes.query_labels)
        progress(len(inductive), count)
    return Accuracy(tuple(inductive), tuple(transductive))


def _accuracies(scores: Tensor, labels: Tensor) -> list[float]:
    accuracies: list[float] = (scores.argmax(-1) == labels).float().mean(1).tolist()
    return accuracies
