"""The LSTM meta-learner (Ravi & Larochelle 2017): an LSTM whose cell state is a classifier's parameters.

Batch norm takes the statistics of its batch throughout; the paper gathers them anew in each episode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from innerloop.core.params import Params
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.base import EpisodicLearner, EpisodicNet
from innerloop.fewshot.learners.classifier import Classifier, classify
from innerloop.fewshot.learners.method import BackboneFactory, Method, Problem
from innerloop.fewshot.learners.preprocessing import log_and_sign
from innerloop.settings.kinds import Count

CUTOFF = 10.0
"""p: what is below e⁻ᵖ counts as small when gradients and losses are preprocessed."""


class MetaState(NamedTuple):
    """What the meta-learner remembers beside θ.

    Attributes:
        hidden: layer 1's output, ``EP x hidden``.
        memory: layer 1's cell state, ``EP x hidden``.
        input_gate: layer 2's i before the sigmoid, ``E x P``.
        forget_gate: layer 2's f before the sigmoid, ``E x P``.
    """

    hidden: Tensor
    memory: Tensor
    input_gate: Tensor
    forget_gate: Tensor


class MetaLearner(nn.Module):
    """Two LSTM layers that every coordinate of θ goes through alone, with shared weights (section 3).

    Layer 1 is an ordinary LSTM on the preprocessed gradient and loss, with output h_t. Layer 2 has θ as its
    cell state and the negative gradient as the candidate for it::

        ĩ_t = W_I [h_t, θ_{t-1}, ĩ_{t-1}] + b_I
        f̃_t = W_F [h_t, θ_{t-1}, f̃_{t-1}] + b_F
        θ_t = σ(f̃_t) ⊙ θ_{t-1} − σ(ĩ_t) ⊙ ∇_t

    The gates fed back are those before the sigmoid. The first biases make the first updates nearly gradient
    descent with a small rate.

    Args:
        hidden: units of layer 1.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTMCell(4, hidden)
        self.input_gate = nn.Linear(hidden + 2, 1)
        self.forget_gate = nn.Linear(hidden + 2, 1)
        for gate, lowest in ((self.input_gate, -5.0), (self.forget_gate, 4.0)):
            nn.init.uniform_(gate.weight, -0.01, 0.01)
            nn.init.uniform_(gate.bias, lowest, lowest + 1)

    def start(self, theta: Tensor) -> MetaState:
        """The state before the first step from ``E x P``."""
        nothing = torch.zeros_like(theta)
        memory = theta.new_zeros(theta.numel(), self.recurrent.hidden_size)
        return MetaState(memory, memory, nothing, nothing)

    def forward(
        self, theta: Tensor, loss: Tensor, gradient: Tensor, state: MetaState
    ) -> tuple[Tensor, MetaState]:
        """One step.

        Args:
            theta: θ_{t-1}, ``E x P``.
            loss: of a support batch at θ_{t-1}, ``E``; a constant.
            gradient: ∇_t, ``E x P``; a constant.
            state: after the last step.

        Returns:
            θ_t and the state.
        """
        of_loss = log_and_sign(loss, CUTOFF)[:, None].expand(-1, theta.shape[1], -1)
        inputs = torch.cat([log_and_sign(gradient, CUTOFF), of_loss], -1).flatten(0, 1)
        hidden, memory = self.recurrent(inputs, (state.hidden, state.memory))
        seen = hidden.unflatten(0, theta.shape)

        def gate(layer: nn.Module, last: Tensor) -> Tensor:
            value: Tensor = layer(torch.cat([seen, theta[..., None], last[..., None]], -1))
            return value.squeeze(-1)

        i = gate(self.input_gate, state.input_gate)
        f = gate(self.forget_gate, state.forget_gate)
        return f.sigmoid() * theta - i.sigmoid() * gradient, MetaState(hidden, memory, i, f)


class LstmMetaNet(EpisodicNet):
    """A classifier with a learned initialisation θ_0, and the meta-learner that adapts it to a support set.

    Gradients and losses of support batches count as constants, so that no second derivatives are needed.

    Args:
        classifier: images to logits; its parameters are θ_0.
        meta_learner: makes θ_t of θ_{t-1}.
        inner_epochs: times that the support set is gone through.
        inner_batch_size: support images a step.
    """

    def __init__(
        self, classifier: nn.Module, meta_learner: MetaLearner, inner_epochs: int, inner_batch_size: int
    ) -> None:
        super().__init__()
        self.classifier, self.meta_learner = classifier, meta_learner
        self.inner_epochs, self.inner_batch_size = inner_epochs, inner_batch_size

    def scores(self, episodes: Episodes) -> Tensor:
        """Logits ``E x Q x N``; batch norm sees an episode's queries together."""
        return classify(self.classifier, self.adapt(episodes), episodes, transductive=True)

    def adapt(self, episodes: Episodes) -> Params:
        """The classifier's parameters at the last θ_t, with a leading dimension ``E``."""
        batches = self._batches(episodes)
        theta = self._start(episodes)
        state = self.meta_learner.start(theta)
        for images, labels in batches * self.inner_epochs:
            gradient, loss = self._gradient(theta, images, labels)
            theta, state = self.meta_learner(theta, loss, gradient, state)
        return self._named(theta)

    def descend(self, episodes: Episodes, rate: float, steps: int) -> Params:
        """The same by ``steps`` of θ_t = θ_{t-1} − α ∇_t on the same batches, over and over."""
        theta = self._start(episodes)
        for images, labels in islice(cycle(self._batches(episodes)), steps):
            theta = theta - rate * self._gradient(theta, images, labels)[0]
        return self._named(theta)

    def _batches(self, episodes: Episodes) -> list[tuple[Tensor, Tensor]]:
        """The support sets once, in the order they come in, which is random."""
        whole = (episodes.support, episodes.support_labels)
        cut = (torch.split(tensor, self.inner_batch_size, 1) for tensor in whole)
        return list(zip(*cut, strict=True))

    def _start(self, episodes: Episodes) -> Tensor:
        """θ_0, ``E x P``."""
        theta = torch.cat([parameter.flatten() for parameter in self.classifier.parameters()])
        return theta.expand(len(episodes), -1)

    def _named(self, theta: Tensor) -> Params:
        """A vector of parameters, ``... x P``, by name."""
        parameters = dict(self.classifier.named_parameters())
        pieces = torch.split(theta, [parameter.numel() for parameter in parameters.values()], -1)
        return {
            name: piece.view(*piece.shape[:-1], *parameter.shape)
            for (name, parameter), piece in zip(parameters.items(), pieces, strict=True)
        }

    def _gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """∇_t, ``E x P``, and the losses, ``E``, outside the graph of θ_t."""

        def loss(point: Tensor, images: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self.classifier, self._named(point), (images,)), labels)

        found: tuple[Tensor, Tensor] = vmap(grad_and_value(loss))(theta.detach(), images, labels)
        return found


class LstmMetaLearner(EpisodicLearner):
    """Scores queries as the gradient-based methods do: batch norm always takes the statistics of its batch.

    Args:
        net: the network.
    """

    net: LstmMetaNet

    def scores(self, episodes: Episodes, transductive: bool) -> Tensor:
        """See :meth:`FewShotLearner.scores`."""
        return self._scores(self.net.adapt, episodes, transductive)

    def sgd_scores(self, episodes: Episodes, rate: float, steps: int, transductive: bool) -> Tensor:
        """The scores after :meth:`LstmMetaNet.descend` instead of the meta-learner's steps, ``E x Q x N``."""
        return self._scores(lambda each: self.net.descend(each, rate, steps), episodes, transductive)

    @torch.no_grad()
    def _scores(self, adapt: Callable[[Episodes], Params], episodes: Episodes, transductive: bool) -> Tensor:
        # An LSTM over every parameter takes much memory, and on a CPU episodes together are not faster.
        each = [episodes[i : i + 1] for i in range(len(episodes))]
        scores = [classify(self.net.classifier, adapt(episode), episode, transductive) for episode in each]
        return torch.cat(scores).log_softmax(-1)


@dataclass(frozen=True)
class LstmMeta(Method):
    """The settings.

    Args:
        inner_epochs: times that the support set is gone through; the paper has 12 for 1 shot and 5 for 5.
        inner_batch_size: support images a step.
        hidden: units of the LSTM that all coordinates share.
    """

    name: Literal["lstm_meta"]
    inner_epochs: Count
    inner_batch_size: Count
    hidden: Count

    def build(self, problem: Problem, backbone: BackboneFactory) -> LstmMetaLearner:
        """The learner."""
        classifier = Classifier(backbone(running=False), problem.ways)
        net = LstmMetaNet(classifier, MetaLearner(self.hidden), self.inner_epochs, self.inner_batch_size)
        return LstmMetaLearner(net, fixed_ways=True)
