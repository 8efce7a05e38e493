"""Accuracy on episodes of classes that training never saw."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from innerloop.core.sampler import derive_seed
from innerloop.core.stats import Interval, mean_interval
from innerloop.fewshot.data.images import ImageSet
from innerloop.fewshot.episodes import Episodes, EpisodeShape, EpisodeStream
from innerloop.fewshot.learners import FewShotLearner, LearnsWhileReading

BLOCK = 20
"""Test episodes drawn at a time. Fixed, so that every method is tested on the same ones under one seed."""

MOST_INSTANCES = 10
"""Images a class in the sequences of :func:`measure_instances` (Santoro 2016), where there are so many."""


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


class Stream(Protocol):
    """Endless blocks of episodes of one shape."""

    def take(self) -> Episodes:
        """The next block."""


def measure(
    learner: FewShotLearner,
    stream: Stream,
    count: int,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Accuracy:
    """Tests a learner.

    Args:
        learner: what is tested; its weights stay as they are.
        stream: draws the episodes, from its beginning, for results that can be had again.
        count: episodes.
        device: where the learner computes.
        progress: told how many episodes of how many are done.
    """
    inductive: list[float] = []
    transductive: list[float] = []
    while len(inductive) < count:
        episodes = stream.take()[: count - len(inductive)].to(device)
        for found, together in ((inductive, False), (transductive, True)):
            found += _accuracies(learner.scores(episodes, together), episodes.query_labels)
        progress(len(inductive), count)
    return Accuracy(tuple(inductive), tuple(transductive))


def measure_instances(
    learner: LearnsWhileReading, images: ImageSet, ways: int, count: int, seed: int, device: torch.device
) -> tuple[Interval, ...]:
    """Accuracy on the first, second, ... image of a class in sequences, over ``count`` of them.

    Raises:
        InputError: there are too few classes.
    """
    instances = min(MOST_INSTANCES, int(images.counts.min()))
    stream = EpisodeStream(images, EpisodeShape(ways, 1, instances - 1), BLOCK, seed)
    order = torch.Generator().manual_seed(derive_seed(seed, "order"))
    found: list[Tensor] = []
    while len(found) * BLOCK < count:
        found.append(learner.instance_accuracy(stream.take().to(device), order))
    columns = torch.cat(found)[:count].T.tolist()
    return tuple(mean_interval(column) for column in columns)


def _accuracies(scores: Tensor, labels: Tensor) -> list[float]:
    accuracies: list[float] = (scores.argmax(-1) == labels).float().mean(1).tolist()
    return accuracies
