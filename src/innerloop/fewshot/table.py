"""The comparison as a Markdown table, alone or between two marks of a document."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.core.files import write_whole
from innerloop.fewshot.published import INSTANCES, published_figure
from innerloop.fewshot.records import Record

BEGIN, END = "<!-- few-shot table: begin -->", "<!-- few-shot table: end -->"
HEADER = (
    "method",
    "N-way K-shot",
    "inductive",
    "transductive",
    "published",
    "test episodes",
    "training episodes",
    "seconds",
    "parameters",
    "seed",
)


def markdown(records: Iterable[Record]) -> str:
    """The table, a row a record, and the command of each row below it."""
    ordered = sorted(
        records,
        key=lambda record: (
            record.within_alphabet,
            record.ways,
            record.shots,
            record.method,
            record.train_seed,
        ),
    )
    rows = [HEADER, ("---",) * len(HEADER), *(table_row(record) for record in ordered)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    data = sorted({record.data for record in ordered})
    commands = "\n".join(dict.fromkeys(record.command for record in ordered))
    return (
        "Accuracy in per cent and half the width of its 95 % interval. Inductive: no query's answer depends "
        "on another query. Transductive: batch norm sees an episode's queries together, as in the published "
        f"figures marked (T). Tested on: {'; '.join(data)}.\n\n{table}\n\n{_instances(ordered)}"
        f"<!-- no-run: hours -->\n```bash\n{commands}\n```\n"
    )


def _instances(records: Sequence[Record]) -> str:
    """The table of those that learn while they read; nothing if there are none."""
    lines = []
    for record in records:
        for instance, (mean, half) in enumerate(record.instances, start=1):
            source, figures = INSTANCES.get(record.method, ("", {}))
            known = record.data.startswith("Omniglot") and instance in figures
            published = f"{figures[instance]:.1f}, {source}" if known else "-"
            cells = (record.method, f"{record.ways}-way", f"{instance}", per_cent(mean, half), published)
            lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return ""
    head = "| method | classes | image of its class | accuracy | published |\n|---|---|---|---|---|\n"
    return (
        "Accuracy on the images of a sequence, by how often their class has come; the first can only be "
        f"guessed among the classes that have not.\n\n{head}" + "\n".join(lines) + "\n\n"
    )


def put_into(document: Path, table: str) -> None:
    """Replaces what stands between the two marks of a document.

    Raises:
        InputError: the document or the marks are not there, or it cannot be written.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {document}: {error.strerror or error}") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{document} lacks the lines '{BEGIN}' and '{END}', between which the table goes")
    write_whole(document, f"{before}{begin}\n{table}{end}{after}")


def table_row(record: Record) -> tuple[str, ...]:
    """A record's cells, in the order of :data:`HEADER`."""
    figure = published_figure(record)
    published = "-"
    if figure is not None:
        published = f"{figure.accuracy:.1f}{' (T)' if figure.transductive else ''}, {figure.source}"
    return (
        record.method,
        record.cell,
        per_cent(record.inductive, record.inductive_half),
        per_cent(record.transductive, record.transductive_half),
        published,
        f"{record.episodes}",
        f"{record.training.episodes}",
        f"{record.training.seconds:.0f}",
        f"{record.training.parameters}",
        f"{record.train_seed}",
    )


def per_cent(mean: float, half: float) -> str:
    """A share and half the width of its interval, as ``98.3 ± 0.2``."""
    return f"{100 * mean:.1f} ± {100 * half:.1f}"
