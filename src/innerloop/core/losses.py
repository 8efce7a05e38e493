"""The losses around an adaptation, and the names under which they are tracked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class TaskLosses:
    """One task's losses; ``None`` where a step did not measure what it did not need.

    Args:
        task: its name.
        support_loss: on the last support batch, after adaptation.
        query_loss_before: on the query batch, before adaptation.
        query_loss: on the query batch, after adaptation.
    """

    task: str
    support_loss: float | None
    query_loss_before: float | None
    query_loss: float

    @property
    def adaptation_gap(self) -> float | None:
        """Query minus support loss, both after adaptation: how far the fit falls short of generalising."""
        return None if self.support_loss is None else self.query_loss - self.support_loss

    @property
    def adaptation_gain(self) -> float | None:
        """Query loss before minus after adaptation: what adapting was worth."""
        return None if self.query_loss_before is None else self.query_loss_before - self.query_loss


_KINDS: dict[str, Callable[[TaskLosses], float | None]] = {
    "support_loss": lambda entry: entry.support_loss,
    "query_loss": lambda entry: entry.query_loss,
    "adaptation_gap": lambda entry: entry.adaptation_gap,
    "adaptation_gain": lambda entry: entry.adaptation_gain,
}


def task_metrics(losses: Iterable[TaskLosses], prefix: str = "") -> dict[str, float]:
    """Each task's losses under ``{prefix}{task}/...``; a task met several times is averaged."""
    by_task: dict[str, list[TaskLosses]] = {}
    for entry in losses:
        by_task.setdefault(entry.task, []).append(entry)
    metrics: dict[str, float] = {}
    for name, entries in by_task.items():
        metrics |= {f"{prefix}{name}/{key}": mean for key, mean in _means(entries).items()}
    return metrics


def average_metrics(losses: Sequence[TaskLosses], prefix: str) -> dict[str, float]:
    """The means over all tasks under ``{prefix}...``."""
    means = _means(losses)
    loss = means.pop("query_loss")
    return {f"{prefix}loss": loss} | {f"{prefix}avg_{key}": mean for key, mean in means.items()}


def _means(losses: Sequence[TaskLosses]) -> dict[str, float]:
    """The mean of each kind of loss over the tasks it was measured for, where there are any."""
    known = {
        key: [value for entry in losses if (value := of(entry)) is not None] for key, of in _KINDS.items()
    }
    return {key: fmean(values) for key, values in known.items() if values}
