"""Line charts as inline SVG: data in, markup out.

Colours are CSS classes of the page (`c1`..., `g1`...), so a chart follows the reader's light or dark theme.
Text is text, every marker has a tooltip, and nothing is fetched or scripted. What the lines mean is the
page's affair.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

TICK_CHARACTER, LABEL_CHARACTER = 6.8, 9.2
"""Generous widths of one character in pixels: text needs room, whatever font the reader's system has."""

LONGEST_LABEL = 26
LABEL_GAP = 17.0
MARKERS_UP_TO = 14


@dataclass(frozen=True)
class Dot:
    """One measured point; low and high are None where no interval is known."""

    x: float
    y: float
    low: float | None
    high: float | None
    tooltip: str


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        label: direct label at the line's end.
        style: CSS class that sets its colour and dashes.
        dots: points with increasing x.
        faint: drawn thin and pale, without label, as the raw data behind a smoothed line.
    """

    label: str
    style: str
    dots: tuple[Dot, ...]
    faint: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        title: what is measured.
        ticks: positions that get a label; the y axis also draws a rule at each.
        write: a tick as text.
        transform: from a value to its place, strictly increasing.
    """

    title: str
    ticks: tuple[float, ...]
    write: Callable[[float], str]
    transform: Callable[[float], float] = float


@dataclass(frozen=True)
class Size:
    """Outer size of a chart in CSS pixels, and whether lines are labelled at their right end."""

    width: float
    height: float
    labels: bool


NARROWEST = 1e-300
"""Of a range: a tenth of it and less must still be a float in full precision."""


def nice_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Round numbers at an even distance that enclose a range.

    Args:
        low: lower end.
        high: upper end; a range without width, or narrower than floats can divide, is widened.
        most: at most this many intervals.

    Returns:
        Increasing ticks, the first at or below low, the last at or above high.
    """
    if high - low < NARROWEST:
        margin = abs(low) / 10 if abs(low) > NARROWEST else 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    for multiple in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = multiple * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return tuple(step * i for i in range(first, last + 1))


def line_chart(
    title: str, lines: Sequence[Line], x: Axis, y: Axis, size: Size, rule: float | None = None
) -> str:
    """Draws lines with their bands.

    Args:
        title: read aloud by a screen reader.
        lines: at least one, the most important last (it is drawn on top).
        x: horizontal axis; its range is that of the dots.
        y: vertical axis; its range is that of its ticks, bands are cut there.
        size: of the picture.
        rule: a y value to be marked across the chart, for example 0.

    Returns:
        The markup of one `svg` element.
    """
    plot = _Plot(lines, x, y, size)
    svg = ET.Element(
        "svg",
        {
            "class": "chart",
            "viewBox": f"0 0 {size.width:g} {size.height:g}",
            "role": "img",
            "aria-label": title,
        },
    )
    _draw_axes(svg, plot)
    if rule is not None:
        _rule(svg, "rule", plot.left, plot.right, plot.y(rule))
    for line in lines:
        _draw_band(svg, plot, line)
    for line in lines:
        _draw_line(svg, plot, line)
    if size.labels:
        _draw_labels(svg, plot, lines)
    return ET.tostring(svg, encoding="unicode")


class _Plot:
    """The rectangle of the data and the way from values to pixels."""

    def __init__(self, lines: Sequence[Line], x: Axis, y: Axis, size: Size) -> None:
        self.x_axis, self.y_axis, self.size = x, y, size
        widest_tick = max(len(y.write(tick)) for tick in y.ticks)
        longest = max((len(_shortened(line.label)) for line in lines), default=0)
        self.left = 14 + widest_tick * TICK_CHARACTER
        self.right = size.width - (12 + longest * LABEL_CHARACTER if size.labels else 10)
        self.top, self.bottom = 12.0, size.height - 42
        places = [x.transform(dot.x) for line in lines for dot in line.dots]
        self._x_low, self._x_high = min(places), max(places)
        self._y_low, self._y_high = y.transform(y.ticks[0]), y.transform(y.ticks[-1])

    def x(self, value: float) -> float:
        if self._x_high == self._x_low:
            return (self.left + self.right) / 2
        share = (self.x_axis.transform(value) - self._x_low) / (self._x_high - self._x_low)
        return self.left + 8 + share * (self.right - self.left - 16)

    def y(self, value: float) -> float:
        share = (self.y_axis.transform(value) - self._y_low) / (self._y_high - self._y_low)
        return self.bottom - min(max(share, 0.0), 1.0) * (self.bottom - self.top)


def _draw_axes(svg: ET.Element, plot: _Plot) -> None:
    for tick in plot.y_axis.ticks:
        _rule(svg, "grid", plot.left, plot.right, plot.y(tick))
        write_text(svg, "tick", plot.left - 7, plot.y(tick) + 4, plot.y_axis.write(tick), "end")
    free_from = -math.inf
    for tick in plot.x_axis.ticks:
        text = plot.x_axis.write(tick)
        half = (len(text) * TICK_CHARACTER + 6) / 2
        if plot.x(tick) - half >= free_from:
            write_text(svg, "tick", plot.x(tick), plot.bottom + 18, text, "middle")
            free_from = plot.x(tick) + half
    write_text(svg, "axis", (plot.left + plot.right) / 2, plot.bottom + 37, plot.x_axis.title, "middle")


def _draw_band(svg: ET.Element, plot: _Plot, line: Line) -> None:
    dots = [(dot.x, dot.low, dot.high) for dot in line.dots]
    known = [(x, low, high) for x, low, high in dots if low is not None and high is not None]
    if len(known) == 1:
        x, low, high = known[0]
        attributes = {"class": f"whisker {line.style}", "d": f"M{_at(plot, x, low)}L{_at(plot, x, high)}"}
        ET.SubElement(svg, "path", attributes)
    elif known:
        upper = [_at(plot, x, high) for x, _, high in known]
        lower = [_at(plot, x, low) for x, low, _ in reversed(known)]
        ET.SubElement(svg, "path", {"class": f"band {line.style}", "d": f"M{'L'.join([*upper, *lower])}Z"})


def _draw_line(svg: ET.Element, plot: _Plot, line: Line) -> None:
    group = ET.SubElement(svg, "g", {"class": f"{'faint ' if line.faint else ''}{line.style}"})
    path = "L".join(_at(plot, dot.x, dot.y) for dot in line.dots)
    ET.SubElement(group, "path", {"class": "line", "d": f"M{path}"})
    if line.faint or len(line.dots) > MARKERS_UP_TO:
        return
    for dot in line.dots:
        circle = ET.SubElement(
            group, "circle", {"cx": f"{plot.x(dot.x):.1f}", "cy": f"{plot.y(dot.y):.1f}", "r": "3.6"}
        )
        ET.SubElement(circle, "title").text = dot.tooltip


def _draw_labels(svg: ET.Element, plot: _Plot, lines: Sequence[Line]) -> None:
    named = sorted((line for line in lines if not line.faint), key=lambda line: plot.y(line.dots[-1].y))
    heights = _spread([plot.y(line.dots[-1].y) for line in named], plot.top, plot.bottom)
    for line, height in zip(named, heights, strict=True):
        end = line.dots[-1]
        start, level = plot.x(end.x) + 6, plot.y(end.y)
        if abs(height - level) > 3 or start < plot.right - 10:
            leader = f"M{start:.1f},{level:.1f}L{plot.right + 2:.1f},{height:.1f}"
            ET.SubElement(svg, "path", {"class": f"leader {line.style}", "d": leader})
        write_text(svg, f"label {line.style}", plot.right + 6, height + 4, _shortened(line.label), "start")


def _shortened(label: str) -> str:
    """Cuts the middle out of a long label: names of variants differ at their ends."""
    half = LONGEST_LABEL // 2
    return label if len(label) <= LONGEST_LABEL else f"{label[: half - 1]}…{label[-half:]}"


def _spread(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Moves increasing heights apart by at least the label gap, as little as one sweep each way needs."""
    placed = list(heights)
    for i, _ in enumerate(placed):
        placed[i] = max(placed[i], top + 4 if i == 0 else placed[i - 1] + LABEL_GAP)
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], bottom - 4 if i == len(placed) - 1 else placed[i + 1] - LABEL_GAP)
    return placed


def smooth(values: Sequence[float], window: int) -> tuple[float, ...]:
    """Centred running mean; at the ends, over the part of the window that lies inside.

    Args:
        values: the raw values.
        window: how many values a mean covers in the middle; 1 leaves them as they are.
    """
    reach = (window - 1) // 2
    smoothed = []
    for i in range(len(values)):
        part = values[max(0, i - reach) : i + reach + 1]
        smoothed.append(math.fsum(part) / len(part))
    return tuple(smoothed)


def _at(plot: _Plot, x: float, y: float) -> str:
    return f"{plot.x(x):.1f},{plot.y(y):.1f}"


def _rule(svg: ET.Element, style: str, left: float, right: float, height: float) -> None:
    ET.SubElement(svg, "path", {"class": style, "d": f"M{left:.1f},{height:.1f}H{right:.1f}"})


def write_text(svg: ET.Element, style: str, x: float, y: float, text: str, anchor: str) -> None:
    """Adds a text; ``anchor`` is ``start``, ``middle`` or ``end``."""
    attributes = {"class": style, "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    ET.SubElement(svg, "text", attributes).text = text
