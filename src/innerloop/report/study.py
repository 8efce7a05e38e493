"""What a report is made from: methods, their measured cells, what they cost and how they were trained.

Plain records read from evaluation folders by `reading` and compared by `analysis`. A method is whatever one
folder holds; a cell is one method on one task at one budget in one run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
"""A value as it stands in a configuration; shown, never interpreted."""


@dataclass(frozen=True)
class Cell:
    """One method on one task, at one budget, in one run.

    Args:
        task: the task's name.
        budget: how much of the task the method saw before it was measured, for example shots.
        run: the draw's number, shared by all methods.
        metrics: measured quantities by name; one that diverged is NaN.
        rows: number of test rows behind the metrics.
        seconds: wall time of the cell.
        tokens: tokens spent on adapting and measuring.
        gradient_passes: backward passes spent on adapting.
    """

    task: str
    budget: int
    run: int
    metrics: Mapping[str, float]
    rows: int | None
    seconds: float | None
    tokens: int | None
    gradient_passes: int | None


@dataclass(frozen=True)
class Ledger:
    """What a method's training cost. None stands for what was not recorded, zero for nothing spent."""

    gradient_passes: float | None = None
    hessian_products: float | None = None
    forward_passes: float | None = None
    tokens: float | None = None
    seconds: float | None = None
    peak_memory_bytes: float | None = None
    trained_parameters: float | None = None
    checkpoint_bytes: float | None = None

    @property
    def equivalent_passes(self) -> float | None:
        """Gradient passes, a Hessian-vector product counted as the two gradients of a central difference."""
        if self.gradient_passes is None:
            return None
        return self.gradient_passes + 2 * (self.hessian_products or 0)

    @property
    def trained(self) -> bool:
        """Whether any gradient was spent before the evaluation."""
        return bool(self.gradient_passes)


LEDGER_FIELDS = tuple(field.name for field in fields(Ledger))


@dataclass(frozen=True)
class Adaptation:
    """How a method adapts to a task, and on which tasks those settings were chosen."""

    rule: str | None = None
    learning_rate: JsonValue = None
    steps: JsonValue = None
    chosen_on: str | None = None


@dataclass(frozen=True)
class Series:
    """One tracked quantity over training; steps increase strictly, every value is finite."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Training:
    """Curves of a method's training, by their tracked name (see `reading.TRAINING_KEYS`)."""

    curves: Mapping[str, Series]


@dataclass(frozen=True)
class Method:
    """One evaluated method: a folder's results and what is known about how they came to be.

    Args:
        key: unique in the study.
        label: what a reader sees; unique in the study.
        control: whether it is one of the controls the others are judged against.
        folder: where it was read from.
        cells: its results, in the order of the file, a repeated one replaced by its last.
        ledger: what training cost.
        adaptation: how it adapts.
        training: its training curves; None when none are recorded.
        seed: of the evaluation.
        config: the resolved configuration.
        versions: of the software, by package.
    """

    key: str
    label: str
    control: bool
    folder: Path
    cells: tuple[Cell, ...]
    ledger: Ledger
    adaptation: Adaptation
    training: Training | None
    seed: int | None
    config: Mapping[str, JsonValue]
    versions: Mapping[str, str]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of its tasks, in the order of the file."""
        return tuple(dict.fromkeys(cell.task for cell in self.cells))

    @property
    def budgets(self) -> tuple[int, ...]:
        """Every budget it was measured at, in increasing order."""
        return tuple(sorted({cell.budget for cell in self.cells}))

    def values(self, metric: str) -> dict[tuple[str, int], tuple[float, ...]]:
        """The finite values of a metric by task and budget, one a run; places without any are absent."""
        found: dict[tuple[str, int], list[float]] = {}
        for cell in self.cells:
            value = cell.metrics.get(metric, math.nan)
            if math.isfinite(value):
                found.setdefault((cell.task, cell.budget), []).append(value)
        return {place: tuple(values) for place, values in found.items()}


@dataclass(frozen=True)
class Study:
    """Methods to be compared on one metric.

    Args:
        methods: at least one, the challengers before the controls.
        metric: the compared quantity.
        higher_is_better: its direction.
        budget_name: the budget's name in the plural, for example "shots".
        notes: what a reader must know about the data: lines skipped, files missing.
    """

    methods: tuple[Method, ...]
    metric: str
    higher_is_better: bool
    budget_name: str
    notes: tuple[str, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that any method measured, in the order met."""
        return tuple(dict.fromkeys(task for method in self.methods for task in method.tasks))

    @property
    def challengers(self) -> tuple[Method, ...]:
        """The methods that are not controls."""
        return tuple(method for method in self.methods if not method.control)

    @property
    def controls(self) -> tuple[Method, ...]:
        """The methods the others are judged against."""
        return tuple(method for method in self.methods if method.control)
