"""The presets on the real files, as many rows as time allows: known blemishes counted, nothing leaks."""

import json
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import NoOptions
from innerloop.llm.data.prepare import Preparation, prepare
from innerloop.llm.data.prepared import MIXED, SPLITS, load_task, manifest_hash
from innerloop.llm.data.presets import math
from innerloop.llm.data.presets.base import Request
from innerloop.llm.data.splits import DUPLICATE, IN_TEST_SET, Shares, split

pytestmark = pytest.mark.data


def prepare_checked(preset: str, data_root: Path, out: Path, **values: object) -> Preparation:
    """Prepares with the check on, so that a leak fails the test."""
    return prepare(preset, {"source_dir": data_root, "output_dir": out, "validate": True, **values})


@pytest.fixture(scope="module")
def math_source(data_root: Path) -> "math.Source":
    return math.tasks(Request(data_root), NoOptions())


def test_the_known_blemishes_of_math(math_source: "math.Source") -> None:
    assert [(problem.file.name, problem.row, problem.reason) for problem in math_source.problems] == [
        ("train.jsonl", 5342, "no boxed answer"),
        ("train.jsonl", 5344, "no boxed answer"),
    ]
    done = {task.data.name: task for task in split(math_source, Shares(), 0)}
    assert {name: task.dropped for name, task in done.items() if task.dropped} == {
        "algebra": {DUPLICATE: 1},
        "geometry": {IN_TEST_SET: 1},
    }
    rows = {name: sum(len(task.data.rows(name)) for task in done.values()) for name in SPLITS}
    assert rows["support"] + rows["query"] == 7500 - 2 - 2
    assert rows["test"] == 5000, "the test set stays whole"


def test_every_boxed_answer_is_the_published_one(math_source: "math.Source", data_root: Path) -> None:
    published = {}
    for split_name in ("train", "test"):
        for line in (data_root / "math" / f"{split_name}.jsonl").read_text().splitlines():
            record = json.loads(line)
            published[record["id"]] = record["answer"].strip()
    rows = [row for task in math_source.tasks for row in (*task.pool, *(task.test or ()))]
    assert len(rows) == 12_498
    assert all(row.answer == published[row.fields["id"]] for row in rows)


def test_the_duplicate_is_dropped_even_if_its_twin_is_not_prepared(data_root: Path, tmp_path: Path) -> None:
    done = prepare_checked("math", data_root, tmp_path / "out", tasks=["geometry"])
    assert done.manifest.task("geometry").dropped == {IN_TEST_SET: 1}


def test_strict_stops_at_the_first_bad_row(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train.jsonl, row 5342: no boxed answer .*and 1 more bad row"):
        prepare_checked("math", data_root, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


def test_math_science(data_root: Path, tmp_path: Path) -> None:
    values: dict[str, object] = {"skip": ["precalculus"], "validation": ["mmlu_stem"], "max_samples": 60}
    done = prepare_checked("math-science", data_root, tmp_path / "out", **values)
    assert done.manifest.names("train") == (*math.SUBJECTS[:-1], "word_problems", "physics", "chemistry")
    assert done.manifest.names("held_out") == ("hard_algebra", "calculus", "theoremqa")
    assert done.manifest.names("validation") == ("mmlu_stem",)
    assert done.manifest.skipped == {"no boxed answer": 2}
    assert {task.grader for task in done.manifest.tasks} == {"math", "number", "choice"}
    assert done.manifest.task("theoremqa").dropped == {"needs a picture": 53}
    for entry in done.manifest.tasks:
        assert 0 < entry.support.rows + entry.query.rows <= 60
        assert 0 < entry.test.rows <= 60
    hard = load_task(tmp_path / "out", "hard_algebra")
    assert {math.level_of(row) for row in (*hard.support, *hard.test)} == {"Level 5"}
    again = prepare_checked("math-science", data_root, tmp_path / "again", **values)
    assert manifest_hash(again.directory) == manifest_hash(done.directory)
    for file in sorted((tmp_path / "out").rglob("*.parquet")):
        assert (tmp_path / "again" / file.relative_to(tmp_path / "out")).read_bytes() == file.read_bytes()


def test_clinc150(data_root: Path, tmp_path: Path) -> None:
    done = prepare_checked(
        "clinc150", data_root, tmp_path / "out", tasks_per_domain=2, eval_tasks_per_domain=7, max_samples=40
    )
    counts = {role: len(done.manifest.names(role)) for role in ("train", "validation", "held_out")}
    assert counts == {"train": 12, "validation": 7, "held_out": 21}
    trained = {name.rpartition("_")[0] for name in done.manifest.names("train")}
    kept_out = {name.rpartition("_")[0] for name in done.manifest.names("held_out")}
    assert kept_out == {"banking", "credit_cards", "travel"}
    assert trained.isdisjoint(kept_out)
    task = load_task(tmp_path / "out", done.manifest.names("held_out")[0])
    for rows in (task.support, task.test):
        assert {row.label for row in rows} == {"A", "B", "C", "D"}
    tested = {row.prompt.casefold() for row in task.test}
    for name in done.manifest.names("train"):
        assert tested.isdisjoint(row.prompt.casefold() for row in load_task(tmp_path / "out", name).support)


def test_function_vectors(data_root: Path, tmp_path: Path) -> None:
    done = prepare_checked("function-vectors", data_root, tmp_path / "out", max_samples=40)
    assert len(done.manifest.tasks) == 51
    assert len(done.manifest.names("held_out")) == 16
    assert len(done.manifest.names("validation")) == 6
    assert (tmp_path / "out" / MIXED / "train.parquet").is_file()
