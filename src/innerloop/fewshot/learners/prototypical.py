"""Prototypical Networks (Snell 2017)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from innerloop.fewshot.backbones import Backbone, embed_together
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.base import EpisodicLearner, EpisodicNet, one_hot
from innerloop.fewshot.learners.method import BackboneFactory, Method, Problem


class PrototypicalNet(EpisodicNet):
    """p(c | x) ∝ exp(−‖f(x) − p_c‖²), p_c the mean of f over the class's support images (equation 2)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def scores(self, episodes: Episodes) -> Tensor:
        """Minus the squared distances to the prototypes, ``E x Q x N``."""
        support, query = embed_together(self.backbone, episodes.support, episodes.query)
        member = one_hot(episodes.support_labels, episodes.ways)
        prototypes = member.mT @ support / member.sum(1)[..., None]
        squared = query.square().sum(-1)[..., None] + prototypes.square().sum(-1)[:, None]
        return 2 * query @ prototypes.mT - squared


@dataclass(frozen=True)
class Prototypical(Method):
    """It has no settings of its own."""

    name: Literal["prototypical"]

    def build(self, problem: Problem, backbone: BackboneFactory) -> EpisodicLearner:  # noqa: ARG002
        """The learner."""
        return EpisodicLearner(PrototypicalNet(backbone(running=True)))
