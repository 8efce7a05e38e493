"""An evaluation as one HTML page that asks nothing of the network: curves, figures, tests."""

import math
from collections.abc import Callable

from innerloop import __version__
from innerloop.core.stats import Interval
from innerloop.report.chart import Axis, Dot, Line, Size, line_chart, nice_ticks
from innerloop.report.template import page_environment
from innerloop.rl.records import RANDOM, Evaluation, Measured
from innerloop.rl.table import percent, written

WIDE, COLOURS = 860.0, 6
WORST = (RANDOM,)
"""Left out of the pictures, whose scale they would take up; the table holds them."""


def html_text(evaluation: Evaluation) -> str:
    """The whole document."""
    e = evaluation
    policies = [m for m in e.methods if m.adapts]
    baselines = [m for m in e.methods if not m.adapts]
    return (
        page_environment("rl")
        .get_template("evaluation.html")
        .render(
            e=e,
            returns=_curves(e, policies, baselines, e.curve, "mean return", lambda v: f"{v:.6g}"),
            violations=_curves(
                e, policies, baselines, e.violations, "share over the objective", lambda v: f"{100 * v:.6g} %"
            ),
            rows=[(m, e.curve(m.name), e.violations(m.name)) for m in e.methods],
            figures=[(m, e.figures(m.name)) for m in policies],
            comparisons=e.comparisons(),
            written=written,
            percent=percent,
            version=__version__,
        )
    )


def _curves(
    e: Evaluation,
    policies: list[Measured],
    baselines: list[Measured],
    curve: Callable[[str], list[Interval]],
    what: str,
    write: Callable[[float], str],
) -> str:
    """Every policy's curve over episodes of adaptation; baselines, which do not adapt, as level lines.

    The horizontal scale is that of the logarithm of one more than the episodes.
    """
    ends = (0, len(e.episodes) - 1)
    lines = [
        _line(m, "g" + str(number % 3 + 1), [(float(e.episodes[i]), curve(m.name)[0]) for i in ends], write)
        for number, m in enumerate(baselines)
        if m.name not in WORST
    ]
    lines += [
        _line(
            m,
            f"c{number % COLOURS + 1}{' again' if number // COLOURS % 2 else ''}",
            list(zip(map(float, e.episodes), curve(m.name), strict=True)),
            write,
        )
        for number, m in enumerate(policies)
    ]
    values = [dot.y for line in lines for dot in line.dots]
    x = Axis(
        "episodes of adaptation", tuple(map(float, e.episodes)), lambda t: f"{t:g}", lambda t: math.log1p(t)
    )
    return line_chart(
        f"{what} by episodes of adaptation",
        lines,
        x,
        Axis("", nice_ticks(min(values), max(values)), write),
        Size(WIDE, 460, labels=True),
    )


def _line(
    measured: Measured, style: str, points: list[tuple[float, Interval]], write: Callable[[float], str]
) -> Line:
    dots = tuple(
        Dot(
            x,
            interval.mean,
            # Clusters differ far more than methods do, so bands would hide the lines; the tests are paired.
            None,
            None,
            f"{measured.name}, {x:g} episodes: {write(interval.mean)}",
        )
        for x, interval in points
    )
    return Line(measured.name, style, dots)
