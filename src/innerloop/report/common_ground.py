"""The tasks and budgets on which every method of a study can be compared, and what they leave out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from innerloop.report.study import Method, Study

LISTED = 5
"""At most this many names are spelled out in a note."""

Grid = Mapping[str, Mapping[tuple[str, int], tuple[float, ...]]]
"""Finite values of the compared metric: by method key, then by task and budget, one a run."""


@dataclass(frozen=True)
class CommonGround:
    """The tasks all methods share, and the budgets each method measured on every one of them."""

    tasks: tuple[str, ...]
    budgets: Mapping[str, tuple[int, ...]]

    @property
    def cells(self) -> int:
        """How many places of the grid it keeps."""
        return len(self.tasks) * sum(map(len, self.budgets.values()))

    def shared_budgets(self, *methods: Method) -> tuple[int, ...]:
        """The budgets that all these methods measured on every shared task, in increasing order."""
        if not self.tasks:
            return ()
        return tuple(sorted(set.intersection(*(set(self.budgets[method.key]) for method in methods))))


def find_common_ground(study: Study, grid: Grid) -> CommonGround:
    """The larger of two rectangles: tasks complete at every budget, or every shared task at fewer budgets.

    Averages over tasks are comparable along a curve and between curves only when each of their points covers
    the same tasks. An interrupted evaluation leaves holes; which rectangle is larger depends on where.
    """
    measured = {
        method.key: {
            task: {budget for name, budget in grid[method.key] if name == task} for task in method.tasks
        }
        for method in study.methods
    }
    every = {key: set[int]().union(*tasks.values()) for key, tasks in measured.items()}
    names = study.tasks
    complete = CommonGround(
        tuple(
            name for name in names if all(tasks.get(name) == every[key] for key, tasks in measured.items())
        ),
        {key: tuple(sorted(budgets)) for key, budgets in every.items()},
    )
    shared = tuple(name for name in names if all(tasks.get(name) for tasks in measured.values()))
    reduced = CommonGround(
        shared,
        {
            key: tuple(sorted(set.intersection(*(tasks[name] for name in shared)))) if shared else ()
            for key, tasks in measured.items()
        },
    )
    return complete if complete.cells >= reduced.cells else reduced


def ground_notes(study: Study, grid: Grid, ground: CommonGround) -> tuple[str, ...]:
    """What the common ground leaves out, in plain sentences."""
    if not ground.tasks:
        return ("No task was measured by every method, so nothing is averaged or tested over tasks.",)
    notes = []
    left_out = [name for name in study.tasks if name not in ground.tasks]
    if left_out:
        notes.append(
            f"Averages and tests use the {len(ground.tasks)} of {len(study.tasks)} tasks that every method "
            f"has measured in full; left out: {_listed(left_out)}."
        )
    for method in study.methods:
        lost = sorted({budget for _, budget in grid[method.key]} - set(ground.budgets[method.key]))
        if lost:
            notes.append(
                f"{method.label}: not measured on every shared task at {_listed(lost)} {study.budget_name}, "
                "so these points are not averaged."
            )
    every = sorted(set().union(*(ground.budgets[method.key] for method in study.methods)))
    missing = {
        method.label: [budget for budget in every if budget not in ground.budgets[method.key]]
        for method in study.methods
    }
    if any(missing.values()):
        listed = "; ".join(f"{label} lacks {_listed(lacks)}" for label, lacks in missing.items() if lacks)
        notes.append(f"Measured {study.budget_name} differ ({listed}): a pair is compared where both were.")
    return tuple(notes)


def _listed(names: Sequence[object], most: int = LISTED) -> str:
    shown = ", ".join(map(str, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
