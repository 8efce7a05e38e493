"""What a few-shot method is to training and testing, and the kind that adapts in its forward pass."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.core.learner import InPlaceLearner, Learner
from innerloop.core.metagrad import Direct, Strategy
from innerloop.core.task import FixedTask, Task
from innerloop.fewshot.episodes import Episodes


class FewShotLearner(ABC):
    """A method. Training hands its tasks to the core's trainer; testing asks it for scores.

    Attributes:
        module: the network; its parameters are what training moves.
        learner: how the core runs it.
        strategy: the meta-gradient.
        fixed_ways: whether the network has an output for each class, so that it must be tested on as many
            classes as it was trained on.
    """

    module: nn.Module
    learner: Learner
    strategy: Strategy
    fixed_ways: bool = False

    @abstractmethod
    def tasks(self, episodes: Episodes, name: str) -> Sequence[Task]:
        """Episodes as the core's tasks: the meta-batch of one step."""

    @abstractmethod
    def scores(self, episodes: Episodes, transductive: bool) -> Tensor:
        """Log-probabilities of the queries' classes.

        Args:
            episodes: ``E`` of them.
            transductive: let batch norm see an episode's queries together. Otherwise no query's answer
                depends on another query.

        Returns:
            ``E x Q x N``, rows sum to 1 after ``exp``.
        """


@runtime_checkable
class LearnsWhileReading(Protocol):
    """A method that learns from each image it reads, and is also tested as Santoro 2016 does."""

    def instance_accuracy(self, episodes: Episodes, order: torch.Generator) -> Tensor:
        """Accuracy on the first, second, ... image of a class in the sequence of an episode's images.

        Args:
            episodes: ``E`` of them with ``T`` images a class, support and queries together.
            order: draws the order of each sequence.

        Returns:
            ``E x T``, shares of the classes.
        """


class EpisodicNet(nn.Module, ABC):
    """A network that reads an episode's support set and scores its queries in one differentiable pass."""

    @abstractmethod
    def scores(self, episodes: Episodes) -> Tensor:
        """Log-probabilities of the queries' classes, up to a constant a query: ``E x Q x N``."""

    def loss(self, episodes: Episodes) -> Tensor:
        """What training lowers, shape ``()``; the mean cross-entropy unless the method has its own."""
        return F.cross_entropy(self.scores(episodes).flatten(0, 1), episodes.query_labels.flatten())


class EpisodicLearner(FewShotLearner):
    """A method without an inner loop: all the episodes of a step are one batch, and their loss is lowered.

    Args:
        net: the network.
        fixed_ways: see :class:`FewShotLearner`.
    """

    def __init__(self, net: EpisodicNet, fixed_ways: bool = False) -> None:
        self.net = self.module = net
        self.fixed_ways = fixed_ways
        self.learner = InPlaceLearner(net, _episode_loss, batch_size=_images)
        self.strategy = Direct()

    def tasks(self, episodes: Episodes, name: str) -> Sequence[Task]:
        """One task: the episodes together."""
        return [FixedTask(name, (), episodes)]

    @torch.no_grad()
    def scores(self, episodes: Episodes, transductive: bool) -> Tensor:
        """See :meth:`FewShotLearner.scores`."""
        was_training = self.net.training
        self.net.eval()
        try:
            if not transductive:
                return self.net.scores(episodes).log_softmax(-1)
            with _batch_statistics(self.net):
                one_by_one = [self.net.scores(episodes[i : i + 1]) for i in range(len(episodes))]
            return torch.cat(one_by_one).log_softmax(-1)
        finally:
            self.net.train(was_training)


def one_hot(labels: Tensor, ways: int) -> Tensor:
    """``int64``, ``...``, as ``float32``, ``... x ways``."""
    return F.one_hot(labels, ways).float()


def _episode_loss(net: nn.Module, episodes: Episodes) -> Tensor:
    loss: Tensor = net.loss(episodes)  # type: ignore[operator]  # an EpisodicNet, which the core does not know
    return loss


def _images(episodes: Episodes) -> int:
    return episodes.support_labels.numel() + episodes.query_labels.numel()


@contextmanager
def _batch_statistics(net: nn.Module) -> Iterator[None]:
    """Batch norm without running statistics takes those of the batch, and remembers none of them."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    running = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.running_mean = norm.running_var = None
    try:
        yield
    finally:
        for norm, (mean, variance) in zip(norms, running, strict=True):
            norm.running_mean, norm.running_var = mean, variance
