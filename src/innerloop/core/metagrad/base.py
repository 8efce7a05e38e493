"""What a strategy is, what it returns, and the pieces several strategies share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.inner import State
from innerloop.core.inner_loop import Adapted, InnerLoop, InnerStep
from innerloop.core.learner.base import Learner
from innerloop.core.losses import TaskLosses, average_metrics, task_metrics
from innerloop.core.params import Params
from innerloop.core.task import Batch, Task


@dataclass(frozen=True)
class MetaGradient:
    """The meta-gradient of a bundle of ``T`` tasks (``T`` = 1 unless the learner runs several at once).

    Args:
        gradient: the sum of the tasks' meta-gradients, in the shapes of θ; with those of earlier bundles
            where the strategy was given a sum to add to.
        rate_gradient: the same for learned inner rates, shape ``(K,)`` a tensor; empty if they are fixed.
        support_loss: the last support batch's loss at φ, shape ``(T,)``; ``None`` where the learner does not
            monitor.
        query_loss_before: the query loss at θ, shape ``(T,)``, or ``None`` likewise.
        query_loss: the query loss at φ, shape ``(T,)``.
        states: the inner rule's final state for each task.
        extras: further figures worth tracking, shape ``(T,)`` each.
    """

    gradient: Params
    rate_gradient: Params
    support_loss: Tensor | None
    query_loss_before: Tensor | None
    query_loss: Tensor
    states: Sequence[State] = ()
    extras: dict[str, Tensor] = field(default_factory=dict)


class Strategy(ABC):
    """A way to the meta-gradient. A new algorithm is one subclass in one file.

    Args:
        inner: the inner loop.

    Attributes:
        learns_rates: whether it has a gradient for the inner rates.
        keeps_buffers: whether what a task's passes write into the module's buffers stays there.
        least_steps: inner steps it needs.
    """

    learns_rates = False
    keeps_buffers = False
    least_steps = 1

    def __init__(self, inner: InnerLoop) -> None:
        if inner.rates.learned and not self.learns_rates:
            raise InputError(
                f"{type(self).__name__} has no gradient for the inner learning rates; "
                "learn_inner_lr works with maml and fomaml"
            )
        if inner.steps < self.least_steps:
            raise InputError(f"an inner loop needs at least {self.least_steps} step, not {inner.steps}")
        self.inner = inner

    @abstractmethod
    def __call__(self, learner: Learner, task: Task, total: Params | None = None) -> MetaGradient:
        """The meta-gradient of one task (or bundle). θ is in the module again afterwards.

        Args:
            learner: the model.
            task: the task or bundle.
            total: what to add the meta-gradient to, in place, so that a whole meta-batch needs one buffer;
                the result's ``gradient`` is then this sum.
        """

    def metrics(self, losses: Sequence[TaskLosses]) -> dict[str, float]:
        """What the tracker is told of a meta-batch's losses."""
        return average_metrics(losses, "meta/") | task_metrics(losses)


def added(gradient: Params, total: Params | None) -> Params:
    """The gradient, or the sum it has been added to."""
    if total is None:
        return gradient
    vector.add_(total, gradient)
    return total


def loss_before(learner: Learner, theta: Params, query: Batch) -> Tensor | None:
    """The query loss at θ, shape ``(T,)``, if the learner monitors."""
    return _watched(learner, theta, query)


def support_loss_after(learner: Learner, adapted: Adapted) -> Tensor | None:
    """The last support batch's loss at φ, shape ``(T,)``, if the learner monitors."""
    return _watched(learner, adapted.params, adapted.batches[-1])


def _watched(learner: Learner, params: Params, batch: Batch) -> Tensor | None:
    """A loss that no strategy needs, so not in the ledger."""
    if not learner.monitors:
        return None
    with learner.unaccounted():
        return learner.loss(params, batch).reshape(-1)


@dataclass(frozen=True)
class RuleCotangents:
    """The derivative of one inner step with respect to what it was computed from; of rates, if learned."""

    gradient: Params
    state: State
    rates: Params


def differentiate_rule(
    learner: Learner, inner: InnerLoop, step: InnerStep, update: Params, state: State
) -> RuleCotangents:
    """Pulls cotangents of a step's update and next state back through the inner rule alone.

    The rule is elementwise but for the clipping norm, so its graph is a few vectors; the model is not in it.

    Args:
        learner: maps the rule over tasks where it runs several.
        inner: the inner loop.
        step: the recorded step.
        update: cotangent of the update.
        state: cotangent of the next state.
    """
    with torch.enable_grad():
        gradient = _leaves(learner.fetch(step.gradient))
        before = _leaves(step.state)
        rates = inner.rates.at(step.step, gradient)
        learned = _leaves(rates) if inner.rates.learned else {}
        new_update, new_state = inner.apply_rule(learner, gradient, before, rates | learned)
        outputs = [*new_update.values(), *new_state.values()]
        cotangents = [*(update[name] for name in new_update), *(state[name] for name in new_state)]
        sources = [*gradient.values(), *before.values(), *learned.values()]
        pulled = iter(torch.autograd.grad(outputs, sources, cotangents, materialize_grads=True))
    return RuleCotangents(
        gradient={name: next(pulled) for name in gradient},
        state={name: next(pulled) for name in before},
        rates={name: next(pulled) for name in learned},
    )


class RateGradient:
    """Gathers ∂/∂α_k, one number a tensor and step."""

    def __init__(self, inner: InnerLoop) -> None:
        self._inner = inner
        self.values = vector.zeros_like(inner.rates.values)

    def add(self, step: int, rates: Params) -> None:
        """Adds the cotangent of the rates of one step."""
        index = min(step, self._inner.rates.steps - 1)
        for name, total in self.values.items():
            total[index] += vector.whole(rates[name]).to(total)


def _leaves(params: Params) -> Params:
    return {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
