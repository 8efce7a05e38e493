"""Contents that stand on two sides of a preparation; each finding is one line.

A leak is a content in a test set and in something to learn from, in the support and in the query pool, or in
a task kept out of training and in one that is trained on. Tasks are compared with themselves and one another.
Reading the files is ``validate``'s business.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

from innerloop.llm.data.prepared import SPLITS, Split, TaskData
from innerloop.llm.data.rows import Row
from innerloop.llm.data.splits import content_key, example_key


def across_splits(tasks: Sequence[TaskData]) -> Iterator[str]:
    """Contents that stand in two different splits, be it of one task or of two."""
    places: dict[Split, dict[str, tuple[str, Row]]] = {split: {} for split in SPLITS}
    for split in SPLITS:
        for task in tasks:
            for row in task.rows(split):
                places[split].setdefault(content_key(row), (task.name, row))
    for one, other in combinations(SPLITS, 2):
        shared: dict[tuple[str, str], list[Row]] = {}
        for key in places[one].keys() & places[other].keys():
            name, row = places[one][key]
            shared.setdefault((f"{name}/{one}", f"{places[other][key][0]}/{other}"), []).append(row)
        for (left, right), rows in sorted(shared.items()):
            yield _line(rows, left, right)


def into_training(
    trained: Sequence[TaskData], kept_out: Sequence[TaskData], mixed: Sequence[Row]
) -> Iterator[str]:
    """Rows of tasks that are kept out of training, or of any test set, in what is trained on.

    Args:
        trained: the tasks of the role train.
        kept_out: the others.
        mixed: the union for ordinary fine-tuning.
    """
    examples = {
        example_key(row): task.name for task in kept_out for split in SPLITS for row in task.rows(split)
    }
    tested = {content_key(row): f"{task.name}/test" for task in (*trained, *kept_out) for row in task.test}
    for task in trained:
        yield from _overlap((*task.support, *task.query), task.name, examples, example_key)
    yield from _overlap(mixed, "mixed", examples, example_key)
    yield from _overlap(mixed, "mixed", tested, content_key)


def _overlap(
    rows: Sequence[Row], name: str, others: Mapping[str, str], key: Callable[[Row], str]
) -> Iterator[str]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if (other := others.get(key(row))) is not None:
            found.setdefault(other, []).append(row)
    for other, shared in sorted(found.items()):
        yield _line(shared, f"{other} (kept out of training)", name)


def _line(rows: Sequence[Row], left: str, right: str) -> str:
    example = min(row.prompt for row in rows)[:60]
    return (
        f"leak: {len(rows)} row{'s' if len(rows) > 1 else ''} of {left} also in {right}, such as {example!r}"
    )


def duplicates(rows: Sequence[Row]) -> int:
    """Rows whose content stands earlier among them."""
    return sum(count - 1 for count in Counter(map(content_key, rows)).values())
