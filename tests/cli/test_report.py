"""`innerloop report` as a user calls it."""

import argparse
import json
from pathlib import Path

import pytest

from innerloop.cli import report
from innerloop.core.errors import InputError
from report.synthetic import simple_scores, write_evaluation


def call(*words: str) -> None:
    parser = argparse.ArgumentParser()
    report.register(parser.add_subparsers())
    options = parser.parse_args(["report", *words])
    options.run(options)


@pytest.fixture
def evaluations(tmp_path: Path) -> Path:
    root = tmp_path / "evaluations"
    write_evaluation(root / "meta", simple_scores(lambda t, b: 0.5 + 0.02 * b + 0.01 * t))
    write_evaluation(root / "sft", simple_scores(lambda t, b: 0.3 + 0.02 * b), method="sft", control=True)
    return root


def test_writes_the_report_and_prints_table_and_path(
    evaluations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out" / "page.html"
    call(str(evaluations / "meta"), str(evaluations / "sft"), "-o", str(page))
    said = capsys.readouterr().out
    assert "META beats SFT at equal cost, by 23.5 points." in said
    assert said.splitlines()[-1] == f"report: {page} (numbers: page.json, page.csv)"
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(page.with_suffix(".json").read_text())["metric"] == "accuracy"


def test_another_metric_and_a_folder_of_folders(evaluations: Path, tmp_path: Path) -> None:
    call(str(evaluations), "--metric", "loss", "--output", str(tmp_path / "page.html"))
    record = json.loads((tmp_path / "page.json").read_text())
    assert record["metric"] == "loss"
    assert record["verdict"]["outcome"] == "win"


def test_the_default_place_is_the_working_folder(
    evaluations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call(str(evaluations))
    assert (tmp_path / "report.html").exists()


def test_bad_folders_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        call(str(tmp_path / "nowhere"))


def test_folders_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call()
    assert stop.value.code == 2
    assert "DIR" in capsys.readouterr().err
