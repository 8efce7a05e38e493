"""Training progress for a person: a live bar on a terminal, plain lines in a log.

It shows a handful of figures; every metric is in the JSON lines that the core writes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 5.0
WIDE = 110


@dataclass(frozen=True)
class Figure:
    """One metric worth a place on the line, and what it is called there."""

    metric: str
    label: str


BAR_FIGURES = (
    Figure("meta/loss", "loss"),
    Figure("train/loss", "loss"),
    Figure("meta/avg_adaptation_gap", "gap"),
)
LINE_FIGURES = (
    *BAR_FIGURES,
    Figure("meta/avg_adaptation_gain", "gain"),
    Figure("perf/seconds", "s/step"),
)
HELD_OUT_FIGURES = (
    Figure("eval/loss", "loss"),
    Figure("eval/accuracy", "accuracy"),
    Figure("eval/accuracy_transductive", "transductive"),
    Figure("eval/avg_adaptation_gap", "gap"),
    Figure("eval/avg_adaptation_gain", "gain"),
)


class ConsoleTracker:
    """Shows how far a run is, its loss and its adaptation gap.

    A log gets the first and the last step, every evaluation, and otherwise a line every few seconds.

    Args:
        name: the run's name.
        total_steps: where the run ends.
        start_step: the step it starts after.
        console: where to; None is standard error, so that a command's output stays free.
        clock: tells the seconds.
    """

    def __init__(
        self,
        name: str,
        total_steps: int,
        start_step: int = 0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._total, self._start, self._clock = name, total_steps, start_step, clock
        self._console = console if console is not None else Console(stderr=True)
        self._began = clock()
        self._last_line = float("-inf")
        self._unprinted = ""
        self._bar: Progress | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = _bar(self._console)
            self._task = self._bar.add_task(name, total=total_steps, completed=start_step, figures="")
            self._bar.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows one step."""
        held_out = _figures(HELD_OUT_FIGURES, metrics)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=_figures(BAR_FIGURES, metrics))
        else:
            self._log_line(step, _figures(LINE_FIGURES, metrics), urgent=bool(held_out))
        if held_out:
            self._print(f"{self._name} step {step}: held-out tasks  {held_out}")

    def close(self) -> None:
        """Leaves the bar as it is, or writes the last step's line if it is still owed."""
        if self._bar is not None:
            self._bar.stop()
        elif self._unprinted:
            self._print(self._unprinted)
            self._unprinted = ""

    def _log_line(self, step: int, figures: str, urgent: bool) -> None:
        now = self._clock()
        left = (now - self._began) / max(step - self._start, 1) * (self._total - step)
        line = f"{self._name} step {step}/{self._total}  {figures}  {_duration(left)} left"
        if urgent or step == self._total or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._print(line)
            self._last_line, self._unprinted = now, ""
        else:
            self._unprinted = line

    def _print(self, line: str) -> None:
        # Names and figures are not to be read as markup, nor folded where a log is narrow.
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=40 if console.width >= WIDE else 10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("left", style="dim"),
        console=console,
    )


def _figures(chosen: tuple[Figure, ...], metrics: Mapping[str, float]) -> str:
    return "  ".join(
        f"{figure.label} {metrics[figure.metric]:.3g}" for figure in chosen if figure.metric in metrics
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
