"""Word sorting: which of a few categories is a word in, under arbitrary letters? Offline, from our own lists.

The prompt is the word and an arrow, and the letters are drawn anew for each task, so the mapping can be
learned from the shots and from nothing else. Categories, not tasks, are held out. The lists stand in
``word_sorting.json``; no word is in two of them.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import perm
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import WordSortingOptions
from innerloop.llm.data.presets.base import Request, Role, Source, SourceTask, SplitPlan, choose, letters
from innerloop.llm.data.rows import Row, make_row

WORD_LISTS = Path(__file__).with_name("word_sorting.json")

# One category in four is held out and one in ten is for validation, unless a request names its own.
HELD_OUT_SHARE = 4
VALIDATION_SHARE = 10

# A training task needs no test rows; an evaluation task is mostly tested on, its query rows only monitored.
TRAINING_PLAN = SplitPlan(support=0.5, query=0.5)
EVALUATION_PLAN = SplitPlan(support=0.5, query=0.125)


@dataclass(frozen=True)
class SortingTask:
    """One task: its name, what it is for, and its categories in the order of their letters."""

    name: str
    role: Role
    categories: tuple[str, ...]


def tasks(request: Request, options: WordSortingOptions) -> Source:
    """Draws the tasks of every role.

    ``request.tasks``, ``skip``, ``holdout`` and ``validation`` name categories. Left to themselves, a quarter
    of the categories, drawn by the seed, is held out and a tenth is for validation.

    Raises:
        InputError: if a role has too few categories for its tasks, or a source folder is given.
    """
    if request.source_dir is not None:
        raise InputError("word-sorting brings its own word lists; leave out --source-dir")
    lists = word_lists()
    roles = choose(tuple(lists), _with_defaults(request, tuple(lists)))
    counts: Mapping[Role, int] = {
        "train": options.train_tasks,
        "validation": options.validation_tasks,
        "held_out": options.held_out_tasks,
    }
    made = [
        SourceTask(
            task.name,
            _rows(task, lists),
            "choice",
            role,
            plan=TRAINING_PLAN if role == "train" else EVALUATION_PLAN,
        )
        for role, count in counts.items()
        for task in sorting_tasks(
            role, [name for name, its in roles.items() if its == role], options.ways, count, request.seed
        )
    ]
    return Source(
        preset="word-sorting",
        origin="innerloop's own word lists",
        licence="Apache-2.0",
        tasks=tuple(made),
    )


def sorting_tasks(
    role: Role, categories: Sequence[str], ways: int, count: int, seed: int
) -> Iterator[SortingTask]:
    """Draws different tasks, each category about as often as any other.

    Args:
        role: what the tasks are for.
        categories: those to draw from.
        ways: categories a task.
        count: how many tasks.
        seed: decides every draw; the same seed gives a longer list the same beginning.

    Raises:
        InputError: if there are not so many different tasks.
    """
    if count < 0 or not 2 <= ways <= 26 or count > perm(len(categories), ways):
        raise InputError(
            f"{len(categories)} {role} categories do not give {count} different tasks of {ways}; "
            "change --ways, the number of tasks, or the categories"
        )
    draw = random.Random(f"{seed}/{role}")
    seen: set[tuple[str, ...]] = set()
    deck: list[str] = []
    while len(seen) < count:
        if len(deck) < ways:
            # Cards left of the last deck go on top of a whole new one, in which they then lie at the bottom.
            fresh = draw.sample(list(categories), len(categories))
            deck = sorted(fresh, key=lambda name: name not in deck) + deck
        drawn = tuple(draw.sample(deck[-ways:], ways))
        del deck[-ways:]
        if drawn not in seen:
            yield SortingTask(f"{role}_{len(seen):03d}", role, drawn)
            seen.add(drawn)


@cache
def word_lists() -> Mapping[str, tuple[str, ...]]:
    """The words of every category."""
    lists = json.loads(WORD_LISTS.read_text(encoding="utf-8"))
    return {category: tuple(words) for category, words in lists.items()}


def _rows(task: SortingTask, lists: Mapping[str, Sequence[str]]) -> tuple[Row, ...]:
    return tuple(
        make_row(f"{word} ->", letter, letter, {"label": category})
        for letter, category in zip(letters(len(task.categories)), task.categories, strict=True)
        for word in lists[category]
    )


def _with_defaults(request: Request, categories: Sequence[str]) -> Request:
    """The request with categories held out where it does not name its own."""
    free = [
        name
        for name in (request.tasks or categories)
        if name not in (*request.skip, *request.holdout, *request.validation)
    ]
    drawn = random.Random(f"{request.seed}/categories").sample(free, len(free))
    held_out = request.holdout or tuple(drawn[: len(free) // HELD_OUT_SHARE])
    left = [name for name in drawn if name not in held_out]
    validation = request.validation or tuple(left[: len(free) // VALIDATION_SHARE])
    return replace(request, holdout=held_out, validation=validation)
