"""Charts as SVG: ticks that enclose, marks inside the picture, labels apart, text escaped."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from innerloop.report.chart import LABEL_GAP, Axis, Dot, Line, Size, line_chart, nice_ticks, smooth

finite = st.floats(-1e6, 1e6)


def line(name: str, *heights: float, low: float | None = None, high: float | None = None) -> Line:
    dots = tuple(Dot(x, y, low, high, f"{name} at {x}") for x, y in enumerate(heights))
    return Line(name, "c1", dots)


def draw(*lines: Line, labels: bool = True, ticks: tuple[float, ...] = (0.0, 0.5, 1.0)) -> ET.Element:
    longest = max(lines, key=lambda drawn: len(drawn.dots))
    x = Axis("shots", tuple(dot.x for dot in longest.dots), lambda tick: f"{tick:g}", math.log1p)
    markup = line_chart(
        "a chart", lines, x, Axis("", ticks, lambda tick: f"{tick:g}"), Size(600, 300, labels)
    )
    return ET.fromstring(markup)


def of_class(svg: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in svg.iter() if name in element.get("class", "").split()]


class TestTicks:
    @given(finite, finite, st.integers(2, 10))
    @example(0.0, 5e-324, 2)
    @example(1e-299, 1.05e-299, 10)
    @example(1e-320, 1e-320, 4)
    def test_enclose_the_range_at_an_even_distance(self, a: float, b: float, most: int) -> None:
        low, high = min(a, b), max(a, b)
        assume(high == low or high - low > 1e-6 * max(abs(low), abs(high)))
        ticks = nice_ticks(low, high, most)
        width = ticks[-1] - ticks[0]
        assert ticks[0] <= low + 1e-6 * width
        assert ticks[-1] >= high - 1e-6 * width
        assert 2 <= len(ticks) <= most + 1
        steps = [after - before for before, after in pairwise(ticks)]
        assert max(steps) == pytest.approx(min(steps), rel=1e-6)

    def test_known_ranges(self) -> None:
        assert nice_ticks(0, 1, 5) == pytest.approx((0, 0.2, 0.4, 0.6, 0.8, 1))
        assert nice_ticks(3, 97, 4) == pytest.approx((0, 25, 50, 75, 100))
        assert nice_ticks(0.5, 0.5)[0] < 0.5 < nice_ticks(0.5, 0.5)[-1]


class TestSmooth:
    @given(st.lists(finite, min_size=1, max_size=30), st.integers(1, 9))
    def test_stays_within_the_values_and_keeps_their_number(self, values: list[float], window: int) -> None:
        smoothed = smooth(values, window)
        assert len(smoothed) == len(values)
        assert all(min(values) - 1e-6 <= value <= max(values) + 1e-6 for value in smoothed)

    def test_known_means(self) -> None:
        assert smooth([1, 2, 6, 1], 1) == (1, 2, 6, 1)
        assert smooth([1, 2, 6, 1], 3) == (1.5, 3, 3, 3.5)


class TestLineChart:
    def test_marks_stand_where_the_data_say(self) -> None:
        svg = draw(line("up", 0.0, 0.5, 1.0))
        circles = list(svg.iter("circle"))
        rules = sorted(float(re.findall(r"[\d.]+", rule.get("d", ""))[1]) for rule in of_class(svg, "grid"))
        assert [float(circle.get("cy", "")) for circle in circles] == pytest.approx(rules[::-1], abs=0.1)
        places = [float(circle.get("cx", "")) for circle in circles]
        share = (places[1] - places[0]) / (places[2] - places[0])
        assert share == pytest.approx(math.log(2) / math.log(3), abs=0.01)
        assert circles[2].findtext("title") == "up at 2"

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(0, 2), st.floats(0, 2))
    def test_everything_stays_inside_the_picture(self, heights: list[float], down: float, up: float) -> None:
        svg = draw(line("a", *heights, low=-down, high=1 + up), labels=False)
        for path in svg.iter("path"):
            for x, y in re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", path.get("d", "")):
                assert 0 <= float(x) <= 600
                assert 0 <= float(y) <= 300

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
    def test_labels_stand_apart(self, ends: list[float]) -> None:
        svg = draw(*(line(f"method {i}", 0.5, end) for i, end in enumerate(ends)))
        heights = sorted(float(label.get("y", "")) for label in of_class(svg, "label"))
        assert len(heights) == len(ends)
        assert all(b - a >= LABEL_GAP - 0.11 for a, b in pairwise(heights))

    def test_one_point_gets_a_whisker_and_more_a_band(self) -> None:
        assert of_class(draw(line("a", 0.5, low=0.2, high=0.8)), "whisker")
        assert of_class(draw(line("a", 0.5, 0.6, low=0.2, high=0.8)), "band")
        assert not of_class(draw(line("a", 0.5, 0.6)), "band")

    def test_a_line_that_ends_early_keeps_its_label(self) -> None:
        svg = draw(line("long", 0.1, 0.2, 0.3), line("short", 0.1))
        assert {label.text for label in of_class(svg, "label")} == {"long", "short"}
        assert of_class(svg, "leader")

    def test_long_labels_are_cut_and_markup_is_text(self) -> None:
        svg = draw(line("<script>alert(1)</script> " * 4, 0.1))
        (label,) = of_class(svg, "label")
        assert label.text is not None
        assert "…" in label.text
        assert len(label.text) < 30
        assert not list(svg.iter("script"))

    def test_crowded_ticks_are_thinned(self) -> None:
        many = Line("a", "c1", tuple(Dot(x, 0.5, None, None, "") for x in range(1000, 1400)))
        texts = [text for text in of_class(draw(many), "tick") if text.get("text-anchor") == "middle"]
        assert 5 <= len(texts) < 20
