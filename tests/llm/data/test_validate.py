"""Validation finds what was done to a folder after it was prepared, and what is wrong in one made by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.llm.data.prepared import load_task
from innerloop.llm.data.rows import RowKeys, make_row
from innerloop.llm.data.tokens import token_count
from innerloop.llm.data.validate import load_tokenizer, validate
from innerloop.llm.data.writing import write_rows
from llm.data.preparing import prepare_small
from tiny_llama import tiny_tokenizer


def test_a_sound_folder(tmp_path: Path) -> None:
    done = prepare_small(tmp_path, {"validate": True})
    assert done.validation == validate(done.directory)
    assert done.validation is not None
    done.validation.require_sound()
    assert [(task.name, task.role) for task in done.validation.tasks] == [
        ("blue", "held_out"),
        ("green", "train"),
        ("red", "train"),
    ]
    assert done.validation.tasks[0].rows == {"support": 18, "query": 6, "test": 6}
    assert done.validation.tasks[0].lengths is None


def test_token_lengths(tmp_path: Path) -> None:
    out = prepare_small(tmp_path).directory
    tokenizer = tiny_tokenizer()
    lengths = validate(out, tokenizer).tasks[2].lengths
    task = load_task(out, "red")
    counted = [token_count(row, tokenizer) for row in (*task.support, *task.query, *task.test)]
    assert lengths is not None
    assert (lengths.shortest, lengths.longest) == (min(counted), max(counted))
    assert lengths.shortest <= lengths.median <= lengths.longest


def leak_test_row_into_support(out: Path) -> None:
    task = load_task(out, "blue")
    write_rows(out / "red" / "support.parquet", [*load_task(out, "red").support, task.test[0]])


def leak_support_row_into_query(out: Path) -> None:
    task = load_task(out, "red")
    write_rows(out / "red" / "query.parquet", [*task.query[1:], task.support[0]])


def leak_held_out_row_into_mixed(out: Path) -> None:
    write_rows(out / "mixed" / "train.parquet", load_task(out, "blue").support[:1])


def leak_held_out_task_into_configuration(out: Path) -> None:
    path = out / "config_sft.yaml"
    path.write_text(path.read_text().replace("- green", "- name: blue"))


def lose_a_task(out: Path) -> None:
    for path in (out / "green").iterdir():
        path.unlink()


def add_a_task(out: Path) -> None:
    write_rows(out / "violet" / "support.parquet", [make_row("v", "r")])


def edit_a_row(out: Path) -> None:
    task = load_task(out, "red")
    write_rows(out / "red" / "query.parquet", [make_row("edited", "r"), *task.query[1:]])


def tear_a_file(out: Path) -> None:
    path = out / "red" / "test.parquet"
    path.write_bytes(path.read_bytes()[:100])


def damage_a_row(out: Path) -> None:
    (out / "red" / "test.parquet").unlink()
    (out / "red" / "test.jsonl").write_text('{"prompt": "a", "response": ""}\n')


def break_a_configuration(out: Path) -> None:
    (out / "config_sft.yaml").write_text("meta: [")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (leak_test_row_into_support, "leak: 1 row of red/support also in blue/test"),
        (leak_test_row_into_support, "leak: 1 row of blue (kept out of training) also in red"),
        (leak_support_row_into_query, "leak: 1 row of red/support also in red/query"),
        (leak_held_out_row_into_mixed, "leak: 1 row of blue (kept out of training) also in mixed"),
        (leak_held_out_task_into_configuration, "trains on 'blue', which is kept out of training"),
        (lose_a_task, "green: stands in the manifest, but its folder is missing"),
        (add_a_task, "violet: not in the manifest"),
        (edit_a_row, "red/query: the rows are not those that the manifest lists"),
        (leak_test_row_into_support, "red/support: 19 rows, 18 in the manifest"),
        (tear_a_file, "test.parquet: not a readable parquet file"),
        (damage_a_row, "test.jsonl, row 1: empty response"),
        (break_a_configuration, "config_sft.yaml: no configuration with meta.tasks"),
    ],
)
def test_what_is_found(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    out = prepare_small(tmp_path).directory
    damage(out)
    validation = validate(out)
    assert any(words in finding for finding in validation.findings), validation.findings
    with pytest.raises(InputError):
        validation.require_sound()


def test_duplicates_are_counted_and_no_fault(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine" / "support.parquet", [make_row("a", "b"), make_row("A ", "b")])
    validation = validate(tmp_path)
    assert validation.tasks[0].duplicates == 1
    assert not validation.findings


def test_a_folder_made_by_hand_is_checked_for_leaks_too(tmp_path: Path) -> None:
    for name in ("support", "test"):
        path = tmp_path / "mine" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"ask": "a", "say": "b"}) + "\n")
    (finding,) = validate(tmp_path, keys=RowKeys("ask", "say")).findings
    assert finding.startswith("leak: 1 row of mine/support also in mine/test")


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no prepared task"):
        validate(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        validate(tmp_path / "absent")


def test_a_preparation_that_fails_its_check_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_small(tmp_path / "first")
    monkeypatch.setattr("innerloop.llm.data.prepare.write_starter_configs", lambda *_: None)

    def careless(path: Path, _rows: object) -> None:
        write_rows(path, [make_row("the same", "everywhere")])

    monkeypatch.setattr("innerloop.llm.data.prepare.write_rows", careless)
    with pytest.raises(InputError, match="more findings"):
        prepare_small(tmp_path, {"validate": True})
    assert not (tmp_path / "out").exists()


def test_tokenizers_by_name(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).eos_token == "<|im_end|>"
    with pytest.raises(InputError, match="cannot load a tokenizer from"):
        load_tokenizer(str(tmp_path / "absent"))
