"""Memory-augmented neural networks (Santoro 2016): an LSTM that stores what it has seen in a memory.

The images of an episode come one at a time, each together with the label of the image before it, so that an
image must be kept until its label has come.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.core.errors import InputError
from innerloop.fewshot.backbones import Backbone, embed, embed_together
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.base import EpisodicLearner, EpisodicNet, one_hot
from innerloop.fewshot.learners.method import BackboneFactory, Method, Problem
from innerloop.settings.kinds import Count, Positive, Probability

Writes = Literal["keys", "contents"]

SMALLEST_NORM = 1e-6
"""Of a slot that has a direction. The cosine with an empty slot is 0, and its slope finite."""


class State(NamedTuple):
    """What is carried from image to image of ``E`` episodes; all zeros before the first.

    Attributes:
        hidden: h, ``E x hidden``.
        cell: of the LSTM, ``E x hidden``.
        memory: M, ``E x slots x width``.
        usage: w^u, ``E x slots``.
        weights: w^r, ``E x reads x slots``.
        reads: r, ``E x reads x width``.
    """

    hidden: Tensor
    cell: Tensor
    memory: Tensor
    usage: Tensor
    weights: Tensor
    reads: Tensor


class LeastRecentlyUsedAccess(nn.Module):
    """Writes to the least used slots or where was last read, then reads by content (the paper's LRUA).

    Each head has a key k_t, a content v_t to be written, and a gate σ(a_t)::

        w^w_t = σ(a_t) w^r_{t-1} + (1 − σ(a_t)) w^lu_{t-1}
        M_t(i) = M_{t-1}(i) + Σ_heads w^w_t(i) v_t, the least used slot emptied before
        w^r_t = softmax_i β cos(k_t, M_t(i))
        r_t = Σ_i w^r_t(i) M_t(i)
        w^u_t = γ w^u_{t-1} + Σ_heads w^r_t + Σ_heads w^w_t

    In the paper v_t is k_t, β is 1, and w^lu marks as many slots as there are heads, for all of them alike.

    Args:
        decay: γ.
        own_slots: w^lu of the h-th head marks the h-th least used slot alone.
        strength: β.
    """

    def __init__(self, decay: float, own_slots: bool, strength: float = 1.0) -> None:
        super().__init__()
        self.decay, self.own_slots, self.strength = decay, own_slots, strength

    def forward(self, state: State, keys: Tensor, contents: Tensor, gates: Tensor) -> State:
        """One step of the memory.

        Args:
            state: its memory, usage and weights are those of the step before.
            keys: ``E x reads x width``.
            contents: v, ``E x reads x width``.
            gates: σ(a), between 0 and 1, ``E x reads x 1``.
        """
        spare = least_used(state.usage, keys.shape[1])
        kept = state.memory * (1 - spare[:, 0])[..., None]
        if not self.own_slots:
            spare = spare.sum(1, keepdim=True)
        writes = gates * state.weights + (1 - gates) * spare
        memory = kept + writes.mT @ contents
        directions = F.normalize(memory, dim=-1, eps=SMALLEST_NORM)
        cosines = F.normalize(keys, dim=-1, eps=SMALLEST_NORM) @ directions.mT
        weights = (self.strength * cosines).softmax(-1)
        # It only chooses slots, which has no slope.
        with torch.no_grad():
            usage = self.decay * state.usage + (weights + writes).sum(1)
        return state._replace(memory=memory, usage=usage, weights=weights, reads=weights @ memory)


def least_used(usage: Tensor, count: int) -> Tensor:
    """The slots of least usage: row ``h`` is 1 at the ``h``-th of them, ``E x count x slots``.

    Of equally used slots the first ones are taken; the paper's comparison (w^u at most its n-th smallest)
    would mark all slots of a fresh memory.
    """
    chosen = usage.argsort(dim=-1, stable=True)[:, :count]
    return usage.new_zeros(*chosen.shape, usage.shape[-1]).scatter_(-1, chosen[..., None], 1)


class MannNet(EpisodicNet):
    """An LSTM over [x_t, onehot(y_{t-1}), r_{t-1}] drives the memory; [h_t, r_t] tells the class.

    A head's key is the hyperbolic tangent of a linear function of h_t, its gate the sigmoid of another.

    Args:
        encoder: images to x.
        ways: N.
        hidden: units of the LSTM.
        slots: of the memory.
        width: numbers a slot.
        reads: heads.
        decay: see :class:`LeastRecentlyUsedAccess`.
        strength: likewise.
        gate_bias: added to the gates' first biases.
        writes: see :class:`Mann`.
    """

    def __init__(
        self,
        encoder: Backbone,
        ways: int,
        hidden: int,
        slots: int,
        width: int,
        reads: int,
        decay: float,
        strength: float,
        gate_bias: float,
        writes: Writes,
    ) -> None:
        super().__init__()
        if reads > slots:
            raise InputError(f"{reads} heads cannot write to {slots} memory slots; use as many slots or more")
        self.encoder = encoder
        self.controller = nn.LSTMCell(encoder.features + ways + reads * width, hidden)
        self.keys = _vectors(hidden, reads, width)
        self.contents = _vectors(hidden, reads, width) if writes == "contents" else None
        to_gates = nn.Linear(hidden, reads)
        with torch.no_grad():
            to_gates.bias.add_(gate_bias)
        self.gates = nn.Sequential(to_gates, nn.Unflatten(-1, (reads, 1)), nn.Sigmoid())
        self.access = LeastRecentlyUsedAccess(decay, writes == "contents", strength)
        self.output = nn.Linear(hidden + reads * width, ways)
        # Of an episode's part of each field of the state.
        self.shapes = ((hidden,), (hidden,), (slots, width), (slots,), (reads, slots), (reads, width))

    def loss(self, episodes: Episodes) -> Tensor:
        """The mean cross-entropy over all images of an episode, in an order drawn for it."""
        images, labels = sequences(episodes)
        logits = self.instance_logits(images, labels, episodes.ways)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def scores(self, episodes: Episodes) -> Tensor:
        """Logits of each query as the image that follows the support set, ``E x Q x N``."""
        support, query = embed_together(self.encoder, episodes.support, episodes.query)
        labels = one_hot(episodes.support_labels, episodes.ways)
        queries = query.shape[1]
        learned = State(*(field.repeat_interleave(queries, 0) for field in self._states(support, labels)[-1]))
        last = labels[:, -1].repeat_interleave(queries, 0)
        asked = self._step(self._known(query.flatten(0, 1), last), self._recurrent(), learned)
        return self._logits(asked).view(-1, queries, episodes.ways)

    def instance_logits(self, images: Tensor, labels: Tensor, ways: int) -> Tensor:
        """``E x T x C x H x W`` images and ``int64``, ``E x T``, labels to logits, ``E x T x N``.

        Those of an image know the labels of the images before it. ``ways``: N, as the network was built for.
        """
        states = self._states(embed(self.encoder, images), one_hot(labels, ways))
        return torch.stack([self._logits(state) for state in states], 1)

    def _states(self, features: Tensor, labels: Tensor) -> list[State]:
        """The state after each image, from ``E x T x F`` features and their ``E x T x N`` labels."""
        known = self._known(features, F.pad(labels, (0, 0, 1, 0))[:, :-1])
        recurrent = self._recurrent()
        states = [State(*(features.new_zeros(len(features), *shape) for shape in self.shapes))]
        for image in known.unbind(1):
            states.append(self._step(image, recurrent, states[-1]))
        return states[1:]

    def _known(self, features: Tensor, before: Tensor) -> Tensor:
        """What images and the labels before them put into the LSTM's gates, ``... x 4 hidden``.

        None of it depends on a state, so that one product does for a whole sequence.
        """
        inputs = torch.cat([features, before], -1)
        weights, biases = self.controller.weight_ih, self.controller.bias_ih + self.controller.bias_hh
        return F.linear(inputs, weights[:, : inputs.shape[-1]], biases)

    def _recurrent(self) -> Tensor:
        """The weights from [r_{t-1}, h_{t-1}] to the gates; taken once a sequence."""
        reads = self.shapes[-1][0] * self.shapes[-1][1]
        return torch.cat([self.controller.weight_ih[:, -reads:], self.controller.weight_hh], 1)

    def _step(self, known: Tensor, recurrent: Tensor, state: State) -> State:
        gates = known + F.linear(torch.cat([state.reads.flatten(1), state.hidden], -1), recurrent)
        i, f, g, o = gates.chunk(4, -1)
        cell = f.sigmoid() * state.cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        keys = self.keys(hidden)
        contents = keys if self.contents is None else self.contents(hidden)
        after: State = self.access(state, keys, contents, self.gates(hidden))
        return after._replace(hidden=hidden, cell=cell)

    def _logits(self, state: State) -> Tensor:
        logits: Tensor = self.output(torch.cat([state.hidden, state.reads.flatten(1)], -1))
        return logits


def _vectors(hidden: int, reads: int, width: int) -> nn.Sequential:
    """From h_t, ``E x hidden``, to a vector for each head, ``E x reads x width``."""
    return nn.Sequential(nn.Linear(hidden, reads * width), nn.Unflatten(-1, (reads, width)), nn.Tanh())


def sequences(episodes: Episodes, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """All images of each episode in an order drawn for it, ``E x T x C x H x W``, and labels, ``E x T``.

    The order is drawn on the CPU, whose random state is the one that a checkpoint keeps.
    """
    images = torch.cat([episodes.support, episodes.query], 1)
    labels = torch.cat([episodes.support_labels, episodes.query_labels], 1)
    order = torch.rand(labels.shape, generator=generator).argsort(-1).to(labels.device)
    rows = torch.arange(len(labels), device=labels.device)[:, None]
    return images[rows, order], labels[rows, order]


def accuracy_by_instance(hits: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Shares of right answers at the first, second, ... image of a class.

    Args:
        hits: whether each answer was right, ``E x T``.
        labels: ``int64``, ``E x T``; every class comes ``T / ways`` times.
        ways: N.

    Returns:
        ``E x T / ways``.
    """
    instance = F.one_hot(labels, ways).cumsum(1).gather(-1, labels[..., None])
    counted = instance == torch.arange(1, labels.shape[1] // ways + 1, device=labels.device)
    return (counted & hits[..., None]).sum(1) / ways


class MannLearner(EpisodicLearner):
    """MANN, which is also tested as its paper does: on sequences, from the first image on.

    The first image of a class can only be guessed among the classes not yet seen; the accuracy on the second
    is the paper's 1-shot accuracy.
    """

    net: MannNet

    @torch.no_grad()
    def instance_accuracy(self, episodes: Episodes, order: torch.Generator) -> Tensor:
        """See :class:`LearnsWhileReading`."""
        images, labels = sequences(episodes, order)
        was_training = self.net.training
        self.net.eval()
        try:
            hits = self.net.instance_logits(images, labels, episodes.ways).argmax(-1) == labels
        finally:
            self.net.train(was_training)
        return accuracy_by_instance(hits, labels, episodes.ways)


class Pixels(Backbone):
    """The image itself, as the paper's LSTM sees it."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.features = channels * size * size

    def forward(self, images: Tensor) -> Tensor:
        """``M x C x H x W`` to ``M x CHW``."""
        return images.flatten(1)


@dataclass(frozen=True)
class Mann(Method):
    """The settings; the paper's are pixels, 200, 128, 40, 4, 0.95, 1 and 0.

    Args:
        encoder: whether the LSTM sees the features of the backbone or the pixels.
        hidden: units of the LSTM.
        memory_slots: slots of the memory.
        memory_width: numbers a slot.
        reads: heads, each with a key, a write and a read of its own.
        usage_decay: γ, the part of a slot's usage that is left after a step.
        key_strength: β, what cosines are multiplied by before the softmax (Graves 2014). The paper has none,
            so that of n slots with one that fits perfectly a read is e / (e + n − 1) of what is there.
        gate_bias: added to the gates' first biases; below 0 a head begins by writing to the least used slots,
            so that what is written stays apart.
        writes: ``keys`` is the paper's equations: a head writes the key that it reads with, and all heads
            write to the same least used slots. With ``contents`` a head writes a vector of its own to a slot
            of its own, as the implementation does that is known to reach the paper's figures (T. Deleu,
            github.com/tristandeleu/ntm-one-shot).
    """

    name: Literal["mann"]
    encoder: Literal["backbone", "pixels"]
    hidden: Count
    memory_slots: Count
    memory_width: Count
    reads: Count
    usage_decay: Probability
    key_strength: Positive
    gate_bias: float
    writes: Writes

    def build(self, problem: Problem, backbone: BackboneFactory) -> MannLearner:
        """The learner."""
        pixels = self.encoder == "pixels"
        encoder = Pixels(problem.channels, problem.size) if pixels else backbone(running=True)
        net = MannNet(
            encoder,
            problem.ways,
            self.hidden,
            self.memory_slots,
            self.memory_width,
            self.reads,
            self.usage_decay,
            self.key_strength,
            self.gate_bias,
            self.writes,
        )
        return MannLearner(net, fixed_ways=True)
