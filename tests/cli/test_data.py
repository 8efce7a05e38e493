"""``innerloop data``: every flag reaches its setting, and errors are one line with exit code 2."""

import json
from pathlib import Path

import pytest

from innerloop.cli.data import PROBLEMS_SHOWN
from innerloop.cli.main import build_parser, main
from innerloop.llm.data.catalogue import PRESETS, PrepareOptions, Setting, build, settings
from innerloop.llm.data.prepare import prepare
from innerloop.llm.data.prepared import load_manifest, load_task
from innerloop.llm.data.writing import write_rows
from llm.data.preparing import write_files
from tiny_llama import tiny_tokenizer


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(write_files(tmp_path))


def words_for(setting: Setting) -> tuple[list[str], object]:
    """Some words on the command line for a setting, and the value they stand for."""
    if setting.kind is bool:
        return [setting.flag], True
    one, value = {int: ("7", 7), float: ("0.25", 0.25)}.get(setting.kind, ("some", "some"))
    if setting.many:
        return [setting.flag, one, "more"], (one, "more")
    return [setting.flag, one], Path("some") if setting.kind is Path else value


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_setting_is_a_flag(preset: object) -> None:
    for options in (PrepareOptions, preset.options):  # type: ignore[attr-defined]
        for setting in settings(options):
            words, value = words_for(setting)
            parsed = build_parser().parse_args(["data", "prepare", preset.name, *words])  # type: ignore[attr-defined]
            assert getattr(build(options, vars(parsed)), setting.name) == value
    plain = build_parser().parse_args(["data", "prepare", preset.name])  # type: ignore[attr-defined]
    assert build(PrepareOptions, vars(plain)) == PrepareOptions()


def test_prepare_and_validate(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "prepare", "custom", "--config", config, "--output-dir", "out", "--holdout", "blue"]
    assert main([*words, "--validate", "--seed", "5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "task   role      grader  support  query  test",
        "red    train     exact   18       6      6",
        "green  train     exact   18       6      6",
        "blue   held_out  exact   18       6      6",
        "3 tasks (2 train, 0 validation, 1 held_out) in out; checked, sound",
    ]
    assert load_manifest(Path("out")).seed == 5
    tiny_tokenizer().save_pretrained("tokenizer")
    assert main(["data", "validate", "out", "--tokenizer", "tokenizer"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "task   role      support  query  test  duplicates  tokens (min / median / max)"
    assert out[-1] == "out: sound"
    task = load_task(Path("out"), "blue")
    write_rows(Path("out/red/support.parquet"), task.test)
    assert main(["data", "validate", "out"]) == 2
    shown = capsys.readouterr()
    assert "leak: 6 rows of red/support also in blue/test" in shown.err
    (error,) = [line for line in shown.err.splitlines() if line.startswith("innerloop: error")]
    assert "more findings" in error


def test_bad_rows_are_listed(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "red.jsonl").open("a") as file:
        file.write('{"prompt": ""}\n' * (PROBLEMS_SHOWN + 5))
    assert main(["data", "prepare", "custom", "--config", config, "--output-dir", "out"]) == 0
    lines = capsys.readouterr().err.splitlines()
    first = "row 31: no response (no column 'response'; the columns are prompt)"
    assert lines[0] == f"skipped: {tmp_path / 'red.jsonl'}, {first}"
    assert len(lines) == PROBLEMS_SHOWN + 1
    assert lines[-1] == f"skipped {PROBLEMS_SHOWN + 5} bad rows: {PROBLEMS_SHOWN + 5} no response"
    assert main(["data", "prepare", "custom", "--config", config, "--output-dir", "strict", "--strict"]) == 2
    assert not Path("strict").exists()


def test_dropped_rows_are_shown_with_their_reason(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "red.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "RED 3", "response": "again"}) + "\n")
    assert main(["data", "prepare", "custom", "--config", config, "--output-dir", "out"]) == 0
    assert "1 a duplicate within its task" in capsys.readouterr().out


def test_a_long_table_is_cut(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        main(
            ["data", "prepare", "word-sorting", "--output-dir", str(tmp_path / "out"), "--train-tasks", "40"]
        )
        == 0
    )
    out = capsys.readouterr().out.splitlines()
    assert out[-2] == "... and 38 more tasks"
    assert out[-1].startswith("68 tasks (40 train, 8 validation, 20 held_out) in ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["data"], "required: VERB"),
        (["data", "prepare"], "required: PRESET"),
        (["data", "prepare", "maths"], "invalid choice: 'maths'"),
        (["data", "prepare", "custom", "--seed", "x"], "invalid int value: 'x'"),
        (["data", "prepare", "custom", "--output-dir", "out"], "needs --config"),
        (["data", "prepare", "math", "--output-dir", "out", "--source-dir", "no"], "no such folder"),
        (["data", "prepare", "function-vectors", "--output-dir", "out"], "not on the hub"),
        (["data", "prepare", "custom", "--config", "no.json"], "--output-dir"),
        (["data", "validate", "no"], "no such folder"),
        (["data", "validate", ".", "--tokenizer", "./no"], "cannot load a tokenizer"),
    ],
)
def test_errors_are_one_line(
    words: list[str], complaint: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1
    assert not Path("out").exists()


def test_the_experiment_prepares_like_the_command(config: str) -> None:
    """An experiment file gives lists and plain values where the command line gives tuples and paths."""
    assert (
        main(["data", "prepare", "custom", "--config", config, "--output-dir", "one", "--holdout", "red"])
        == 0
    )
    prepare("custom", {"config": config, "output_dir": "two", "holdout": "red", "support_ratio": 0.6})
    assert load_manifest(Path("one")) == load_manifest(Path("two"))
