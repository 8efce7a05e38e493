"""Every accepted format reads; every kind of damage is reported with file, row and reason."""

import csv
import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from innerloop.core.errors import InputError
from innerloop.llm.data.rows import Message, Row, RowKeys, read_rows, scan_rows, summary

GOOD = {"prompt": "2 + 3", "response": "5"}
CHAT = [{"role": "user", "content": "2 + 3"}, {"role": "assistant", "content": "5"}]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        case ".json":
            path.write_text(json.dumps(records))
        case ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(records[0]))
                writer.writeheader()
                writer.writerows(records)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(records), path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv"])
@pytest.mark.parametrize(
    ("record", "answer"),
    [
        ({**GOOD, "answer": "five"}, "five"),
        ({"question": "2 + 3", "answer": "5"}, None),
        ({"prompt": "2 + 3", "completion": "5"}, None),
    ],
)
def test_formats(tmp_path: Path, suffix: str, record: dict[str, object], answer: str | None) -> None:
    path = write(tmp_path / f"rows{suffix}", [record, record])
    expected = Row("2 + 3", "5", (Message("user", "2 + 3"), Message("assistant", "5")), answer)
    assert read_rows(path, strict=True) == [expected, expected]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_chats_of_several_turns(tmp_path: Path, suffix: str) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 3"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "Add 1."},
        {"role": "assistant", "content": "6"},
    ]
    (row,) = read_rows(write(tmp_path / f"rows{suffix}", [{"messages": chat}]))
    assert row.messages == tuple(Message(turn["role"], turn["content"]) for turn in chat)
    assert row.prompt == "2 + 3\n\n5\n\nAdd 1."
    assert row.response == "6"


def test_a_chat_in_a_csv_file_is_json(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path / "rows.csv", [{"messages": json.dumps(CHAT)}]))
    assert (row.prompt, row.response) == ("2 + 3", "5")


def test_column_names_can_be_chosen(tmp_path: Path) -> None:
    record = {"ticket": "Where?", "reply": "There.", "prompt": "other", "response": "other", "gold": 7}
    path = write(tmp_path / "rows.jsonl", [record])
    (row,) = read_rows(path, RowKeys("ticket", "reply", answer="gold"))
    assert (row.prompt, row.response, row.answer) == ("Where?", "There.", "7")


def test_an_unwanted_chat_can_be_left_unread(tmp_path: Path) -> None:
    record = {"prompt": "2 + 3", "response": "Five.", "messages": CHAT}
    path = write(tmp_path / "rows.jsonl", [record])
    assert scan_rows(path).problems[0].reason == "messages disagree with prompt and response"
    (row,) = read_rows(path, RowKeys(messages=""))
    assert row.response == "Five."


def test_json_lines_under_the_name_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD)}\n")
    assert len(read_rows(path)) == 2


def test_metadata_label_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    record = {**GOOD, "metadata": {"label": 3, "b": None}}
    path.write_text("\ufeff" + json.dumps(record) + "\n", encoding="utf-8")
    (row,) = read_rows(path)
    assert row.metadata == '{"b": null, "label": 3}'
    assert row.label == "3"
    assert Row("a", "b", ()).label is None


def test_the_limit_counts_good_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": ""}, *[GOOD] * 5])
    assert len(read_rows(path, limit=3)) == 3
    with pytest.raises(InputError, match="must be positive"):
        read_rows(path, limit=0)


def with_chat(*turns: object) -> str:
    return json.dumps({"messages": turns})


USER, ASSISTANT = CHAT
DAMAGED_ROWS = [
    ('{"prompt": "a", "response": "b"', "broken JSON", "delimiter"),
    ('{"prompt": "a", "response": ' + "9" * 5000 + "}", "broken JSON", "digits"),
    ("[" * 100_000, "broken JSON", "recursion"),
    ('["a", "b"]', "not a JSON object", "a list"),
    ('"a"', "not a JSON object", "a str"),
    ('{"prompt": "a"}', "no response", "'response'"),
    ('{"response": "a"}', "no prompt", "'prompt'"),
    ('{"text": "a"}', "no prompt and response", "text"),
    ('{"prompt": null, "response": "b"}', "null prompt", "'prompt'"),
    ('{"prompt": "a", "response": null}', "null response", "'response'"),
    ('{"prompt": "", "response": "b"}', "empty prompt", ""),
    ('{"prompt": " \\n\\t", "response": "b"}', "empty prompt", ""),
    ('{"prompt": "a", "response": "  "}', "empty response", ""),
    ('{"prompt": 5, "response": "b"}', "wrong type", "prompt is a int"),
    ('{"prompt": "a", "response": ["b"]}', "wrong type", "response is a list"),
    ('{"prompt": NaN, "response": "b"}', "wrong type", "prompt is a float"),
    ('{"prompt": "a", "response": "b", "answer": ["c"]}', "wrong type", "answer is a list"),
    ('{"prompt": "a", "response": "b", "answer": true}', "wrong type", "answer is a bool"),
    ('{"prompt": "a", "response": "b", "answer": NaN}', "wrong type", "answer is nan"),
    ('{"prompt": "a\\ud800", "response": "b"}', "not valid Unicode", "prompt, at character 2"),
    ('{"prompt": "a", "response": "b", "metadata": "{"}', "metadata is not a JSON object", "a str"),
    ('{"prompt": "a", "response": "b", "metadata": [1]}', "metadata is not a JSON object", "a list"),
    ('{"messages": 7}', "messages are not a list", "a int"),
    ('{"messages": "hello"}', "messages are not a list", "null"),
    (with_chat(), "messages are empty", ""),
    (with_chat("hello", ASSISTANT), "a message without role and content", "a str"),
    (with_chat({"role": "user"}, ASSISTANT), "a message without role and content", ""),
    (with_chat({"role": "narrator", "content": "a"}, ASSISTANT), "unknown role", "'narrator'"),
    (with_chat({"role": ["user"], "content": "a"}, ASSISTANT), "unknown role", "['user']"),
    (with_chat({"role": "user", "content": ""}, ASSISTANT), "empty message", ""),
    (with_chat({"role": "user", "content": None}, ASSISTANT), "wrong type", "message is null"),
    (with_chat(USER), "messages do not end with an assistant turn", "'user'"),
    (with_chat(ASSISTANT), "messages do not begin with a user turn", "'assistant'"),
    (with_chat(USER, ASSISTANT, ASSISTANT), "turns out of order", "'assistant' after 'assistant'"),
    (with_chat(USER, {"role": "system", "content": "a"}, ASSISTANT), "turns out of order", "'system'"),
    (
        json.dumps({"prompt": "2 + 3", "response": "6", "messages": CHAT}),
        "messages disagree with prompt and response",
        "",
    ),
    (
        json.dumps({"prompt": "2 + 4", "response": "5", "messages": CHAT}),
        "messages disagree with prompt and response",
        "",
    ),
]


@pytest.mark.parametrize(("line", "reason", "detail"), DAMAGED_ROWS)
def test_damaged_rows(
    tmp_path: Path, line: str, reason: str, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n{json.dumps(GOOD)}\n")
    scan = scan_rows(path)
    assert len(scan.rows) == 2
    (problem,) = scan.problems
    assert (problem.file, problem.row, problem.reason) == (path, 2, reason)
    assert detail.lower() in problem.detail.lower()
    with pytest.raises(InputError, match=f"{path}, row 2: {reason}"):
        read_rows(path, strict=True)
    with caplog.at_level(logging.WARNING):
        assert len(read_rows(path)) == 2
    assert f"skipped 1 bad row: 1 {reason}" in caplog.text


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "a", "response": "b"}\n{"prompt": "caf\xe9", "response": "b"}\n')
    (problem,) = scan_rows(path).problems
    assert str(problem) == f"{path}, row 2: not valid Unicode (prompt, at character 4)"
    table = tmp_path / "rows.csv"
    table.write_bytes(b"prompt,response\na,b\ncaf\xe9,b\n")
    assert [problem.row for problem in scan_rows(table).problems] == [2]


@pytest.mark.parametrize("suffix", [".parquet", ".json", ".csv"])
def test_the_row_number_in_other_formats(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows{suffix}", [GOOD, {"prompt": " ", "response": "b"}, GOOD])
    (problem,) = scan_rows(path).problems
    assert (problem.row, problem.reason) == (2, "empty prompt")


def test_a_csv_row_of_another_width(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,response\na,"two\nlines"\n\na,b,c\na\n')
    scan = scan_rows(path)
    assert scan.rows[0].response == "two\nlines"
    assert [(problem.row, problem.reason) for problem in scan.problems] == [
        (2, "wrong number of fields"),
        (3, "wrong number of fields"),
    ]
    assert summary(scan.problems) == "skipped 2 bad rows: 2 wrong number of fields"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.jsonl", None, "no such file"),
        ("rows.txt", b"a", "unknown kind of file '.txt'"),
        ("rows.jsonl", b"", "holds no rows"),
        ("rows.json", b"[]", "holds no rows"),
        ("rows.json", b'[{"prompt": "a"', "broken JSON"),
        ("rows.csv", b"", "holds no rows"),
        ("rows.csv", b"prompt,prompt\na,b\n", "names a column twice"),
        ("rows.csv", b'prompt,response\na,"b\n', "row 1: broken CSV"),
        ("rows.parquet", b"PAR1 and nothing else", "not a readable parquet file"),
        ("rows.parquet", b"", "not a readable parquet file"),
        ("rows.jsonl", b'{"prompt": ""}\n{"prompt": ""}\n', "row 1: no response .*and 1 more bad rows"),
    ],
)
def test_files_that_hold_nothing_to_read(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as raised:
        read_rows(path)
    assert str(path) in str(raised.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_rows(tmp_path)


def test_a_torn_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", [GOOD] * 100)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="not a readable parquet file"):
        read_rows(path)


def test_a_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    column = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"caf\xe9"]).buffers()[1:]])
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": column, "response": ["b"]}), path)
    with pytest.raises(InputError, match="not a readable parquet file"):
        read_rows(path)
