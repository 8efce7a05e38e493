"""Relation Networks (Sung 2018)."""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.core.errors import InputError
from innerloop.fewshot.backbones import ConvBlock
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.base import EpisodicLearner, EpisodicNet, one_hot
from innerloop.fewshot.learners.method import BackboneFactory, Method, Problem
from innerloop.settings.kinds import Count


class RelationNet(EpisodicNet):
    """r_{c,q} = g(C(Σ_{i ∈ c} f(x_i), f(x_q))), trained by the squared error to 1 or 0 (equations 1 and 2).

    f gives feature maps; those of a class's shots are summed; g is two blocks of convolutions over the two
    maps laid on top of each other, and two layers that end in a sigmoid.

    Args:
        channels: of the images.
        size: height and width of the images.
        width: filters of every block.
        hidden: units of the layer before the last.
    """

    def __init__(self, channels: int, size: int, width: int, hidden: int) -> None:
        super().__init__()
        if size < 16:
            raise InputError(f"the relation network halves the image four times; {size} pixels are too few")
        self.embedding = nn.Sequential(
            ConvBlock(channels, width),
            ConvBlock(width, width),
            ConvBlock(width, width, pooled=False),
            ConvBlock(width, width, pooled=False),
        )
        self.relation = nn.Sequential(
            ConvBlock(2 * width, width),
            ConvBlock(width, width),
            nn.Flatten(),
            nn.Linear(width * (size // 16) ** 2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
            nn.Flatten(0),
        )

    def logits(self, episodes: Episodes) -> Tensor:
        """What the sigmoid makes relation scores of, ``E x Q x N``."""
        count, shots = episodes.support_labels.shape
        images = torch.cat([episodes.support, episodes.query], 1)
        maps = self.embedding(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        support, query = maps[:, :shots], maps[:, shots:]
        member = one_hot(episodes.support_labels, episodes.ways)
        summed = torch.einsum("esn,eschw->enchw", member, support)
        joint, *later = self.relation
        first, *rest = cast(ConvBlock, joint)
        convolution = cast(nn.Conv2d, first)
        # The convolution of two maps on top of each other is the sum of two, each of which serves all pairs.
        weight, width = convolution.weight, maps.shape[2]
        classes = F.conv2d(summed.flatten(0, 1), weight[:, :width], convolution.bias, padding=1)
        queries = F.conv2d(query.flatten(0, 1), weight[:, width:], padding=1)
        pairs = (
            queries.view(count, -1, 1, *queries.shape[1:])
            + classes.view(count, 1, episodes.ways, *classes.shape[1:])
        ).flatten(0, 2)
        logits: Tensor = nn.Sequential(*rest, *later)(pairs)
        return logits.view(count, -1, episodes.ways)

    def scores(self, episodes: Episodes) -> Tensor:
        """The logarithm of the relation scores, ``E x Q x N``."""
        return F.logsigmoid(self.logits(episodes))

    def loss(self, episodes: Episodes) -> Tensor:
        """The mean squared error of the relation scores."""
        wanted = one_hot(episodes.query_labels, episodes.ways)
        return F.mse_loss(self.logits(episodes).sigmoid(), wanted)


@dataclass(frozen=True)
class Relation(Method):
    """The settings.

    Args:
        width: filters of every block.
        hidden: units of the layer before the last; the paper has 8.
    """

    name: Literal["relation"]
    width: Count
    hidden: Count

    def build(self, problem: Problem, backbone: BackboneFactory) -> EpisodicLearner:  # noqa: ARG002
        """The learner; it has feature maps of its own instead of a backbone's vectors."""
        return EpisodicLearner(RelationNet(problem.channels, problem.size, self.width, self.hidden))
