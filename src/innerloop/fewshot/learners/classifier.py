"""The classifier that gradient-based methods adapt, and how an adapted one answers."""

import torch
from torch import Tensor, nn, vmap
from torch.func import functional_call

from innerloop.core.params import Params
from innerloop.fewshot.backbones import Backbone
from innerloop.fewshot.episodes import Episodes

INDUCTIVE_CHUNK = 64
"""Queries at a time, each in a batch of its own."""


class Classifier(nn.Module):
    """A backbone and a linear layer with an output for each class of an episode."""

    def __init__(self, backbone: Backbone, ways: int) -> None:
        super().__init__()
        self.body = backbone
        self.head = nn.Linear(backbone.features, ways)

    def forward(self, images: Tensor) -> Tensor:
        """``M x C x H x W`` to ``M x N``."""
        logits: Tensor = self.head(self.body(images))
        return logits


def classify(module: nn.Module, adapted: Params, episodes: Episodes, transductive: bool) -> Tensor:
    """The logits of queries by a module whose batch norm has no running statistics.

    Args:
        module: images to logits.
        adapted: its parameters in each episode, with a leading dimension ``E``.
        episodes: ``E`` of them.
        transductive: an episode's queries make one batch. Otherwise every query is put in a batch with the
            support set alone (Nichol 2018).

    Returns:
        ``E x Q x N``.
    """

    def logits(params: Params, images: Tensor) -> Tensor:
        found: Tensor = functional_call(module, params, (images,))
        return found

    def logits_of_each(params: Params, support: Tensor, query: Tensor) -> Tensor:
        def alone(image: Tensor) -> Tensor:
            return logits(params, torch.cat([support, image[None]]))[-1]

        return vmap(alone, chunk_size=INDUCTIVE_CHUNK)(query)

    if transductive:
        return vmap(logits)(adapted, episodes.query)
    return vmap(logits_of_each)(adapted, episodes.support, episodes.query)
