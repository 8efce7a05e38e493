"""The comparison as one HTML page that asks nothing of the network: accuracies, curves, costs."""

import math
from collections.abc import Sequence
from itertools import groupby

from innerloop import __version__
from innerloop.fewshot.curves import Curve
from innerloop.fewshot.published import published_figure
from innerloop.fewshot.records import Record
from innerloop.fewshot.table import HEADER, per_cent, table_row
from innerloop.report.chart import Axis, Dot, Line, Size, line_chart, nice_ticks
from innerloop.report.intervals import Mark, Row, interval_chart
from innerloop.report.template import page_environment

WIDE, NARROW = 860.0, 380.0
"""Pictures in two widths; the page shows the one that fits the reader's screen."""

COLOURS = 6
INDUCTIVE, TRANSDUCTIVE = "c1", "c2"


def html_text(records: Sequence[Record], curves: Sequence[Curve]) -> str:
    """The whole document, from at least one record."""
    ordered = sorted(records, key=_cell)
    cells = [
        (group[0].cell, group[0].data, _accuracies(group))
        for group in (list(group) for _, group in groupby(ordered, key=_cell))
    ]
    return (
        page_environment("fewshot")
        .get_template("comparison.html")
        .render(
            methods=len({record.method for record in records}),
            data=sorted({record.data for record in records}),
            cells=cells,
            curves=_learning(curves) if curves else None,
            head=HEADER,
            rows=[table_row(record) for record in ordered],
            instances=[record for record in ordered if record.instances],
            per_cent=per_cent,
            commands=list(dict.fromkeys(record.command for record in ordered)),
            version=__version__,
        )
    )


def _cell(record: Record) -> tuple[str, bool, int, int]:
    return record.data, record.within_alphabet, record.ways, record.shots


def _accuracies(records: Sequence[Record]) -> tuple[str, str]:
    """One row a record, the most accurate first; wide and narrow."""
    best_first = sorted(records, key=lambda record: -record.inductive)
    rows = []
    for record in best_first:
        figure = published_figure(record)
        told = ""
        if figure is not None:
            kind = "transductive" if figure.transductive else "inductive"
            told = f"{record.method}: published {figure.accuracy:.1f} %, {kind}, {figure.source}"
        marks = (
            _mark(record.method, record.inductive, record.inductive_half, transductive=False),
            _mark(record.method, record.transductive, record.transductive_half, transductive=True),
        )
        rows.append(Row(record.method, marks, None if figure is None else figure.accuracy / 100, told))
    shown = [value for row in rows for mark in row.marks for value in (mark.low, mark.high)]
    shown += [row.target for row in rows if row.target is not None]
    # Beyond 100 % there is nothing, wherever an interval ends.
    ticks = [tick for tick in nice_ticks(max(min(shown), 0.0), min(max(shown), 1.0)) if tick < 1 + 1e-9]
    wide, narrow = (
        interval_chart("accuracy in per cent", rows, ticks, _percent, width) for width in (WIDE, NARROW)
    )
    return wide, narrow


def _mark(method: str, mean: float, half: float, *, transductive: bool) -> Mark:
    kind, style = ("transductive", TRANSDUCTIVE) if transductive else ("inductive", INDUCTIVE)
    tooltip = f"{method}, {kind}: {per_cent(mean, half)} %"
    return Mark(mean, mean - half, mean + half, style, tooltip, hollow=transductive)


def _learning(curves: Sequence[Curve]) -> str:
    """Accuracy against training episodes, these on a logarithmic scale."""
    lines = [
        Line(
            curve.name,
            f"c{number % COLOURS + 1}{' again' if number // COLOURS % 2 else ''}",
            tuple(
                Dot(
                    episodes,
                    share,
                    None,
                    None,
                    f"{curve.name}: {100 * share:.1f} % after {episodes} episodes",
                )
                for episodes, share in curve.points
            ),
        )
        for number, curve in enumerate(curves)
    ]
    episodes = [dot.x for line in lines for dot in line.dots]
    powers = range(math.floor(math.log10(min(episodes))), math.ceil(math.log10(max(episodes))) + 1)
    marks = [m * 10.0**power for power in powers for m in (1, 2, 5)]
    x = Axis(
        "training episodes",
        tuple(mark for mark in marks if min(episodes) <= mark <= max(episodes)) or (episodes[0],),
        lambda tick: f"{tick:,.0f}".replace(",", "\N{NO-BREAK SPACE}"),
        math.log10,
    )
    shares = [dot.y for line in lines for dot in line.dots]
    y = Axis("", tuple(t for t in nice_ticks(min(shares), max(shares)) if t < 1 + 1e-9), _percent)
    return line_chart(
        "accuracy on validation classes while training", lines, x, y, Size(WIDE, 440, labels=True)
    )


def _percent(share: float) -> str:
    return f"{100 * share:.6g}"
