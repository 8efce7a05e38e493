"""The interval chart: marks where their values are, inside the picture, in their rows."""

from xml.etree import ElementTree as ET

import pytest

from innerloop.report.intervals import Mark, Row, interval_chart

TICKS = (0.0, 0.5, 1.0)


def mark(value: float, half: float = 0.1, hollow: bool = False) -> Mark:
    return Mark(value, value - half, value + half, "c1", f"at {value}", hollow)


def draw(*rows: Row, width: float = 400) -> ET.Element:
    return ET.fromstring(interval_chart("accuracy", rows, TICKS, lambda tick: f"{tick:g}", width))


def circles(svg: ET.Element) -> list[ET.Element]:
    return [element for element in svg.iter() if element.tag == "circle"]


def test_marks_stand_between_the_ticks_as_their_values_do() -> None:
    svg = draw(Row("a", (mark(0.25),)), Row("b", (mark(0.5),)))
    ticks = {text.text: float(text.get("x", "")) for text in svg.iter("text") if text.get("class") == "tick"}
    low, middle = ticks["0"], ticks["0.5"]
    places = [float(circle.get("cx", "")) for circle in circles(svg)]
    assert places == pytest.approx([(low + middle) / 2, middle], abs=0.1)
    heights = [float(circle.get("cy", "")) for circle in circles(svg)]
    assert heights[0] < heights[1]  # the first row is the upper one


def test_what_lies_outside_is_cut_at_the_ends() -> None:
    svg = draw(Row("a", (mark(0.98),), target=3.0, target_tooltip="far"), width=300)
    ends = {text.text: float(text.get("x", "")) for text in svg.iter("text") if text.get("class") == "tick"}
    whisker = next(path for path in svg.iter("path") if "whisker" in path.get("class", ""))
    assert float(whisker.get("d", "").rpartition("H")[2]) == ends["1"]
    target = next(path for path in svg.iter("path") if path.get("class") == "target")
    assert float(target.get("d", "")[1:].partition(",")[0]) == ends["1"]
    assert ends["1"] < 300


def test_a_row_holds_several_marks_apart_and_its_tooltips() -> None:
    svg = draw(Row("<a> & b", (mark(0.5), mark(0.5, hollow=True)), target=0.4, target_tooltip="published"))
    first, second = (float(circle.get("cy", "")) for circle in circles(svg))
    assert second > first
    assert [title.text for title in svg.iter("title")] == ["published", "at 0.5", "at 0.5"]
    assert "<a> & b" in [text.text for text in svg.iter("text")]
    groups = [group.get("class") for group in svg.iter("g")]
    assert groups == ["c1", "c1 hollow"]
