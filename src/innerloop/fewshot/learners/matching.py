"""Matching Networks (Vinyals 2016), with and without full contextual embeddings (FCE)."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.fewshot.backbones import Backbone, embed_together
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.base import EpisodicLearner, EpisodicNet
from innerloop.fewshot.learners.method import BackboneFactory, Method, Problem
from innerloop.settings.constraints import Range
from innerloop.settings.kinds import Positive


class SupportContext(nn.Module):
    """g(x_i, S): each support feature in the light of the others (appendix A.2).

    A bidirectional LSTM reads the features in the order they come in, with a skip connection:
    g_i = →h_i + ←h_i + g'_i.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, features, bidirectional=True, batch_first=True)

    def forward(self, support: Tensor) -> Tensor:
        """``E x S x F`` to the same."""
        states, _ = self.lstm(support)  # the backward states come aligned with their inputs
        forward, backward = states.chunk(2, dim=-1)
        together: Tensor = forward + backward + support
        return together


class QueryContext(nn.Module):
    """f(x, S): a query's feature after some steps of reading the support set (appendix A.1).

    With f' the query's feature and r_0 = 0::

        ĥ_k, c_k = LSTM(f', [h_{k-1}, r_{k-1}], c_{k-1})
        h_k = ĥ_k + f'
        r_k = Σ_i softmax_i(h_kᵀ g_i) g_i

    The LSTM's recurrent input is twice as long as its state, so the pair [h, r] goes in with the input.
    """

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.cell = nn.LSTMCell(3 * features, features)

    def forward(self, query: Tensor, support: Tensor) -> Tensor:
        """``E x Q x F`` and ``E x S x F`` to ``E x Q x F``."""
        flat = query.flatten(0, 1)
        hidden, read, memory = torch.zeros_like(flat), torch.zeros_like(flat), torch.zeros_like(flat)
        # The whole recurrent input is [h, r]: the cell's own recurrent weights see zeros.
        nothing = torch.zeros_like(flat)
        for _ in range(self.steps):
            emitted, memory = self.cell(torch.cat([flat, hidden, read], -1), (nothing, memory))
            hidden = emitted + flat
            here = hidden.view_as(query)
            attention = (here @ support.mT).softmax(-1)
            read = (attention @ support).flatten(0, 1)
        return hidden.view_as(query)


class MatchingNet(EpisodicNet):
    """p(y = c | x, S) = Σ_{i: y_i = c} a(x, x_i), a the softmax over the support of scaled cosines.

    Args:
        backbone: f' and g', shared.
        steps: of reading the support set, with FCE; 0 is without FCE.
        temperature: the cosines are multiplied by its learned inverse.
    """

    def __init__(self, backbone: Backbone, steps: int, temperature: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())
        self.support_context = SupportContext(backbone.features) if steps else None
        self.query_context = QueryContext(backbone.features, steps) if steps else None

    def scores(self, episodes: Episodes) -> Tensor:
        """Log-probabilities, ``E x Q x N``."""
        support, query = embed_together(self.backbone, episodes.support, episodes.query)
        if self.support_context is not None and self.query_context is not None:
            support = self.support_context(support)
            query = self.query_context(query, support)
        cosines = F.normalize(query, dim=-1) @ F.normalize(support, dim=-1).mT
        attention = (self.log_scale.exp() * cosines).log_softmax(-1)
        # log Σ over the shots of a class: those of other classes count as log 0.
        others = episodes.support_labels[:, None] != torch.arange(episodes.ways, device=query.device)[:, None]
        return attention[:, :, None].masked_fill(others[:, None], -torch.inf).logsumexp(-1)


@dataclass(frozen=True)
class Matching(Method):
    """The settings.

    Args:
        fce_steps: steps of reading the support set; 0 is without full contextual embeddings.
        temperature: the softmax's, at first; it is learned.
    """

    name: Literal["matching"]
    fce_steps: Annotated[int, Range(at_least=0)]
    temperature: Positive

    def build(self, problem: Problem, backbone: BackboneFactory) -> EpisodicLearner:  # noqa: ARG002
        """The learner."""
        return EpisodicLearner(MatchingNet(backbone(running=True), self.fce_steps, self.temperature))
