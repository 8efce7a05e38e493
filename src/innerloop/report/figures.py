"""The report's charts: learning curves, gains over the control, single tasks, training curves."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from innerloop.core.stats import Interval
from innerloop.report.analysis import Analysis, Curve
from innerloop.report.chart import Axis, Dot, Line, Size, line_chart, nice_ticks, smooth
from innerloop.report.formatting import MINUS, MetricFormat, budgets
from innerloop.report.study import Method, Series, Study

COLOURS, GREYS = 6, 3
WIDE = Size(860, 400, labels=True)
NARROW = Size(380, 320, labels=False)
PANEL = Size(300, 210, labels=False)
DRAWN_POINTS = 240
"""A training curve of more points is averaged down to this many."""


@dataclass(frozen=True)
class Figure:
    """One picture in two shapes; the page shows the one that fits the reader's screen."""

    wide: str
    narrow: str


@dataclass(frozen=True)
class Panel:
    """One small chart with its heading."""

    heading: str
    detail: str
    picture: str


def method_styles(study: Study) -> dict[str, str]:
    """The CSS class of each method, by key: a colour for a challenger, a dashed grey for a control.

    Beyond the palette the classes repeat with another dash, so no two methods look the same before there are
    twelve challengers or six controls.
    """
    styles = {}
    for letter, colours, methods in (("c", COLOURS, study.challengers), ("g", GREYS, study.controls)):
        for i, method in enumerate(methods):
            again = " again" if (i // colours) % 2 else ""
            styles[method.key] = f"{letter}{i % colours + 1}{again}"
    return styles


def learning_curves(analysis: Analysis, write: MetricFormat) -> Figure | None:
    """Averages over tasks by budget; None where nothing is averaged."""
    curves = [curve for curve in analysis.averages if curve.points]
    if not curves:
        return None
    title = f"{analysis.study.metric} by {analysis.study.budget_name}, mean of {len(analysis.tasks)} tasks"
    return _both(title, _curve_lines(analysis.study, curves, write), analysis.study, write)


def gains(analysis: Analysis, write: MetricFormat) -> Figure | None:
    """Each challenger's gain over the reference control by budget; None where there is no such pair."""
    study, styles = analysis.study, method_styles(analysis.study)
    lines = []
    for method in study.challengers:
        found = [
            (comparison.budgets[0], comparison.gain)
            for comparison in analysis.by_budget
            if comparison.challenger is method and comparison.control is analysis.reference
        ]
        dots = tuple(
            _dot(budget, gain, f"{method.label}, {budgets((budget,), study.budget_name)}", write, signed=True)
            for budget, gain in found
        )
        if dots:
            lines.append(Line(method.label, styles[method.key], dots))
    if not lines or analysis.reference is None:
        return None
    title = f"gain in {study.metric} over {analysis.reference.label} by {study.budget_name}"
    return _both(title, lines[::-1], study, write, signed=True)


def task_panels(analysis: Analysis, write: MetricFormat) -> tuple[Panel, ...]:
    """One small chart a task, all on the same scale."""
    study = analysis.study
    every = [curve for task in analysis.by_task for curve in task.curves if curve.points]
    dots = [dot for line in _curve_lines(study, every, write) for dot in line.dots]
    y_axis = _value_axis(_reach(dots, most=0.5), write, 4)
    panels = []
    for task in analysis.by_task:
        lines = _curve_lines(study, [curve for curve in task.curves if curve.points], write)
        if lines:
            picture = line_chart(task.task, lines, _budget_axis(study, lines), y_axis, PANEL)
            panels.append(Panel(task.task, "" if task.task in analysis.tasks else "not averaged", picture))
    return tuple(panels)


TRAINING_PANELS = (
    ("meta/avg_adaptation_gap", "Adaptation gap, training tasks"),
    ("eval/avg_adaptation_gap", "Adaptation gap, held-out tasks"),
    ("meta/avg_adaptation_gain", "Adaptation gain, training tasks"),
    ("eval/avg_adaptation_gain", "Adaptation gain, held-out tasks"),
    ("meta/loss", "Query loss, training tasks"),
    ("eval/loss", "Query loss, held-out tasks"),
    ("train/loss", "Joint training loss"),
)


def training_panels(study: Study) -> tuple[Panel, ...]:
    """Curves of training over its steps: raw and pale behind, smoothed in front."""
    styles = method_styles(study)
    panels = []
    for key, heading in TRAINING_PANELS:
        lines = []
        for method in reversed(study.methods):
            series = method.training.curves.get(key) if method.training else None
            if series is not None:
                lines += _training_lines(method, series, styles[method.key])
        if lines:
            lines.sort(key=lambda line: not line.faint)
            dots = [dot for line in lines for dot in line.dots]
            x_axis = Axis("step", _step_ticks([dot.x for dot in dots]), lambda step: f"{step:g}")
            rule = 0.0 if "gap" in key or "gain" in key else None
            lowest, highest = _range([dot.y for dot in dots] + ([0.0] if rule is not None else []))
            y_axis = Axis("", nice_ticks(lowest, highest, 4), _plain)
            panels.append(Panel(heading, "", line_chart(heading, lines, x_axis, y_axis, PANEL, rule)))
    return tuple(panels)


def _training_lines(method: Method, series: Series, style: str) -> list[Line]:
    steps, values = _thinned(series)
    window = max(1, len(values) // 8)
    lines = [Line(method.label, style, _plain_dots(method, steps, smooth(values, window)))]
    if window > 2:
        lines.append(Line(method.label, style, _plain_dots(method, steps, values), faint=True))
    return lines


def _plain_dots(method: Method, steps: Sequence[float], values: Sequence[float]) -> tuple[Dot, ...]:
    return tuple(
        Dot(step, value, None, None, f"{method.label}, step {step:g}: {value:.4g}")
        for step, value in zip(steps, values, strict=True)
    )


def _thinned(series: Series) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The series, averaged over runs of neighbours where it has more points than a picture can show."""
    width = math.ceil(len(series.steps) / DRAWN_POINTS)
    starts = range(0, len(series.steps), width)
    return (
        tuple(fmean(series.steps[i : i + width]) for i in starts),
        tuple(fmean(series.values[i : i + width]) for i in starts),
    )


def _both(
    title: str, lines: Sequence[Line], study: Study, write: MetricFormat, signed: bool = False
) -> Figure:
    dots = [dot for line in lines for dot in line.dots]
    x_axis = _budget_axis(study, lines)
    y_axis = _gain_axis(_reach(dots), write) if signed else _value_axis(_reach(dots), write, 5)
    rule = 0.0 if signed else None
    return Figure(
        line_chart(title, lines, x_axis, y_axis, WIDE, rule),
        line_chart(title, lines, x_axis, y_axis, NARROW, rule),
    )


def _curve_lines(study: Study, curves: Iterable[Curve], write: MetricFormat) -> list[Line]:
    """One line a curve, the first method's last so that it lies on top."""
    styles = method_styles(study)
    lines = [
        Line(
            curve.method.label,
            styles[curve.method.key],
            tuple(
                _dot(
                    point.budget,
                    point.interval,
                    f"{curve.method.label}, {budgets((point.budget,), study.budget_name)}",
                    write,
                )
                for point in curve.points
            ),
        )
        for curve in curves
    ]
    return lines[::-1]


def _dot(budget: int, interval: Interval, name: str, write: MetricFormat, signed: bool = False) -> Dot:
    mean = write.change(interval.mean) if signed else write.value(interval.mean)
    span = f" [{write.span(interval, signed)}]" if interval.bounded else ""
    return Dot(
        x=budget,
        y=interval.mean,
        low=interval.low if interval.bounded else None,
        high=interval.high if interval.bounded else None,
        tooltip=f"{name}: {mean}{span}",
    )


def _budget_axis(study: Study, lines: Sequence[Line]) -> Axis:
    ticks = tuple(sorted({dot.x for line in lines for dot in line.dots}))
    return Axis(f"{study.budget_name} (log scale)", ticks, lambda budget: f"{budget:g}", math.log1p)


def _value_axis(reach: tuple[float, float], write: MetricFormat, most: int) -> Axis:
    low, high = reach
    if write.percent:
        low, high = max(low, 0.0), min(high, 1.0)
        low = 0.0 if low < 0.4 else low
    ticks = nice_ticks(low, high, most)
    return Axis("", ticks, _percent if write.percent else _plain)


def _gain_axis(reach: tuple[float, float], write: MetricFormat) -> Axis:
    ticks = nice_ticks(min(reach[0], 0.0), max(reach[1], 0.0), 5)
    scale = 100 if write.percent else 1
    return Axis("", ticks, lambda tick: _plain(tick * scale) if tick <= 0 else f"+{_plain(tick * scale)}")


def _reach(dots: Sequence[Dot], most: float = math.inf) -> tuple[float, float]:
    """The range of the means and their bands; a band adds at most this share of the means' range."""
    low, high = _range([dot.y for dot in dots])
    margin = most * (high - low) if high > low else math.inf
    return (
        max(low - margin, min((dot.low for dot in dots if dot.low is not None), default=low)),
        min(high + margin, max((dot.high for dot in dots if dot.high is not None), default=high)),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _step_ticks(steps: Sequence[float]) -> tuple[float, ...]:
    low, high = _range(steps)
    return tuple(tick for tick in nice_ticks(low, high, 5) if low <= tick <= high) or (low,)


def _percent(tick: float) -> str:
    return f"{tick * 100:.3g}%"


def _plain(tick: float) -> str:
    text = f"{tick:.3g}" if abs(tick) > 1e-12 else "0"
    return text.replace("-", MINUS)
