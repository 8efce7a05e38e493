"""What a preset is: a function that takes a ``Request`` and gives a ``Source`` of tasks.

One file a preset, with a function ``tasks(request, options) -> Source``; the class of the options and the
line that lists the preset stand in ``catalogue``. A preset reads, words the prompts and names the tasks; it
does not split, drop duplicates, add system turns or write (``splits``, ``prepare`` and ``prepared`` do).
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.llm.data.prepared import Grader as Grader  # presets take both from here
from innerloop.llm.data.prepared import Role as Role
from innerloop.llm.data.records import Problem
from innerloop.llm.data.rows import Row


@dataclass(frozen=True)
class Request:
    """What every preset is asked.

    Args:
        source_dir: the local copy to read; None loads from the Hugging Face hub.
        seed: decides every draw.
        tasks: the tasks to prepare; empty stands for all.
        skip: tasks to leave out.
        holdout: tasks kept out of meta-training, for the final evaluation.
        validation: tasks kept out of meta-training, for choosing rates and steps.
        max_samples: at most so many rows a task, and as many of its source's own test set; -1 keeps all. It
            is applied when splitting; a preset may use it to read less.
    """

    source_dir: Path | None = None
    seed: int = 0
    tasks: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    holdout: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    max_samples: int = -1


@dataclass(frozen=True)
class SplitPlan:
    """What differs for one task from the way the whole preparation is shared out.

    Args:
        support: fraction for the support pool; None keeps the preparation's own fractions.
        query: fraction for the query pool where ``support`` is given; None is half of what that leaves.
        support_rows: so many support rows, whatever the fraction; -1 goes by fraction.
        query_rows: so many query rows, whatever the fraction; -1 goes by fraction.
        max_rows: at most so many rows before splitting; -1 keeps all.
    """

    support: float | None = None
    query: float | None = None
    support_rows: int = -1
    query_rows: int = -1
    max_rows: int = -1


@dataclass(frozen=True)
class SourceTask:
    """One task as a preset gives it, before splitting.

    Args:
        name: also the name of its folder.
        pool: rows to share out among support and query, and test where the source has no test set of its
            own. Rows with a ``label`` in their metadata are shared out class by class.
        grader: how a generated answer is compared.
        role: what the task is for.
        test: the source's own test set, or None.
        plan: what differs from the preparation's own ratios.
        left_out: rows of the source that are sound but not for this task, by reason.
    """

    name: str
    pool: tuple[Row, ...]
    grader: Grader
    role: Role = "train"
    test: tuple[Row, ...] | None = None
    plan: SplitPlan = field(default_factory=SplitPlan)
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """What a preset gives.

    Args:
        preset: its name on the command line.
        origin: where the data come from, in words for the manifest.
        licence: of the data.
        tasks: in the order in which they are prepared.
        problems: the rows that were skipped.
        reserved: prompts of the source's own test sets, those of tasks not chosen too; no pool may hold them.
        balance: whether every task is cut to the number of rows of the smallest.
    """

    preset: str
    origin: str
    licence: str
    tasks: tuple[SourceTask, ...]
    problems: tuple[Problem, ...] = ()
    reserved: tuple[str, ...] = ()
    balance: bool = False


def choose(
    available: Sequence[str], request: Request, always_held_out: Sequence[str] = ()
) -> Mapping[str, Role]:
    """The chosen tasks and their roles, in the order of ``available``.

    A task named only in ``holdout`` or ``validation`` is chosen too.

    Args:
        available: every task of the preset.
        request: what was asked.
        always_held_out: tasks that are for evaluation only.

    Raises:
        InputError: for a name that is not available (the nearest is named), for one that stands in two lists
            that exclude each other, or if nothing is left.
    """
    for option in ("tasks", "skip", "holdout", "validation"):
        for name in getattr(request, option):
            if name not in available:
                raise InputError(f"--{option}: no task '{name}'{nearest(name, available)}")
    for name in request.holdout:
        if name in request.validation:
            raise InputError(f"task '{name}' stands both in --holdout and in --validation; choose one")
    for name in (*request.holdout, *request.validation):
        if name in request.skip:
            raise InputError(f"task '{name}' is both skipped and held out; choose one")
    wanted = {*(request.tasks or available), *request.holdout, *request.validation} - set(request.skip)
    if not wanted:
        raise InputError("no task is left to prepare; look at --tasks and --skip")
    return {name: _role(name, request, always_held_out) for name in available if name in wanted}


def with_usual(
    request: Request, available: Sequence[str], holdout: Sequence[str], validation: Sequence[str]
) -> Request:
    """The request with a preset's usual tasks kept out of training where it does not name its own.

    Args:
        request: what was asked.
        available: every task of the preset.
        holdout: those that are usually held out.
        validation: those that are usually for validation.
    """

    def free(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
        wanted = {*(request.tasks or available)} & {*available} - {*request.skip, *others}
        return tuple(name for name in names if name in wanted)

    held_out = request.holdout or free(holdout, request.validation)
    return replace(request, holdout=held_out, validation=request.validation or free(validation, held_out))


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of an error line: the nearest known name, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known)}"


def _role(name: str, request: Request, always_held_out: Sequence[str]) -> Role:
    if name in request.validation:
        return "validation"
    return "held_out" if name in request.holdout or name in always_held_out else "train"


def letters(count: int) -> Iterator[str]:
    """The answer letters A, B, ... of so many choices.

    Raises:
        InputError: for more than 26.
    """
    if not 1 <= count <= 26:
        raise InputError(f"{count} choices; there are letters for 1 to 26")
    return map(chr, range(ord("A"), ord("A") + count))
