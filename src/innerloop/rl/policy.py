"""The policy: one network for clusters of every shape, since applications, nodes and regions are treated
alike.

Every application and every node is encoded by a network of its own kind; the mean encodings of those that are
there, what all share, and a vector that stands for the task give the context; from it and its own encoding
each application (or each region and node) gets the parameters of its action's distribution, and the context
alone gives the value. The task's vector is an ordinary parameter; adapting it is what a few episodes do best
(Zintgraf 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from innerloop.core.errors import InputError
from innerloop.rl.families import Kind
from innerloop.rl.observation import (
    APPLICATION_FEATURES,
    COMMON_FEATURES,
    NODE_FEATURES,
    Layout,
    Parts,
)

LAYERS = ("application_encoder", "node_encoder", "context", "task", "actor", "critic", "cost")
"""From the observation to the action; ``frozen_layers`` are places in this list."""

HEADS = ("actor", "critic")


@dataclass(frozen=True)
class PolicyShape:
    """What a policy is built from.

    Args:
        kind: what it controls.
        width: of its hidden layers.
        choices: of a scaling policy, changes of replicas to choose from.
        task_width: of the vector that stands for the task.
    """

    kind: Kind
    width: int = 32
    choices: int = 7
    task_width: int = 8


@dataclass(frozen=True)
class Judged:
    """What a policy makes of actions, ``...`` each.

    Args:
        value: the critic's estimate of the return.
        log_probability: the logarithm of the density of the actions.
        entropy: of the distribution of actions, up to a constant for scores.
    """

    value: Tensor
    log_probability: Tensor
    entropy: Tensor


class ClusterPolicy(nn.Module):
    """See the module's text.

    Args:
        shape: what it is built from.
        layout: of the observations; the weights do not depend on it.
    """

    def __init__(self, shape: PolicyShape, layout: Layout) -> None:
        super().__init__()
        self.shape, self.layout = shape, layout
        width = shape.width
        self.application_encoder = _two_layers(APPLICATION_FEATURES, width)
        self.node_encoder = _two_layers(NODE_FEATURES, width)
        self.task = nn.Parameter(torch.zeros(shape.task_width))
        self.context = _two_layers(2 * width + COMMON_FEATURES + shape.task_width, width)
        scaling = shape.kind == "scaling"
        last = nn.Linear(width, shape.choices if scaling else 1)
        self.actor = nn.Sequential(
            nn.Linear(2 * width + (0 if scaling else 2), width),
            nn.Tanh(),
            last,
        )
        # A policy that has learned nothing should try everything.
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.critic = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.cost = nn.Sequential(
            _two_layers(APPLICATION_FEATURES + COMMON_FEATURES + shape.task_width, width), nn.Linear(width, 1)
        )
        if not scaling:
            # Of the actor, so that it is frozen and thawed with it.
            self.actor.register_parameter("log_deviation", nn.Parameter(torch.tensor(-0.7)))

    def encoded(self, observations: Tensor) -> tuple[Parts[Tensor], Parts[Tensor]]:
        """An observation's parts and their encodings; the context is the encoding of what is common.

        Args:
            observations: ``... x size``, or longer by facts of the cluster, each moving a coordinate of the
                task's vector.
        """
        parts = self.layout.split(observations)
        applications = self.application_encoder(parts.applications)
        nodes = self.node_encoder(parts.nodes)
        pooled = [
            _mean(applications, parts.applications[..., 0]),
            _mean(nodes, parts.nodes[..., 0]),
            parts.common,
            self._task_at(observations),
        ]
        context = self.context(torch.cat(pooled, dim=-1))
        return parts, Parts(applications, nodes, parts.regions, parts.ways, context)

    def action_parameters(self, observations: Tensor) -> Tensor:
        """The actor's output: logits ``... x D x choices``, or the means of scores ``... x U x N``."""
        parts, encoded = self.encoded(observations)
        return self.head(parts, encoded)

    def head(self, parts: Parts[Tensor], encoded: Parts[Tensor]) -> Tensor:
        """The actor's output from what :meth:`encoded` gave."""
        context = encoded.common
        if self.shape.kind == "scaling":
            own = encoded.applications
            shared = context.unsqueeze(-2).expand(*own.shape[:-1], context.shape[-1])
            return self.actor(torch.cat([own, shared], dim=-1))  # type: ignore[no-any-return]
        ways = parts.ways
        pair = (*ways.shape, self.shape.width)
        own = encoded.nodes.unsqueeze(-3).expand(pair)
        shared = context.unsqueeze(-2).unsqueeze(-2).expand(pair)
        region = parts.regions.unsqueeze(-1).expand(ways.shape).unsqueeze(-1)
        scores: Tensor = self.actor(torch.cat([own, shared, ways.unsqueeze(-1), region], dim=-1))
        return scores.squeeze(-1)

    def judged(self, observations: Tensor, actions: Tensor) -> "Judged":
        """What the policy makes of actions, in one pass.

        Args:
            observations: ``... x size``.
            actions: choices ``... x D``, or scores ``... x U N``.
        """
        parts, encoded = self.encoded(observations)
        parameters = self.head(parts, encoded)
        value: Tensor = self.critic(encoded.common).squeeze(-1)
        return Judged(value, self._density(parts, parameters, actions), self._entropy(parts, parameters))

    def log_probability(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The logarithm of the density of actions.

        Args:
            observations: ``... x size``.
            actions: choices ``... x D``, or scores ``... x U N``.

        Returns:
            ``...``; what is padding counts nothing.
        """
        parts, encoded = self.encoded(observations)
        return self._density(parts, self.head(parts, encoded), actions)

    def entropy(self, observations: Tensor) -> Tensor:
        """The entropy of the action distribution, up to a constant for scores; ``...``."""
        parts, encoded = self.encoded(observations)
        return self._entropy(parts, self.head(parts, encoded))

    def value(self, observations: Tensor) -> Tensor:
        """The critic's estimate of the return, ``...``."""
        return self.critic(self.encoded(observations)[1].common).squeeze(-1)  # type: ignore[no-any-return]

    def log_cost(self, observations: Tensor) -> Tensor:
        """The logarithm of what the step cost that led to an observation, ``...``.

        A small network of its own, from the mean application and the task's vector: what a step cost shows
        what counts, without the noise of all that follows.
        """
        parts = self.layout.split(observations)
        seen = _mean(parts.applications, parts.applications[..., 0])
        inputs = torch.cat([seen, parts.common, self._task_at(observations)], dim=-1)
        return self.cost(inputs).squeeze(-1)  # type: ignore[no-any-return]

    @property
    def log_deviation(self) -> Tensor:
        """The logarithm of the scores' deviation, of a balancing policy; ``()``."""
        lent: Tensor = self.actor.log_deviation  # type: ignore[assignment]  # no module; often lent, so no Parameter
        return lent

    def noise_shape(self) -> tuple[int, ...]:
        """Of the noise an action is made with, for one observation."""
        if self.shape.kind == "scaling":
            return (self.layout.applications, self.shape.choices)
        return (self.layout.regions, self.layout.nodes)

    def noise(self, leading: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """What actions are drawn with, ``leading x noise_shape``; none takes PyTorch's own generator."""
        shape = (*leading, *self.noise_shape())
        if self.shape.kind == "balancing":
            return torch.randn(shape, generator=generator)
        # Gumbel's: the arg max of logits plus it is a draw from their softmax.
        uniform = torch.rand(shape, generator=generator).clamp(1e-9, 1 - 1e-7)
        return -torch.log(-torch.log(uniform))

    def forward(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Actions drawn with given noise: Gumbel's for choices, normal for scores; zeros give the likeliest.

        Args:
            observations: ``... x size``.
            noise: ``... x noise_shape``.

        Returns:
            Choices ``... x D``, or scores ``... x U N``.
        """
        parameters = self.action_parameters(observations)
        if self.shape.kind == "scaling":
            return (parameters + noise).argmax(-1)
        return (parameters + self.log_deviation.exp() * noise).flatten(-2)

    def _density(self, parts: Parts[Tensor], parameters: Tensor, actions: Tensor) -> Tensor:
        if self.shape.kind == "scaling":
            every = parameters.log_softmax(-1)
            chosen = every.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)
            return (chosen * parts.applications[..., 0]).sum(-1)
        deviation = self.log_deviation.exp()
        scores = actions.reshape(parameters.shape)
        density = -0.5 * ((scores - parameters) / deviation) ** 2 - self.log_deviation
        return (density * self._pairs(parts)).sum((-2, -1))

    def _entropy(self, parts: Parts[Tensor], parameters: Tensor) -> Tensor:
        if self.shape.kind == "scaling":
            every = parameters.log_softmax(-1)
            return (-(every.exp() * every).sum(-1) * parts.applications[..., 0]).sum(-1)
        return self.log_deviation * self._pairs(parts).sum((-2, -1))

    def _task_at(self, observations: Tensor) -> Tensor:
        """What the task's vector does, moved by the facts at the end of observations, ``... x task_width``.

        However far a few episodes move it, its effect stays near what training has seen.
        """
        facts = observations[..., self.layout.size :]
        task = self.task.expand(*observations.shape[:-1], -1)
        if facts.shape[-1]:
            task = task + functional.pad(facts, (0, len(self.task) - facts.shape[-1]))
        return task.tanh()

    @staticmethod
    def _pairs(parts: Parts[Tensor]) -> Tensor:
        """Which pairs of region and node there are: those with a way, at a node that is up."""
        return (parts.ways > 0) * parts.nodes[..., 0].unsqueeze(-2)


def named_layers(numbers: Sequence[int]) -> tuple[str, ...]:
    """The names of layers by their places.

    Raises:
        InputError: a place that there is not; it lists the layers.
    """
    if wrong := [number for number in numbers if not 0 <= number < len(LAYERS)]:
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(LAYERS))
        raise InputError(
            f"frozen_layers: there is no layer {', '.join(map(str, wrong))}; there are: {listed}"
        )
    return tuple(LAYERS[number] for number in numbers)


def freeze(policy: nn.Module, names: Sequence[str]) -> None:
    """Takes layers out of training, and puts all others in."""
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in names)


def _two_layers(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())


def _mean(encodings: Tensor, present: Tensor) -> Tensor:
    """The mean over those that are there, ``... x items x width`` to ``... x width``."""
    count = present.sum(-1, keepdim=True).clamp(min=1)
    return (encodings * present.unsqueeze(-1)).sum(-2) / count
