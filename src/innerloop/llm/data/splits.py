"""Sharing rows out among support, query and test so that nothing leaks, within a task or across tasks.

The unit is a row's content: its prompt, compared without regard to case, spacing and Unicode form. One
content has one place in the whole preparation, so what one task tests no task trains on, and an input that
several tasks share (the same word under two rules) stands on the same side in each. Nothing is read or
written here.
"""

import hashlib
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from innerloop.core.errors import InputError
from innerloop.llm.data.prepared import SPLITS, Split, TaskData
from innerloop.llm.data.presets.base import Source, SourceTask
from innerloop.llm.data.rows import Row

DUPLICATE = "a duplicate within its task"
IN_TEST_SET = "also in a test set of the source"
IN_HELD_OUT = "also in a task kept out of training"


@dataclass(frozen=True)
class Shares:
    """How the rows of a task are shared out, where the task's own plan does not say.

    Args:
        support: fraction for the support pool.
        query: fraction for the query pool; the rest is the test set. None is half of what support leaves.
            Where a source has its own test set, that alone is tested on, and the other rows are shared out
            among support and query in this proportion.
        max_samples: at most so many rows a task, and as many test rows; -1 keeps all.

    Raises:
        InputError: if the fractions do not fit into one, or the number of rows is not positive.
    """

    support: float = 0.6
    query: float | None = None
    max_samples: int = -1

    def __post_init__(self) -> None:
        _fractions(self.support, self.query, "")
        if self.max_samples < -1 or self.max_samples == 0:
            raise InputError(f"--max-samples is {self.max_samples}; it must be positive, or -1 for all")


@dataclass(frozen=True)
class SplitTask:
    """One task after splitting, and how many of its rows were dropped, by reason."""

    source: SourceTask
    data: TaskData
    dropped: Mapping[str, int]


def content_key(row: Row) -> str:
    """The hash of a row's prompt, without regard to case, spacing and Unicode form."""
    return _hash(row.prompt)


def example_key(row: Row) -> str:
    """The hash of a row's prompt and response; case counts in the response alone."""
    return _hash(row.prompt) + _hash(row.response, str)


def split(source: Source, shares: Shares, seed: int) -> tuple[SplitTask, ...]:
    """Shares out the rows of every task.

    Of several rows of one content in a task the first is kept. Rows that the source tests on, or that a task
    kept out of training holds, are dropped from where they would be trained on. Each split is in a random
    order in which every stretch holds the classes (``label`` in a row's metadata) in their proportions, so
    the splits are stratified, and the first rows of a split are a fair sample of it.

    Args:
        source: the tasks of a preset.
        shares: the fractions.
        seed: of every draw.

    Raises:
        InputError: if a task is left without the rows its role needs.
    """
    reserved = {_hash(prompt) for prompt in source.reserved}
    reserved |= {content_key(row) for task in source.tasks for row in task.test or ()}
    evaluated = [task for task in source.tasks if task.role != "train"]
    kept_out = {example_key(row) for task in evaluated for row in (*task.pool, *(task.test or ()))}
    cleaned = {task.name: _clean(task, reserved, kept_out) for task in source.tasks}
    smallest = min(len(pool) for pool, _ in cleaned.values()) if source.balance else -1
    places: dict[str, Split] = {}
    done: dict[str, SplitTask] = {}
    # Tasks with a test set of their own come first: their other rows may be support or query, and no less.
    for task in sorted(source.tasks, key=lambda task: task.test is None):
        draw = random.Random(f"{seed}/{task.name}")
        pool, dropped = cleaned[task.name]
        pool = _fair_order(pool, draw)
        for limit in (smallest, task.plan.max_rows, shares.max_samples):
            pool = _first(pool, limit)
        parts = _place(pool, _sizes(task, shares, len(pool)), places)
        if task.test is not None:
            parts["test"] = _first(_fair_order(_distinct(task.test), draw), shares.max_samples)
        data = TaskData(task.name, *(tuple(parts[name]) for name in SPLITS))
        _check(task, data)
        done[task.name] = SplitTask(task, data, dropped)
    return tuple(done[task.name] for task in source.tasks)


def _clean(task: SourceTask, reserved: set[str], kept_out: set[str]) -> tuple[list[Row], Mapping[str, int]]:
    """The rows of a pool that may be used, and how many were dropped for each reason."""
    dropped = Counter(task.left_out)
    dropped[DUPLICATE] += len(task.test or ()) - len(_distinct(task.test or ()))
    allowed: list[Row] = []
    for row in task.pool:
        if content_key(row) in reserved:
            dropped[IN_TEST_SET] += 1
        elif task.role == "train" and example_key(row) in kept_out:
            dropped[IN_HELD_OUT] += 1
        else:
            allowed.append(row)
    distinct = _distinct(allowed)
    dropped[DUPLICATE] += len(allowed) - len(distinct)
    return distinct, {reason: count for reason, count in sorted(dropped.items()) if count}


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """The first row of each content."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(content_key(row), row)
    return list(first.values())


def _fair_order(rows: Sequence[Row], draw: random.Random) -> list[Row]:
    """A random order with the rows of each class spread evenly over it."""
    shuffled = [(row.label, row) for row in draw.sample(rows, len(rows))]
    sizes = Counter(label for label, _ in shuffled)
    seen: Counter[str | None] = Counter()
    positions: list[float] = []
    for label, _ in shuffled:
        positions.append((seen[label] + 0.5) / sizes[label])
        seen[label] += 1
    order = sorted(range(len(shuffled)), key=lambda index: positions[index])
    return [shuffled[index][1] for index in order]


def _first(rows: list[Row], limit: int) -> list[Row]:
    return rows if limit == -1 else rows[:limit]


def _place(
    pool: Sequence[Row], sizes: Mapping[Split, int], places: dict[str, Split]
) -> dict[Split, list[Row]]:
    """Gives each row its split; contents that another task has placed already keep their place."""
    keys = [content_key(row) for row in pool]
    room = Counter(sizes)
    room.subtract(places[key] for key in keys if key in places)
    free = [name for name in SPLITS for _ in range(room[name])]
    # Every stretch of the pool holds the classes in proportion, so each split takes a stretch.
    newcomers = [key for key in keys if key not in places]
    places.update(zip(newcomers, free, strict=False))
    parts: dict[Split, list[Row]] = {name: [] for name in SPLITS}
    for key, row in zip(keys, pool, strict=True):
        parts[places[key]].append(row)
    return parts


def _sizes(task: SourceTask, shares: Shares, rows: int) -> dict[Split, int]:
    """How many of a task's rows go to each split."""
    plan = task.plan
    if plan.support is None:
        support, query = _fractions(shares.support, shares.query, task.name)
    else:
        support, query = _fractions(plan.support, plan.query, task.name)
    test = 1 - support - query if task.test is None else 0.0
    sizes = _apportion(rows, {"support": support, "query": query, "test": max(test, 0.0)})
    if plan.support_rows == plan.query_rows == -1:
        return sizes
    wanted_support = sizes["support"] if plan.support_rows == -1 else plan.support_rows
    wanted_query = sizes["query"] if plan.query_rows == -1 else plan.query_rows
    if wanted_support + wanted_query > rows:
        raise InputError(
            f"task '{task.name}' has {rows} rows, fewer than the {wanted_support} support rows and "
            f"{wanted_query} query rows asked for; lower --support-size or --query-size"
        )
    return {"support": wanted_support, "query": wanted_query, "test": rows - wanted_support - wanted_query}


def _fractions(support: float, query: float | None, task: str) -> tuple[float, float]:
    """Support and query fractions, the query's default filled in."""
    place = f" of task '{task}'" if task else ""
    chosen = (1 - support) / 2 if query is None else query
    if not (0 < support < 1 and 0 < chosen < 1 and support + chosen <= 1 + 1e-9):
        raise InputError(
            f"the support ratio {support:g} and query ratio {chosen:g}{place} must lie between 0 and 1 "
            "and add up to at most 1"
        )
    return support, chosen


def _apportion(rows: int, fractions: Mapping[Split, float]) -> dict[Split, int]:
    """Whole numbers in proportion, by largest remainder; none is empty that could hold a row."""
    wanted = [name for name in SPLITS if fractions[name] > 1e-9]
    total = sum(fractions[name] for name in wanted)
    exact = {name: rows * fractions[name] / total for name in wanted}
    sizes: dict[Split, int] = {name: int(exact.get(name, 0)) for name in SPLITS}
    by_remainder = sorted(wanted, key=lambda name: sizes[name] - exact[name])
    for name in by_remainder[: rows - sum(sizes.values())]:
        sizes[name] += 1
    for name in wanted:
        largest = max(wanted, key=lambda other: sizes[other])
        if sizes[name] == 0 and sizes[largest] > 1:
            sizes[name], sizes[largest] = 1, sizes[largest] - 1
    return sizes


def _check(task: SourceTask, data: TaskData) -> None:
    needed: tuple[Split, ...] = ("support", "query") if task.role == "train" else ("support", "test")
    for name in needed:
        if not data.rows(name):
            raise InputError(
                f"task '{task.name}' is left without {name} rows ({len(task.pool)} rows before splitting); "
                "give it more rows or change the ratios"
            )


def _hash(text: str, fold: Callable[[str], str] = str.casefold) -> str:
    normal = " ".join(fold(unicodedata.normalize("NFKC", text)).split())
    return hashlib.sha256(normal.encode()).hexdigest()
