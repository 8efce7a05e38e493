"""The progress bar of an evaluation: a bar on a terminal, plain lines in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def cell_progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Gives a function that is told the cells done, the cells in all, and what is being done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total, what: print(f"{title}: {done}/{total} {what}", file=sys.stderr, flush=True)
        return
    columns = (
        TextColumn("{task.fields[title]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[what]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("cells", title=title, what="", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, what=what)
