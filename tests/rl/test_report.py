"""What is shown of an evaluation: the Markdown table and the page."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from innerloop.rl.page import html_text
from innerloop.rl.records import HINDSIGHT, RANDOM, SCRATCH, Evaluation, read_evaluation
from innerloop.rl.table import markdown
from rl.made_up import META, TUNED, level, made_up, without

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "line", "rect", "circle", "polyline", "polygon"}


class Page(HTMLParser):
    """Refuses tags that close in another order than they opened, and keeps the cells and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
        elif data.strip():
            self.texts.append(data.strip())


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables as rows of cells, without the rules."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if not line.startswith("|"):
            found += [[]] if found[-1] else []
        elif set(line) - set("| -"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return [table for table in found if table]


def test_the_tables_in_markdown() -> None:
    returns, figures, comparisons = tables(markdown(made_up()))
    names = [m.name for m in made_up().methods]
    assert returns[0] == ["method", "0", "1", "4", "violations before", "after"]
    assert [row[0] for row in returns[1:]] == names
    assert {len(row) for row in returns} == {6}
    assert returns[1] == ["fomaml", "-10.00 ± 0.00", "-6.00 ± 2.48", "-4.00 ± 2.48", "10.0 %", "4.0 %"]
    assert returns[4] == ["static", "-8.00 ± 2.48", "", "", "8.0 %", ""]
    assert [row[0] for row in figures[1:]] == [META, TUNED, SCRATCH]
    assert {len(row) for row in figures} == {12}
    assert figures[1][1:] == [
        "6.00 ± 2.48", "4", "4.25", "20.00", "0.94", "6.00", "-", "1.00", "0.125", "1000", "60",
    ]  # fmt: skip
    assert figures[3][7] == "1.0 times"
    assert [row[:2] for row in comparisons[1:]] == [[META, name] for name in names if name != META]
    assert comparisons[1][2].startswith("2.00 ±")


def test_every_row_of_a_table_is_as_wide_as_its_rule() -> None:
    for evaluation in (made_up(), without(META), without(HINDSIGHT)):
        width = 0
        for line in markdown(evaluation).splitlines():
            if line.startswith("|"):
                width = width or line.count("|")
                assert line.count("|") == width, line
            else:
                width = 0


def test_without_a_meta_learned_policy_there_are_no_tests() -> None:
    assert len(tables(markdown(without(META)))) == 2
    assert "Paired tests" not in html_text(without(META))
    assert "Paired tests" in html_text(made_up())


def test_the_page_is_whole_and_holds_every_method() -> None:
    page = Page(html_text(made_up()))
    returns, figures, tests = page.tables
    names = [m.name for m in made_up().methods]
    assert [row[0] for row in returns[1:]] == names
    assert [row[0] for row in figures[1:]] == [META, TUNED, SCRATCH]
    assert [row[1] for row in tests[1:]] == [name for name in names if name != META]
    for table in page.tables:
        assert len({len(row) for row in table}) == 1
    # The page and the text say the same.
    assert returns[1:] == tables(markdown(made_up()))[0][1:]
    assert made_up().command in page.texts


def test_the_pictures_show_all_but_random_and_nothing_is_fetched() -> None:
    text = html_text(made_up())
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 2
    for picture in pictures:
        for name in ("fomaml", "tuned &lt;b&gt;", "scratch", "static", "best fixed, in hindsight"):
            assert name in picture
        assert RANDOM not in picture
    assert not Page(text).addresses
    assert not re.search(r"url\(|@import|<script", text)


def test_names_are_escaped() -> None:
    text = html_text(made_up())
    assert "tuned <b>" not in text
    assert "a &amp; b=x" in text


def small(evaluation: Evaluation) -> Evaluation:
    """One cluster, of which no interval can be told; nothing was gained and nothing violated."""
    first = [
        replace(m, returns=[[[-1.0] * len(m.returns[0][0])]], violations=[[[0.0] * len(m.returns[0][0])]])
        for m in evaluation.methods
    ]
    return replace(evaluation, clusters=1, seeds=1, methods=(*first, level("hpa", -1.0)))


def test_one_cluster_on_which_nothing_differs() -> None:
    evaluation = small(made_up())
    returns, figures, _ = tables(markdown(evaluation))
    assert returns[1][0] == META
    assert figures[1][2] == "-"
    page = Page(html_text(evaluation))
    assert [row[0] for row in page.tables[0][1:]] == [m.name for m in evaluation.methods]
    assert "nan" not in html_text(evaluation).lower()


def test_the_documented_table_is_that_of_the_record() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    begin, end = "<!-- scaling table: begin -->\n", "<!-- scaling table: end -->"
    documented = page[page.index(begin) + len(begin) : page.index(end)]
    assert documented == markdown(read_evaluation(root / "benchmarks" / "scaling"))
