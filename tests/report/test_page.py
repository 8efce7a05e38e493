"""The written report: whole, self-contained, safe, the same every time, for every shape of study."""

import csv
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from innerloop.core.errors import InputError
from innerloop.report import Study, output, read_study, write_report
from innerloop.report.analysis import analyse
from innerloop.report.figures import method_styles
from report.synthetic import realistic_evaluations, simple_scores, write_evaluation

VOID = {"meta", "br", "hr", "img", "input", "link"}
SECTIONS = (
    "Learning curves",
    "Gain over LoRA-SFT",
    "Accuracy",
    "Sample efficiency",
    "Paired significance tests",
    "Task by task",
    "Compute ledger",
    "Adapting to one task",
    "Training",
    "Adaptation settings",
    "Other metrics",
    "Seeds, versions, configurations",
    "Settings that differ",
)


class Page(HTMLParser):
    """Collects tags, attributes and headings, and checks that every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.headings: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)


@pytest.fixture(scope="module")
def realistic(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_study(realistic_evaluations(tmp_path_factory.mktemp("evaluations")))


@pytest.fixture(scope="module")
def written(realistic: Study, tmp_path_factory: pytest.TempPathFactory) -> output.ReportFiles:
    return write_report(realistic, tmp_path_factory.mktemp("report") / "report.html")


class TestRealistic:
    def test_every_section_is_there(self, written: output.ReportFiles) -> None:
        page = Page(written.html.read_text())
        assert page.headings[0].replace("\N{WORD JOINER}", "") == (
            "META-LORA (FOMAML) beats LoRA-SFT at equal cost, by 29.8 points."
        )
        assert tuple(page.headings[1:]) == SECTIONS

    def test_it_asks_nothing_of_the_network(self, written: output.ReportFiles) -> None:
        text = written.html.read_text()
        page = Page(text)
        assert page.tags.isdisjoint(
            {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"}
        )
        assert {name for name, _ in page.attributes}.isdisjoint(
            {"src", "href", "srcset", "xlink:href", "action"}
        )
        assert not re.search(r"url\(|@import|https?:|//[a-z]+\.", text)
        assert "default-src 'none'" in text

    def test_it_follows_theme_and_screen(self, written: output.ReportFiles) -> None:
        text = written.html.read_text()
        assert "prefers-color-scheme: dark" in text
        assert 'name="viewport"' in text

    def test_every_method_keeps_one_style(self, realistic: Study, written: output.ReportFiles) -> None:
        styles = method_styles(realistic)
        assert list(styles.values()) == ["c1", "c2", "g1", "g2", "g3"]
        text = written.html.read_text()
        for method in realistic.methods:
            marks = re.findall(
                r'<svg class="mark ([^"]+)"[^>]*><path[^>]*></svg>' + re.escape(method.label), text
            )
            assert marks
            assert set(marks) == {styles[method.key]}

    def test_it_is_the_same_every_time(
        self, realistic: Study, written: output.ReportFiles, tmp_path: Path
    ) -> None:
        again = write_report(realistic, tmp_path / "report.html")
        for first, second in zip(vars(written).values(), vars(again).values(), strict=True):
            assert first.read_bytes() == second.read_bytes()

    def test_json_holds_what_the_page_says(self, realistic: Study, written: output.ReportFiles) -> None:
        record = json.loads(written.json.read_text(), parse_constant=pytest.fail)
        analysis = analyse(realistic)
        assert record["verdict"]["outcome"] == "win"
        assert record["reference_control"] == "lora_sft"
        assert record["overall"][0]["gain"]["mean"] == analysis.overall[0].gain.mean
        assert record["overall"][0]["tests"]["permutation"]["exact"] is True
        assert len(record["by_budget"]) == len(analysis.by_budget)
        assert [point["budget"] for point in record["averages"]["icl"]] == [1, 2, 4, 8]
        assert record["methods"][0]["cost_ratio"]["gradient_passes"] == 1
        assert record["methods"][0]["config"]["meta"]["algorithm"] == "meta_lora"

    def test_csv_has_every_mean(self, realistic: Study, written: output.ReportFiles) -> None:
        with written.csv.open(newline="") as file:
            rows = list(csv.DictReader(file))
        analysis = analyse(realistic)
        assert len(rows) == (20 + 1) * (4 * 5 + 4)
        average = next(
            r for r in rows if r["over"] == "tasks" and r["method"] == "base" and r["budget"] == "8"
        )
        interval = analysis.averages[-1].points[-1].interval
        assert (float(average["mean"]), float(average["low"])) == (interval.mean, interval.low)
        assert average["count"] == "20"

    def test_the_numbers_of_the_table_are_those_of_the_data(
        self, realistic: Study, written: output.ReportFiles
    ) -> None:
        mean = analyse(realistic).averages[0].points[-1].interval.mean
        assert f"<b>{mean * 100:.1f}</b>" in written.html.read_text()


def scores(tasks: int = 7, budgets: tuple[int, ...] = (0, 4), value: float = 0.5) -> Any:
    return simple_scores(lambda t, b: value + 0.01 * t + 0.01 * b, tasks, budgets)


def pair(root: Path, ours: Any, theirs: Any, **about: Any) -> list[Path]:
    return [
        write_evaluation(root / "meta", ours, **about),
        write_evaluation(root / "sft", theirs, method="sft", control=True, **about),
    ]


SHAPES: dict[str, Callable[[Path], list[Path]]] = {
    "one method": lambda root: [write_evaluation(root / "a", scores())],
    "one task, one run, one budget": lambda root: pair(root, {"t": {3: [0.5]}}, {"t": {3: [0.4]}}),
    "only the un-adapted point": lambda root: pair(root, scores(budgets=(0,)), scores(budgets=(0,))),
    "nothing shared": lambda root: pair(root, {"a": {0: [0.5]}}, {"b": {0: [0.4]}}),
    "no shared budget": lambda root: pair(root, {"a": {1: [0.5]}}, {"a": {2: [0.4]}}),
    "no control": lambda root: [
        write_evaluation(root / name, scores(), method=name) for name in ("a", "b", "c")
    ],
    "only controls": lambda root: [
        write_evaluation(root / name, scores(), method=name, control=True) for name in ("a", "b")
    ],
    "no ledger": lambda root: pair(root, scores(), scores(value=0.3), gradient_passes=None),
    "all equal": lambda root: pair(root, scores(), scores()),
    "a loss": lambda root: pair(root, scores(), scores(value=0.3), metric="loss"),
    "large returns": lambda root: pair(
        root, {f"t{i}": {100: [-1e6 - i, 3e6]} for i in range(7)}, {f"t{i}": {100: [0.0]} for i in range(7)},
        metric="return", budget_name="episodes",
    ),
    "all zero": lambda root: pair(root, {"t": {0: [0.0], 1: [0.0]}}, {"t": {0: [0.0], 1: [0.0]}}),
    "learned rates": lambda root: pair(
        root, scores(), scores(),
        adaptation={"rule": "sgd", "learning_rate": {"a": [0.1, 0.2]}, "steps": 2, "chosen_on": None},
    ),
    "one training step": lambda root: pair(root, scores(), scores(), training=[{"step": 1, "meta/loss": 2}]),
    "long training": lambda root: pair(
        root, scores(), scores(),
        training=[{"step": step, "meta/avg_adaptation_gap": 1 / step} for step in range(1, 2000)],
    ),
    "empty training": lambda root: pair(root, scores(), scores(), training=[]),
    "eighteen methods": lambda root: [
        write_evaluation(root / str(i), scores(value=0.3 + 0.01 * i), method=f"m{i}", control=i > 11)
        for i in range(18)
    ],
}  # fmt: skip


@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_of_study_makes_a_whole_report(
    tmp_path: Path, make: Callable[[Path], list[Path]]
) -> None:
    study = read_study(make(tmp_path))
    files = write_report(study, tmp_path / "out" / "report.html")
    text = files.html.read_text()
    page = Page(text)
    assert page.headings[0]
    assert not re.search(r"\b(nan|inf|None|undefined)\b", re.sub(r"<style>.*?</style>", "", text, flags=re.S))
    json.loads(files.json.read_text(), parse_constant=pytest.fail)
    assert len(set(method_styles(study).values())) == len(study.methods)


def test_labels_and_configurations_are_escaped(tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">'
    folders = pair(
        tmp_path, {evil: {1: [0.5]}, "b": {1: [0.6]}}, {evil: {1: [0.4]}, "b": {1: [0.6]}},
        config={"key": evil}, versions={"innerloop": evil}, label=evil,
    )  # fmt: skip
    page = Page(write_report(read_study(folders), tmp_path / "report.html").html.read_text())
    assert "img" not in page.tags
    assert "onerror" not in {name for name, _ in page.attributes}


class TestWriting:
    def test_the_folder_is_made(self, tmp_path: Path) -> None:
        study = read_study([write_evaluation(tmp_path / "a", scores())])
        files = write_report(study, tmp_path / "x" / "y" / "page.html")
        assert sorted(path.name for path in files.html.parent.iterdir()) == [
            "page.csv",
            "page.html",
            "page.json",
        ]

    def test_another_suffix_is_refused(self, tmp_path: Path) -> None:
        study = read_study([write_evaluation(tmp_path / "a", scores())])
        with pytest.raises(InputError, match=r"must end in \.html"):
            write_report(study, tmp_path / "report.json")

    @pytest.mark.parametrize("name", ["file/report.html", "folder.html"])
    def test_a_place_that_cannot_be_written_is_refused_in_one_line(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_text("")
        (tmp_path / "folder.html").mkdir()
        before = sorted(tmp_path.rglob("*"))
        study = read_study([write_evaluation(tmp_path.parent / f"{tmp_path.name}_data", scores())])
        with pytest.raises(InputError, match="cannot write the report") as refusal:
            write_report(study, tmp_path / name)
        assert "\n" not in str(refusal.value)
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
    def test_a_read_only_folder_is_refused(self, tmp_path: Path) -> None:
        study = read_study([write_evaluation(tmp_path / "a", scores())])
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match="Permission denied"):
            write_report(study, tmp_path / "locked" / "report.html")

    def test_a_full_disk_leaves_the_earlier_report(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = read_study([write_evaluation(tmp_path / "a", scores())])
        files = write_report(study, tmp_path / "out" / "report.html")
        before = {path: path.read_bytes() for path in vars(files).values()}
        write_text = Path.write_text

        def full(path: Path, text: str, **options: Any) -> int:
            if ".html." in path.name:
                write_text(path, text[:100], **options)
                raise OSError(28, "No space left on device", str(path))
            return write_text(path, text, **options)

        monkeypatch.setattr(Path, "write_text", full)
        other = read_study([write_evaluation(tmp_path / "b", scores(value=0.1))])
        with pytest.raises(InputError, match="No space left"):
            write_report(other, files.html)
        assert {path: path.read_bytes() for path in files.html.parent.iterdir()} == before
