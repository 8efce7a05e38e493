"""Measured values beside each other as inline SVG: a row each, with intervals and a mark to compare with.

The same page and colours as :mod:`innerloop.report.chart`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from innerloop.report.chart import TICK_CHARACTER, write_text

ROW, TOP, BOTTOM, RIGHT = 30.0, 8.0, 42.0, 16.0
NEXT = 7.0
"""From one mark of a row down to the next."""


@dataclass(frozen=True)
class Mark:
    """One value.

    Args:
        value: where it is.
        low: lower end of its interval; the value itself where there is none.
        high: upper end.
        style: CSS class of colour.
        tooltip: what a pointer on it shows.
        hollow: drawn as a ring instead of a disc.
    """

    value: float
    low: float
    high: float
    style: str
    tooltip: str
    hollow: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the chart.

    Args:
        label: at the left.
        marks: drawn one below the other; at least one.
        target: a value to be compared with, a stroke over the row's height; none without one.
        target_tooltip: what it is.
    """

    label: str
    marks: tuple[Mark, ...]
    target: float | None = None
    target_tooltip: str = ""


def interval_chart(
    title: str, rows: Sequence[Row], ticks: Sequence[float], write: Callable[[float], str], width: float
) -> str:
    """Draws rows, the first at the top.

    Args:
        title: read aloud by a screen reader, and written under the axis.
        rows: at least one.
        ticks: increasing; the first and the last are the axis's ends, and what lies outside is cut there.
        write: a tick as text.
        width: of the picture in CSS pixels.

    Returns:
        The markup of one ``svg`` element.
    """
    left = 12 + max(len(row.label) for row in rows) * TICK_CHARACTER
    height = TOP + ROW * len(rows) + BOTTOM
    svg = ET.Element(
        "svg",
        {"class": "chart", "viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": title},
    )

    def place(value: float) -> float:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return left + min(max(share, 0.0), 1.0) * (width - RIGHT - left)

    bottom = TOP + ROW * len(rows)
    for tick in ticks:
        ET.SubElement(svg, "path", {"class": "grid", "d": f"M{place(tick):.1f},{TOP}V{bottom:.1f}"})
        write_text(svg, "tick", place(tick), bottom + 16, write(tick), "middle")
    write_text(svg, "axis", (left + width - RIGHT) / 2, bottom + 36, title, "middle")
    for number, row in enumerate(rows):
        middle = TOP + ROW * (number + 0.5)
        write_text(svg, "row", left - 8, middle + 4, row.label, "end")
        if row.target is not None:
            line = f"M{place(row.target):.1f},{middle - ROW / 2 + 3:.1f}v{ROW - 6:g}"
            _titled(svg, "path", {"class": "target", "d": line}, row.target_tooltip)
        first = middle - NEXT * (len(row.marks) - 1) / 2
        for order, mark in enumerate(row.marks):
            _draw(svg, mark, place, first + NEXT * order)
    return ET.tostring(svg, encoding="unicode")


def _draw(svg: ET.Element, mark: Mark, place: Callable[[float], float], height: float) -> None:
    line = f"M{place(mark.low):.1f},{height:.1f}H{place(mark.high):.1f}"
    ET.SubElement(svg, "path", {"class": f"whisker {mark.style}", "d": line})
    group = ET.SubElement(svg, "g", {"class": f"{mark.style}{' hollow' if mark.hollow else ''}"})
    centre = {"cx": f"{place(mark.value):.1f}", "cy": f"{height:.1f}", "r": "4"}
    _titled(group, "circle", centre, mark.tooltip)


def _titled(parent: ET.Element, name: str, attributes: dict[str, str], title: str) -> None:
    element = ET.SubElement(parent, name, attributes)
    ET.SubElement(element, "title").text = title
