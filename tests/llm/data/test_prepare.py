"""A prepared folder: its layout, byte for byte the same, whole or not at all, and read back as it was."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import yaml

from innerloop.core.errors import InputError
from innerloop.llm.config import load_config
from innerloop.llm.data import writing
from innerloop.llm.data.prepare import prepare
from innerloop.llm.data.prepared import (
    SPLITS,
    content_hash,
    load_manifest,
    load_task,
    manifest_hash,
    task_names,
)
from innerloop.llm.data.rows import Message, Row, RowKeys, make_row, read_rows
from innerloop.llm.data.starter_configs import STARTERS
from innerloop.llm.data.writing import replacing, write_rows
from llm.data.preparing import TASKS, prepare_small, write_files


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_layout_and_columns(tmp_path: Path) -> None:
    done = prepare_small(tmp_path)
    out = done.directory
    configs = {f"config_{starter.name}.yaml" for starter in STARTERS}
    tables = {f"{task}/{split}.parquet" for task in TASKS for split in SPLITS}
    assert files_of(out).keys() == configs | tables | {"manifest.json", "mixed/train.parquet"}
    table = pq.read_table(out / "red" / "support.parquet")
    assert table.column_names == ["prompt", "response", "messages", "answer", "metadata"]
    first = table.to_pylist()[0]
    assert first["messages"] == [
        {"role": "user", "content": first["prompt"]},
        {"role": "assistant", "content": first["response"]},
    ]
    assert first["answer"] is None
    assert json.loads(first["metadata"]) == {}
    assert not list(tmp_path.glob(".*"))


def test_other_trainers_read_the_files_as_they_are(tmp_path: Path) -> None:
    out = prepare_small(tmp_path).directory
    table = datasets.Dataset.from_parquet(
        str(out / "mixed" / "train.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert set(table[0]["messages"][0]) == {"role", "content"}


def test_the_manifest_says_how_the_folder_came_about(tmp_path: Path) -> None:
    done = prepare_small(tmp_path, {"seed": 3, "support_ratio": 0.5, "max_samples": 20})
    manifest = load_manifest(done.directory)
    assert manifest == done.manifest
    assert (manifest.preset, manifest.seed, manifest.settings["support_ratio"]) == ("custom", 3, 0.5)
    assert manifest.names("train") == ("red", "green")
    assert manifest.names("held_out") == ("blue",)
    assert manifest.versions.keys() == {"innerloop", "pyarrow"}
    for entry in manifest.tasks:
        task = load_task(done.directory, entry.name)
        assert entry.grader == "exact"
        for split in SPLITS:
            assert entry.split(split).rows == len(task.rows(split)) == {"support": 10}.get(split, 5)
            assert entry.split(split).content == content_hash(task.rows(split))
    with pytest.raises(InputError, match="no prepared task 'pink'"):
        manifest.task("pink")


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = files_of(prepare_small(tmp_path).directory)
    again = files_of(prepare_small(tmp_path).directory)
    assert again == first
    elsewhere = files_of(prepare_small(tmp_path / "elsewhere").directory)
    assert elsewhere.keys() == first.keys()
    # A configuration names its folder; nothing else depends on the place.
    assert {name for name in first if first[name] != elsewhere[name]} == {
        name for name in first if name.startswith("config_")
    }
    other = files_of(prepare_small(tmp_path, {"seed": 1}).directory)
    assert other["red/support.parquet"] != first["red/support.parquet"]


def test_the_hash_follows_the_content_alone(tmp_path: Path) -> None:
    out = prepare_small(tmp_path).directory
    value = manifest_hash(out)
    assert manifest_hash(prepare_small(tmp_path / "elsewhere").directory) == value
    (out / "manifest.json").unlink()
    assert manifest_hash(out) == value, "without a manifest the files are read"
    write_rows(out / "red" / "query.parquet", [make_row("a", "b")])
    assert manifest_hash(out) != value


def test_mixed_holds_what_training_tasks_learn_from_and_nothing_else(tmp_path: Path) -> None:
    out = prepare_small(tmp_path).directory
    mixed = read_rows(out / "mixed" / "train.parquet")
    learned = [
        row
        for name in ("red", "green")
        for row in (*load_task(out, name).support, *load_task(out, name).query)
    ]
    assert sorted(row.prompt for row in mixed) == sorted(row.prompt for row in learned)
    assert {row.fields["task"] for row in mixed} == {"red", "green"}
    assert [row.prompt for row in mixed] != [row.prompt for row in learned], "in random order"


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    chat = (
        Message("system", ""),
        Message("user", "é\u2028"),
        Message("assistant", "a"),
        Message("user", "b"),
        Message("assistant", "c"),
    )
    rows = [
        make_row("p", "r", "a", {"label": "A", "nested": {"x": [1]}}),
        Row("é\u2028\n\na\n\nb", "c", chat),
    ]
    write_rows(tmp_path / "rows.parquet", rows)
    assert read_rows(tmp_path / "rows.parquet", strict=True) == rows


def test_starter_configurations_are_ready(tmp_path: Path) -> None:
    out = prepare_small(tmp_path, {"validation": ["green"]}).directory
    for starter in STARTERS:
        config = load_config(f"config_{starter.name}", out)
        assert config.data.path == str(out)
        assert config.meta.algorithm == starter.algorithm
        assert [task.name for task in config.meta.tasks] == ["red"]
        assert config.meta.eval_tasks == ("green",)
        assert config.model.adapts == ("lora" if "lora" in starter.recipe else "full")


def test_the_system_turn(tmp_path: Path) -> None:
    out = prepare_small(tmp_path, {"system": ""}).directory
    row = load_task(out, "red").support[0]
    assert [message.role for message in row.messages] == ["system", "user", "assistant"]
    assert (row.messages[0].content, row.prompt) == ("", row.messages[1].content)
    assert load_manifest(out).settings["system"] == ""


def test_bad_rows_are_skipped_and_counted_or_fatal(tmp_path: Path) -> None:
    config = write_files(tmp_path)
    with (tmp_path / "red.jsonl").open("a") as file:
        file.write('{"prompt": "", "response": "a"}\nnot json\n')
    values: dict[str, object] = {"config": config, "output_dir": tmp_path / "out", "validate": True}
    done = prepare("custom", values)
    assert done.manifest.skipped == {"broken JSON": 1, "empty prompt": 1}
    assert [(problem.file.name, problem.row) for problem in done.problems] == [
        ("red.jsonl", 31),
        ("red.jsonl", 32),
    ]
    before = files_of(tmp_path / "out")
    with pytest.raises(InputError, match=r"red.jsonl, row 31: empty prompt \(and 1 more"):
        prepare("custom", {**values, "strict": True})
    assert files_of(tmp_path / "out") == before


# Whole or not at all


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="files that were not prepared here"):
        prepare_small(tmp_path)
    (tmp_path / "out" / "thesis.txt").unlink()
    out = prepare_small(tmp_path).directory
    for foreign in (out / "red" / "notes.txt", out / "checkpoints" / "step_1" / "weights"):
        foreign.parent.mkdir(parents=True, exist_ok=True)
        foreign.write_text("dear")
        with pytest.raises(InputError, match="was not prepared here and would be lost"):
            prepare_small(tmp_path)
        assert foreign.read_text() == "dear"
        foreign.unlink()
    with pytest.raises(InputError, match="is a file"):
        prepare_small(tmp_path, {"output_dir": tmp_path / "red.jsonl"})


def test_a_failed_write_leaves_the_old_folder_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(prepare_small(tmp_path).directory)
    calls = iter(range(5))

    def full_disk(path: Path, rows: object) -> None:
        if next(calls) == 4:
            raise OSError(28, "No space left on device")
        write_rows(path, rows)  # type: ignore[arg-type]

    monkeypatch.setattr("innerloop.llm.data.prepare.write_rows", full_disk)
    with pytest.raises(OSError, match="No space left"):
        prepare_small(tmp_path, {"seed": 9})
    assert files_of(tmp_path / "out") == before
    assert not list(tmp_path.glob(".*"))


def test_an_interruption_between_the_renames_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = prepare_small(tmp_path).directory
    before = files_of(out)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if ".writing-" in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(writing.Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(out) as fresh:
        (fresh / "new").write_text("new")
    assert files_of(out) == before
    assert not list(tmp_path.glob(".*"))


def test_a_preparation_replaces_an_older_one_whole(tmp_path: Path) -> None:
    prepare_small(tmp_path)
    out = prepare_small(tmp_path, {"skip": ["red"]}).directory
    assert task_names(out) == ("blue", "green")


# Folders made by hand


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_folder_made_by_hand(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "mine").mkdir()
    content = {"jsonl": '{"ask": "a", "say": "b"}\n', "csv": "ask,say\na,b\n"}[suffix]
    (tmp_path / "mine" / f"support.{suffix}").write_text(content)
    task = load_task(tmp_path, "mine", RowKeys("ask", "say"), needs=("support",))
    assert [row.response for row in task.support] == ["b"]
    assert (task.query, task.test) == ((), ())
    with pytest.raises(InputError, match="the task has no query rows"):
        load_task(tmp_path, "mine", RowKeys("ask", "say"), needs=("support", "query"))
    with pytest.raises(InputError, match="no task 'yours'; the prepared tasks are: mine"):
        load_task(tmp_path, "yours")
    with pytest.raises(InputError, match="row 1: no prompt and response"):
        load_task(tmp_path, "mine")


def test_missing_and_damaged_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_manifest(tmp_path)
    out = prepare_small(tmp_path).directory
    whole = (out / "manifest.json").read_text()
    for text in (
        whole[:-40],
        "[]",
        "{}",
        whole.replace('"held_out"', '"spare"'),
        whole.replace('"rows"', '"lines"'),
        whole.replace('"licence"', '"license"'),
        whole.replace('"format": 1', '"format": 99'),
    ):
        (out / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=r"manifest\.json: (damaged|written by another version)"):
            load_manifest(out)
    with pytest.raises(InputError, match="holds no prepared task"):
        manifest_hash(tmp_path / "out" / "red")
    with pytest.raises(InputError, match="no such folder"):
        task_names(tmp_path / "absent")


# Bad requests


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"output_dir": None}, "--output-dir"),
        ({"seed": -1}, "--seed is -1"),
        ({"seed": "one"}, "--seed: 'one' is not a whole number"),
        ({"seed": True}, "--seed: True is not a whole number"),
        ({"validate": 1}, "--validate: 1 is not true or false"),
        ({"holdout": [1]}, "--holdout: 1 is not text"),
        ({"sede": 1}, "no setting 'sede'; did you mean 'seed'"),
        ({"holdout": ["bleu"]}, "--holdout: no task 'bleu'; did you mean 'blue'"),
        ({"tasks": ["pink"]}, "--tasks: no task 'pink'"),
        ({"validation": ["blue"]}, "both in --holdout and in --validation"),
        ({"skip": ["blue"]}, "both skipped and held out"),
        ({"holdout": [], "skip": list(TASKS)}, "no task is left"),
        ({"support_ratio": 1.2}, "must lie between 0 and 1"),
        ({"max_samples": -5}, "--max-samples is -5"),
        ({"source_dir": "nowhere"}, "nowhere: no such folder"),
        ({"config": None}, "needs --config"),
        ({"config": "nowhere.json"}, "nowhere.json: cannot be read"),
        ({"support_size": 40}, "has 30 rows, fewer than"),
    ],
)
def test_bad_requests(tmp_path: Path, values: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepare_small(tmp_path, values)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_an_unknown_preset() -> None:
    with pytest.raises(InputError, match="no preset 'maths'; there are: math, "):
        prepare("maths", {})


def test_hand_edited_configuration_is_yaml(tmp_path: Path) -> None:
    out = prepare_small(tmp_path).directory
    text = (out / "config_sft.yaml").read_text()
    assert text.startswith(f"# innerloop train --config-path {out} --config-name config_sft\n")
    assert yaml.safe_load(text)["meta"]["algorithm"] == "sft"


def test_the_content_hash_sees_every_field() -> None:
    row = make_row("p", "r", "a", {"k": 1})
    others = (
        replace(row, prompt="q"),
        replace(row, response="s"),
        replace(row, answer=None),
        replace(row, metadata="{}"),
        replace(row, messages=(Message("system", ""), *row.messages)),
    )
    assert len({content_hash([one]) for one in (row, *others)}) == 6
