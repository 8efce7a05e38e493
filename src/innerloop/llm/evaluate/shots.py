"""Which examples a task is adapted on: the same ones for every method, so that comparisons are paired."""

from collections.abc import Sequence

import torch

from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.llm.data.rows import Row


def draw_shots(task: str, pool: Sequence[Row], count: int, run: int, seed: int) -> list[int]:
    """The indices of a run's shots in the support pool.

    Where every row has a class, ``count`` of each class are drawn; otherwise ``count`` in all. A run's larger
    budgets contain its smaller ones, and nothing but the task, the run and the seed decides the draw.

    Args:
        task: its name.
        pool: the support rows.
        count: shots, per class or in all.
        run: the run's number.
        seed: of the whole evaluation.

    Raises:
        InputError: if the pool, or a class of it, is too small.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, task, "shots", run))
    order: list[int] = torch.randperm(len(pool), generator=generator).tolist()
    chosen: list[int] = []
    for label, members in _classes(pool, order).items():
        if len(members) < count:
            kind = "support rows" if label is None else f"support rows of class '{label}'"
            raise InputError(
                f"task '{task}' has {len(members)} {kind}, and {count} shots are asked for; lower --n-shots "
                "or prepare the task with more support rows"
            )
        chosen += members[:count]
    return chosen


def has_classes(pool: Sequence[Row]) -> bool:
    """Whether every row of a pool has a class, so that shots are counted per class."""
    return all(row.label is not None for row in pool)


def _classes(pool: Sequence[Row], order: Sequence[int]) -> dict[str | None, list[int]]:
    if not has_classes(pool):
        return {None: list(order)}
    members: dict[str | None, list[int]] = {label: [] for label in sorted(str(row.label) for row in pool)}
    for index in order:
        members[pool[index].label].append(index)
    return members
