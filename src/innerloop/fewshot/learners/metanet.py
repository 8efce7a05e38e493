"""Meta Networks (Munkhdalai & Yu 2017): slow weights that are trained, fast ones made from support gradients.

The representation u and the base learner b are two fully connected layers each on the features of one
backbone, and these layers have fast weights; the paper gives them to the convolutions of two nets too.
Convolutions with weights of their own for every query would multiply the cost of a step, and gradients that
end at the features meet no batch norm, whose statistics tie an image to its batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F

from innerloop.fewshot.backbones import Backbone, embed_together
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.base import EpisodicLearner, EpisodicNet, one_hot
from innerloop.fewshot.learners.method import BackboneFactory, Method, Problem
from innerloop.fewshot.learners.preprocessing import log_and_sign
from innerloop.settings.kinds import Count

LOG_RANGE = 7.0
"""p of :func:`log_and_sign`: gradients from e⁻⁷ up count by their logarithm, smaller ones by their value."""


class Weights(NamedTuple):
    """Those of two layers without biases: slow weights, fast weights, or gradients.

    Attributes:
        hidden: ``... x D x F``.
        output: ``... x O x D``.
    """

    hidden: Tensor
    output: Tensor

    def coordinates(self) -> Tensor:
        """All of them in a row, ``... x P``."""
        return torch.cat([self.hidden.flatten(-2), self.output.flatten(-2)], -1)


class TwoLayers(nn.Module):
    """The slow weights of u or of b."""

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden, bias=False)
        self.output = nn.Linear(hidden, outputs, bias=False)

    @property
    def slow(self) -> Weights:
        """``D x F`` and ``O x D``."""
        return Weights(self.hidden.weight, self.output.weight)

    def shaped(self, coordinates: Tensor) -> Weights:
        """``... x P`` as weights of these layers, ``... x D x F`` and ``... x O x D``."""
        hidden, output = coordinates.tensor_split([self.hidden.weight.numel()], -1)
        leading = coordinates.shape[:-1]
        return Weights(
            hidden.reshape(*leading, *self.hidden.weight.shape),
            output.reshape(*leading, *self.output.weight.shape),
        )


def plain(slow: Weights, features: Tensor) -> Tensor:
    """y = W₂ ReLU(W₁ x), without fast weights: ``... x F`` to ``... x O``."""
    return F.linear(F.linear(features, slow.hidden).relu(), slow.output)


def augmented(slow: Weights, fast: Weights, features: Tensor) -> Tensor:
    """Layer augmentation (section 3.3): slow and fast weights meet after the nonlinearity.

    h = ReLU(W₁ x) + ReLU(W₁* x) and y = W₂ h + W₂* h.

    Args:
        slow: ``D x F`` and ``O x D``.
        fast: the same behind leading dimensions that broadcast with those of the features.
        features: ``... x F``.

    Returns:
        ``... x O``.
    """
    hidden = F.linear(features, slow.hidden).relu() + _each(fast.hidden, features).relu()
    return F.linear(hidden, slow.output) + _each(fast.output, hidden)


def _each(weights: Tensor, inputs: Tensor) -> Tensor:
    return torch.einsum("...oi,...i->...o", weights, inputs)


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """``... x L x D`` and ``... x R x D`` to ``... x L x R``."""
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).mT


def base_loss(weights: Weights, feature: Tensor, label: Tensor) -> Tensor:
    """The base learner's cross-entropy on one support image, shape ``()``.

    Args:
        weights: W.
        feature: ``F``.
        label: ``()``.
    """
    return F.cross_entropy(plain(weights, feature), label)


def representation_loss(weights: Weights, feature: Tensor, label: Tensor, means: Tensor) -> Tensor:
    """Cross-entropy on one support image of the cosines of its representation to those of the classes.

    The paper takes cross-entropy where a class has one image, which has no partner for the contrastive loss.
    A linear layer before the softmax would stay random for ever, since meta information is detached and
    nothing else would train it; the class means need no weights, and serve any number of shots.

    Args:
        weights: Q.
        feature: ``F``.
        label: ``()``.
        means: of the representations of each class, ``N x O``; constant.

    Returns:
        Shape ``()``.
    """
    return F.cross_entropy(cosines(plain(weights, feature)[None], means)[0], label)


@torch.no_grad()
def example_gradients(loss: Callable[..., Tensor], weights: Weights, *examples: Tensor) -> Tensor:
    """Meta information: the gradient of each support image's own loss, a constant to training.

    Args:
        loss: of the weights and one example.
        weights: where the gradients are taken.
        examples: the parts of the examples, ``E x S x ...`` each.

    Returns:
        ``E x S x P``.
    """
    each = (None, *(0 for _ in examples))
    gradients: Weights = vmap(vmap(grad(loss), each), each)(weights, *examples)
    return gradients.coordinates()


def _silent(hidden: int) -> nn.Linear:
    """A generator's last layer, which gives fast weights of 0 at first.

    An offset that random values would give to all fast weights alike adds up over features that are never
    negative, and drowns what the gradients say. From 0, the first steps take up what lowers the loss.
    """
    layer = nn.Linear(hidden, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class TaskGenerator(nn.Module):
    """d_G: task-level fast weights from the gradients of T support images.

    One LSTM for all coordinates reads the gradients of each in turn; its last state gives the fast weight.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, hidden)
        self.output = _silent(hidden)

    def forward(self, gradients: Tensor) -> Tensor:
        """``E x T x P`` to ``E x P``."""
        sequence = log_and_sign(gradients, LOG_RANGE).transpose(0, 1)
        _, (last, _) = self.lstm(sequence.flatten(1, 2))
        weights: Tensor = self.output(last)
        return weights.view(sequence.shape[1:3])


class ExampleGenerator(nn.Module):
    """m_Z: example-level fast weights, each from the gradient of its coordinate, by one network for all."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), _silent(hidden)
        )

    def forward(self, gradients: Tensor) -> Tensor:
        """``... x P`` to the same."""
        weights: Tensor = self.layers(log_and_sign(gradients, LOG_RANGE))
        return weights.squeeze(-1)


class MetaNet(EpisodicNet):
    """Algorithm 1, for all episodes and queries at once.

    With the representation loss L_i and the base learner's loss ℓ_i of support image x_i::

        Q*   = d_G(∇_Q L_1, ..., ∇_Q L_T)          task-level fast weights
        W*_i = m_Z(∇_W ℓ_i)                        example-level ones, the values of the memory
        r_i  = u_{Q,Q*}(x_i)                       its keys
        a    = softmax_i cos(u_{Q,Q*}(x), r_i)     what query x attends to
        p(y | x, S) = softmax b_{W,W*}(x)          with W* = Σ_i a_i W*_i

    The order of the support images matters to d_G alone, which reads them one by one.

    Args:
        backbone: below u and b.
        ways: N.
        hidden: units of the hidden layers of u and b, and length of the keys.
        generator_hidden: units of the layers of d_G and m_Z.
        task_examples: T; the first in the episode's random order, all where there are no more.
    """

    def __init__(
        self, backbone: Backbone, ways: int, hidden: int, generator_hidden: int, task_examples: int
    ) -> None:
        super().__init__()
        self.task_examples = task_examples
        self.backbone = backbone
        self.representation = TwoLayers(backbone.features, hidden, hidden)
        self.base = TwoLayers(backbone.features, hidden, ways)
        self.task_generator = TaskGenerator(generator_hidden)
        self.example_generator = ExampleGenerator(generator_hidden)

    def task_weights(self, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """Q*: ``E x S x F`` and ``E x S`` to ``E x P``."""
        slow = self.representation.slow
        member = one_hot(labels, ways).to(support.dtype)
        means = member.mT @ plain(slow, support) / member.sum(1)[..., None]
        seen, seen_labels = support[:, : self.task_examples], labels[:, : self.task_examples]
        means = means[:, None].expand(-1, seen.shape[1], -1, -1)
        gradients = example_gradients(representation_loss, slow, seen, seen_labels, means)
        weights: Tensor = self.task_generator(gradients)
        return weights

    def example_weights(self, support: Tensor, labels: Tensor) -> Tensor:
        """W*_1 to W*_S: ``E x S x F`` and ``E x S`` to ``E x S x P``."""
        gradients = example_gradients(base_loss, self.base.slow, support, labels)
        weights: Tensor = self.example_generator(gradients)
        return weights

    def scores(self, episodes: Episodes) -> Tensor:
        """What the softmax makes probabilities of, ``E x Q x N``."""
        support, query = embed_together(self.backbone, episodes.support, episodes.query)
        task = self.task_weights(support, episodes.support_labels, episodes.ways)
        u, shared = self.representation, self.representation.shaped(task[:, None])
        keys, query_keys = (augmented(u.slow, shared, features) for features in (support, query))
        attention = cosines(query_keys, keys).softmax(-1)
        memory = self.example_weights(support, episodes.support_labels)
        return augmented(self.base.slow, self.base.shaped(attention @ memory), query)


@dataclass(frozen=True)
class MetaNetworks(Method):
    """The settings.

    Args:
        hidden: units of the hidden layers of the representation and the base learner.
        generator_hidden: units of the layers of the two networks that make fast weights.
        task_examples: support images whose gradients make the task-level fast weights; all where an episode
            has no more.
    """

    name: Literal["metanet"]
    hidden: Count
    generator_hidden: Count
    task_examples: Count

    def build(self, problem: Problem, backbone: BackboneFactory) -> EpisodicLearner:
        """The learner."""
        net = MetaNet(
            backbone(running=True), problem.ways, self.hidden, self.generator_hidden, self.task_examples
        )
        return EpisodicLearner(net, fixed_ways=True)
