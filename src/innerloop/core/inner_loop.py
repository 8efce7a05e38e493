"""The inner loop: K steps of an inner rule on a task's support batches. Every strategy adapts through it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from innerloop.core import params as vector
from innerloop.core.inner import InnerRule, LearningRates, State
from innerloop.core.learner.base import Learner
from innerloop.core.params import Params
from innerloop.core.task import Batch, Task


@dataclass(frozen=True)
class InnerStep:
    """What one step started from: enough to differentiate it later."""

    step: int
    params: Params
    gradient: Params
    state: State
    batch: Batch


@dataclass(frozen=True)
class Adapted:
    """The end of an inner loop.

    Args:
        params: φ = θ_K.
        state: the rule's final state.
        batches: the support batches, one a step.
        tape: the steps, if they were recorded.
    """

    params: Params
    state: State
    batches: tuple[Batch, ...]
    tape: tuple[InnerStep, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class InnerLoop:
    """θ_{k+1} = θ_k + rule(∇S_k(θ_k) + λ(θ_k − θ)), k < K.

    Args:
        rule: turns gradients into updates.
        rates: the learning rates α.
        steps: K.
        proximal: λ, the pull towards θ at every step (Rajeswaran 2019); 0 for none.
    """

    rule: InnerRule
    rates: LearningRates
    steps: int
    proximal: float = 0.0

    def run(
        self,
        learner: Learner,
        task: Task,
        start: Params,
        record: bool = False,
        create_graph: bool = False,
        watch: Callable[[int, Tensor, Params], None] | None = None,
    ) -> Adapted:
        """Adapts from ``start``.

        Args:
            learner: runs the model; must be inside an ``excursion`` unless the module may keep φ.
            task: gives a fresh support batch for every step.
            start: φ₀.
            record: keep what every step started from: K points, and K gradients unless the rule is linear.
            create_graph: build the graph through all steps, to unroll.
            watch: called after each step with the number of steps taken, the support loss before the step,
                and the point reached.
        """
        params = start
        anchor = learner.keep(start) if self.proximal else start
        state: State = learner.lift(self.rule.init)(params)
        batches: list[Batch] = []
        tape: list[InnerStep] = []
        for step in range(self.steps):
            batch = task.support(step, params)
            rates = self.rates.at(step, start)
            if record or create_graph or self.proximal:
                loss, gradient = self._gradient(learner, params, batch, anchor, create_graph)
                if record:
                    tape.append(
                        InnerStep(
                            step, learner.shelve(params), self._on_tape(learner, gradient), state, batch
                        )
                    )
                with torch.set_grad_enabled(create_graph):
                    update, state = self.apply_rule(learner, gradient, state, rates)
                params = learner.move(params, update)
            else:
                # Nobody asks for the gradient, so the learner may use it up as it comes.
                loss, params, state = learner.descend(params, batch, self.rule, state, rates)
            batches.append(batch)
            if watch is not None:
                watch(step + 1, loss, params)
        return Adapted(params, state, tuple(batches), tuple(tape))

    def _gradient(
        self, learner: Learner, params: Params, batch: Batch, anchor: Params, create_graph: bool
    ) -> tuple[Tensor, Params]:
        """Loss, and gradient with the pull towards the anchor."""
        loss, gradient = learner.gradient(params, batch, create_graph)
        if self.proximal:
            gradient = vector.add(gradient, vector.subtract(params, anchor), self.proximal)
        return loss, gradient if create_graph else vector.detached(gradient)

    def _on_tape(self, learner: Learner, gradient: Params) -> Params:
        """What differentiating the step later needs of its gradient: of a linear rule's, the shapes alone."""
        # Zeros that take no memory cannot be had of a shard, and a shard is small.
        plain = all(vector.local(g) is g for g in gradient.values())
        if plain and self.rule.linear and not self.rates.learned:
            return {name: g.new_zeros(()).expand_as(g) for name, g in gradient.items()}
        return learner.shelve(gradient)

    def apply_rule(
        self, learner: Learner, gradient: Params, state: State, rates: Params
    ) -> tuple[Params, State]:
        """The rule's update; learned rates are shared by all tasks of a bundle."""
        update, following = learner.lift(self.rule.update, in_dims=(0, 0, None))(gradient, state, rates)
        return update, following
