"""Inner rules: how a task's gradient becomes a step.

A rule is a pair of pure functions in the manner of optax: ``init`` makes the state, ``update`` turns a
gradient into an update to be *added* to the parameters. Both are written for one task and use elementwise
arithmetic only, so that a learner may map them over tasks and a strategy may differentiate them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from innerloop.core.params import Params, dot_in_place, local, scaled

State = dict[str, Tensor]
Moments = Literal["reset", "carry"]


class LearningRates:
    """The inner learning rates α: given, or learned for every tensor and step, or for every entry.

    Args:
        value: the rate every tensor starts from, or one for each name. A tensor of rate 0 is not adapted:
            with 0 for all but the head, MAML is ANIL (Raghu 2020).
        names: the adapted tensors' names.
        steps: inner steps; learned rates have one value for each. A step past the last uses the last.
        learned: make the rates meta-parameters, one a tensor and step (MAML++, Antoniou 2019).
    """

    def __init__(
        self, value: float | Mapping[str, float], names: Sequence[str], steps: int, learned: bool = False
    ) -> None:
        self.value, self.steps, self.learned = value, steps, learned
        self.values: Params = {}
        if learned:
            self.values = {
                name: torch.full((steps,), self._start(name), dtype=torch.float32) for name in names
            }

    @classmethod
    def of_every_entry(cls, value: float, like: Mapping[str, Tensor]) -> "LearningRates":
        """Learned rates of the shapes of the tensors themselves, shared by all steps (Meta-SGD, Li 2017)."""
        rates = cls(value, [], 1, learned=True)
        rates.values = {
            name: torch.full((1, *tensor.shape), value, dtype=torch.float32) for name, tensor in like.items()
        }
        return rates

    def at(self, step: int, like: Mapping[str, Tensor]) -> Params:
        """The rates of one step in the dtype and on the device of ``like``.

        They are a scalar for each name, or a tensor of the parameter's shape.
        """
        if not self.learned:
            return {name: tensor.new_tensor(self._start(name)) for name, tensor in like.items()}
        index = min(step, self.steps - 1)
        return {name: self.values[name][index].to(tensor) for name, tensor in like.items()}

    def _start(self, name: str) -> float:
        return self.value if isinstance(self.value, int | float) else self.value[name]


class InnerRule(Protocol):
    """Turns gradients into updates: shortens the task's gradient first, then works tensor by tensor."""

    @property
    def max_norm(self) -> float | None:
        """The norm that a task's gradient is shortened to; ``None`` leaves it."""

    @property
    def linear(self) -> bool:
        """Whether the update is linear in the gradient, so that its derivative does not depend on it."""

    @property
    def carries(self) -> bool:
        """Whether it uses what ``carry`` tells it."""

    def init(self, params: Params) -> State:
        """The state before the first step."""

    def update(self, gradient: Params, state: State, rates: Params) -> tuple[Params, State]:
        """The update to add to the parameters, and the next state."""

    def unclipped_update(self, gradient: Params, state: State, rates: Params) -> tuple[Params, State]:
        """The same without shortening, for any part of the tensors with the part of the state that is theirs:
        the entries that end in ``/NAME``, and those without a slash, which all parts share."""

    def carry(self, states: Sequence[State]) -> None:
        """Told the final states of one meta-batch's tasks; a rule that remembers across tasks uses them."""

    def state_dict(self) -> Params:
        """What the rule remembers across tasks."""

    def load_state_dict(self, state: Params) -> None:
        """Takes up what was remembered."""


def clip(gradient: Params, max_norm: float | None) -> Params:
    """The gradient shortened to ``max_norm`` if it is longer; differentiable, zero gradient included."""
    return gradient if max_norm is None else scaled(gradient, clip_factor(gradient, max_norm))


def clip_factor(gradient: Params, max_norm: float) -> Tensor:
    """What ``clip`` multiplies the gradient with, shape ``()``."""
    length = (dot_in_place(gradient, gradient) + 1e-24).sqrt()
    return (max_norm / length).clamp(max=1.0)


@dataclass
class SGD:
    """θ ← θ − α ⊙ g.

    Args:
        max_norm: shorten the gradient of a task to this norm first; ``None`` leaves it.
    """

    max_norm: float | None = None

    @property
    def carries(self) -> bool:
        """Never."""
        return False

    @property
    def linear(self) -> bool:
        """Unless the gradient is shortened by its own length."""
        return self.max_norm is None

    def init(self, params: Params) -> State:  # noqa: ARG002
        """No state."""
        return {}

    def update(self, gradient: Params, state: State, rates: Params) -> tuple[Params, State]:
        """``−α ⊙ g``."""
        return self.unclipped_update(clip(gradient, self.max_norm), state, rates)

    def unclipped_update(self, gradient: Params, state: State, rates: Params) -> tuple[Params, State]:
        """``−α ⊙ g`` with g as it is."""
        return {name: -rates[name] * g for name, g in gradient.items()}, state

    def carry(self, states: Sequence[State]) -> None:
        """Remembers nothing."""

    def state_dict(self) -> Params:
        """Remembers nothing."""
        return {}

    def load_state_dict(self, state: Params) -> None:
        """Remembers nothing."""


@dataclass
class Adam:
    """Adam (Kingma & Ba 2015) as an inner rule.

    Args:
        betas: decay of the first and second moment. Reptile's recipe (Nichol 2018) is ``(0.0, 0.999)``.
        eps: added to the root.
        eps_root: added under the root, so that the derivative exists where a gradient is zero.
        max_norm: shorten the gradient of a task to this norm first; ``None`` leaves it.
        moments: ``reset`` starts every task from zero moments. ``carry`` starts every task of a meta-batch
            from the mean of the moments in which the last meta-batch's tasks ended; the start is a constant
            to the meta-gradient.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    eps_root: float = 1e-16
    max_norm: float | None = None
    moments: Moments = "reset"
    _carried: Params = field(default_factory=dict, repr=False)

    @property
    def carries(self) -> bool:
        """If the policy is ``carry``."""
        return self.moments == "carry"

    @property
    def linear(self) -> bool:
        """Never: the step is divided by a root of squared gradients."""
        return False

    def init(self, params: Params) -> State:
        """Zero or carried moments, keyed ``first/NAME``, ``second/NAME``, and the ``count`` of steps."""
        state: State = {}
        for kind in ("first", "second"):
            for name, tensor in params.items():
                key = f"{kind}/{name}"
                start = torch.zeros_like(tensor)
                state[key] = start + self._carried[key].to(tensor) if key in self._carried else start
        # The count is made from a parameter so that it maps over tasks as the moments do; half precision
        # could not count past 256.
        anchor = local(next(iter(params.values())).detach()).flatten()[:1].sum()
        zero = torch.zeros_like(anchor, dtype=torch.promote_types(anchor.dtype, torch.float32))
        state["count"] = zero + self._carried["count"].to(zero) if "count" in self._carried else zero
        return state

    def update(self, gradient: Params, state: State, rates: Params) -> tuple[Params, State]:
        """One bias-corrected step."""
        return self.unclipped_update(clip(gradient, self.max_norm), state, rates)

    def unclipped_update(self, gradient: Params, state: State, rates: Params) -> tuple[Params, State]:
        """One bias-corrected step along the gradient as it is."""
        beta1, beta2 = self.betas
        count = state["count"] + 1
        following: State = {"count": count}
        updates: Params = {}
        for name, g in gradient.items():
            first = beta1 * state[f"first/{name}"] + (1 - beta1) * g
            second = beta2 * state[f"second/{name}"] + (1 - beta2) * g * g
            following[f"first/{name}"], following[f"second/{name}"] = first, second
            unbiased_first = first / (1 - beta1**count)
            unbiased_second = second / (1 - beta2**count)
            updates[name] = (
                -rates[name] * unbiased_first / ((unbiased_second + self.eps_root).sqrt() + self.eps)
            )
        return updates, following

    def carry(self, states: Sequence[State]) -> None:
        """Keeps the mean of the final moments if the policy is ``carry``."""
        if self.moments == "carry":
            self._carried = {
                key: torch.stack([state[key].detach() for state in states]).mean(0) for key in states[0]
            }

    def state_dict(self) -> Params:
        """The carried moments."""
        return dict(self._carried)

    def load_state_dict(self, state: Params) -> None:
        """Takes up carried moments."""
        self._carried = dict(state)
