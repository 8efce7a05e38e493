"""What a meta-batch comes to: the sums over a process's tasks, then over all processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from innerloop.core import params as vector
from innerloop.core.inner import InnerRule, State
from innerloop.core.losses import TaskLosses
from innerloop.core.metagrad import MetaGradient
from innerloop.core.parallel import Turn, World
from innerloop.core.params import Params


@dataclass
class Figures:
    """What is told of a meta-batch, by the tasks' places in it.

    Args:
        losses: of each task.
        extras: further figures, by name.
        spent: what was added to the ledger.
        peak_memory: bytes, the most that any process has held.
    """

    losses: dict[int, TaskLosses] = field(default_factory=dict)
    extras: dict[str, dict[int, float]] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    peak_memory: int = 0

    def ordered(self) -> list[TaskLosses]:
        """The losses in the order of the tasks."""
        return [self.losses[index] for index in sorted(self.losses)]


class Pool:
    """Gathers the meta-gradients of a meta-batch's tasks.

    Args:
        masters: tensors in whose dtype the meta-gradient is summed.
        rule: the inner rule, which may carry its state from one meta-batch to the next.

    Attributes:
        gradient: the sum, to which the strategies add in place.
    """

    def __init__(self, masters: Mapping[str, Tensor], rule: InnerRule) -> None:
        self.figures = Figures()
        self._rule = rule
        self.gradient = vector.zeros_like(vector.detached(masters))
        self._rate_gradient: Params = {}
        self._state: State = {}

    def add(self, turns: Sequence[Turn], losses: Sequence[TaskLosses], result: MetaGradient) -> None:
        """Adds the result of a bundle of tasks, whose gradient is in the sum already."""
        self._rate_gradient = _sum(self._rate_gradient, result.rate_gradient)
        if self._rule.carries:
            for state in result.states:
                self._add_state(state)
        for turn, entry in zip(turns, losses, strict=True):
            self.figures.losses[turn.index] = entry
        for name, values in result.extras.items():
            places = self.figures.extras.setdefault(name, {})
            places.update({turn.index: v for turn, v in zip(turns, values.tolist(), strict=True)})

    def mean(self, world: World, tasks: int) -> tuple[Params, Params]:
        """The mean meta-gradient over all tasks of all processes, and that of the learned rates.

        The rule is told the mean of the tasks' final states.
        """
        sums = (self.gradient, self._rate_gradient, self._state)
        world.sum_over_groups([tensor for params in sums for tensor in params.values()])
        for params in sums:
            vector.scale_(params, 1 / tasks)
        if self._state:
            self._rule.carry([self._state])
        return self.gradient, self._rate_gradient

    def _add_state(self, state: State) -> None:
        # Moments are as large as the parameters, so their sum is the first task's own, added to in place.
        if self._state:
            vector.add_(self._state, state)
        else:
            self._state = vector.detached(state)


def together(world: World, own: Figures) -> Figures:
    """The figures of all processes as one."""
    everyone = Figures()
    for heard in world.gather(own):
        everyone.losses |= heard.losses
        for name, places in heard.extras.items():
            everyone.extras.setdefault(name, {}).update(places)
        for name, count in heard.spent.items():
            everyone.spent[name] = everyone.spent.get(name, 0) + count
        everyone.peak_memory = max(everyone.peak_memory, heard.peak_memory)
    return everyone


def _sum(total: Params, more: Params) -> Params:
    return vector.add(total, more) if total else dict(more)
