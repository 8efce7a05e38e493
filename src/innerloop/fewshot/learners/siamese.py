"""Siamese networks (Koch 2015)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.fewshot.backbones import Backbone, embed_together
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.base import EpisodicLearner, EpisodicNet, one_hot
from innerloop.fewshot.learners.method import BackboneFactory, Method, Problem


class SiameseTwins(EpisodicNet):
    """p(same | x, x') = σ(Σ_j α_j |f(x)_j − f(x')_j| + b): do two images show one class?

    A query's class is that of the support images it is likest to, by the mean over a class's shots of the
    value before the sigmoid.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.weigh = nn.Linear(backbone.features, 1)

    def pairs(self, episodes: Episodes) -> Tensor:
        """The value before the sigmoid of every query with every support image, ``E x Q x S``."""
        support, query = embed_together(self.backbone, episodes.support, episodes.query)
        apart = (query[:, :, None] - support[:, None]).abs()
        alike: Tensor = self.weigh(apart).squeeze(-1)
        return alike

    def scores(self, episodes: Episodes) -> Tensor:
        """The mean over a class's shots, ``E x Q x N``."""
        member = one_hot(episodes.support_labels, episodes.ways)
        return self.pairs(episodes) @ member / member.sum(1)[:, None]

    def loss(self, episodes: Episodes) -> Tensor:
        """Binary cross-entropy over all pairs; pairs of one class weigh as much in all as the other pairs."""
        same = (episodes.query_labels[:, :, None] == episodes.support_labels[:, None]).float()
        weight = same / same.mean() + (1 - same) / (1 - same).mean()
        return F.binary_cross_entropy_with_logits(self.pairs(episodes), same, weight / 2)


@dataclass(frozen=True)
class Siamese(Method):
    """It has no settings of its own."""

    name: Literal["siamese"]

    def build(self, problem: Problem, backbone: BackboneFactory) -> EpisodicLearner:  # noqa: ARG002
        """The learner."""
        return EpisodicLearner(SiameseTwins(backbone(running=True)))
