"""The page of a comparison: every record on it, published figures where they belong, curves of the runs."""

import json
import re
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.fewshot.artifacts import Training
from innerloop.fewshot.curves import Curve, read_curves
from innerloop.fewshot.page import html_text
from innerloop.fewshot.records import Record

OMNIGLOT = "Omniglot, random split 0, test characters"


def record(method: str = "maml", data: str = OMNIGLOT, ways: int = 5, inductive: float = 0.98) -> Record:
    training = Training(100, 3200, 60.0, 1000)
    return Record(
        method, data, ways, 1, 15, 600, inductive, 0.002, 0.99, 0.001, training, 0, 0, "innerloop fewshot"
    )


def test_the_most_accurate_method_of_a_cell_comes_first_and_cells_stand_apart() -> None:
    page = html_text([record("maml", inductive=0.97), record("matching"), record("maml", ways=20)], [])
    labels = re.findall(r'<text class="row"[^>]*>([^<]*)<', page)
    assert labels == ["matching", "maml"] * 2 + ["maml"] * 2  # each picture twice, wide and narrow
    assert re.findall(r"<h2>(\d+-way 1-shot)</h2>", page) == ["5-way 1-shot", "20-way 1-shot"]


def test_published_figures_stand_on_omniglot_alone() -> None:
    assert "maml: published 98.7 %, transductive, Finn 2017" in html_text([record()], [])
    assert 'class="target"' not in html_text([record(data="the toy set, test classes")], []).split("</ul>")[1]


def test_nothing_is_fetched_and_names_are_escaped() -> None:
    page = html_text([record(data="<b>photos</b>, test classes")], [Curve("a<b", ((10, 0.5), (20, 0.7)))])
    assert "<b>photos" not in page
    assert "a<b" not in page
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script", page)


def test_an_accuracy_of_one_ends_the_scale() -> None:
    page = html_text([record(inductive=1.0)], [Curve("maml", ((100, 1.0),))])
    assert ">100<" in page
    assert ">101<" not in page


def test_instances_of_mann_have_their_table() -> None:
    page = html_text([Record(**{**vars(record("mann")), "instances": ((0.36, 0.01), (0.83, 0.01))})], [])
    assert "mann, image by image" in page
    assert "83.0 ± 1.0" in page


def run_folder(folder: Path, accuracies: dict[int, float], per_step: int = 4) -> Path:
    (folder / "latest").mkdir(parents=True)
    info = {"config": {"train": {"per_step": per_step}}}
    (folder / "latest" / "innerloop.json").write_text(json.dumps(info))
    rows = [{"step": step, "train/loss": 1.0} for step in range(1, 5)]
    rows = [
        row | ({"eval/accuracy": accuracies[int(row["step"])]} if row["step"] in accuracies else {})
        for row in rows
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_curves_count_episodes_and_leave_out_runs_that_measured_nothing(tmp_path: Path) -> None:
    run_folder(tmp_path / "b", {2: 0.5, 4: 0.75})
    run_folder(tmp_path / "a", {})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "metrics.jsonl").write_text("")  # begun, and nothing saved yet
    assert read_curves(tmp_path) == [Curve("b", ((8, 0.5), (16, 0.75)))]


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    (run_folder(tmp_path / "a", {2: 0.5}) / "metrics.jsonl").write_text("{half")
    with pytest.raises(InputError, match=r"a is damaged .*train it again"):
        read_curves(tmp_path)
