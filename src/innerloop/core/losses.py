"""The losses around an adaptation, and the names under which they are tracked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class TaskLosses:
    """One task's losses.

    Args:
        task: its name.
        support_loss: on the last support batch, after adaptation.
        query_loss_before: on the query batch, before adaptation.
        query_loss: on the query batch, after adaptation.
    """

    task: str
    support_loss: float
    query_loss_before: float
    query_loss: float

    @property
    def adaptation_gap(self) -> float:
        """Query minus support loss, both after adaptation: how far the fit falls short of generalising."""
        return self.query_loss - self.support_loss

    @property
    def adaptation_gain(self) -> float:
        """Query loss before minus after adaptation: what adapting was worth."""
        return self.query_loss_before - self.query_loss


def task_metrics(losses: Iterable[TaskLosses], prefix: str = "") -> dict[str, float]:
    """Each task's losses under ``{prefix}{task}/...``; a task met several times is averaged."""
    by_task: dict[str, list[TaskLosses]] = {}
    for entry in losses:
        by_task.setdefault(entry.task, []).append(entry)
    metrics = {}
    for name, entries in by_task.items():
        for key in ("support_loss", "query_loss", "adaptation_gap", "adaptation_gain"):
            metrics[f"{prefix}{name}/{key}"] = fmean(getattr(entry, key) for entry in entries)
    return metrics


def average_metrics(losses: Sequence[TaskLosses], prefix: str) -> dict[str, float]:
    """The means over all tasks under ``{prefix}...``."""
    return {
        f"{prefix}loss": fmean(entry.query_loss for entry in losses),
        f"{prefix}avg_support_loss": fmean(entry.support_loss for entry in losses),
        f"{prefix}avg_adaptation_gap": fmean(entry.adaptation_gap for entry in losses),
        f"{prefix}avg_adaptation_gain": fmean(entry.adaptation_gain for entry in losses),
    }
