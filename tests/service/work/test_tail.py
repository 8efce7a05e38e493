"""Reading files that are still written to: every line once, in order, whatever happens to the file."""

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.core.tracking import JsonlTracker
from innerloop.service.jobs.job import LogLine, MetricValue
from innerloop.service.work.tail import LONGEST_LINE, MOST_AT_ONCE, MOST_ROWS_AT_ONCE, LogTail, MetricTail


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_file_that_is_not_there_yet_has_no_lines(path: Path) -> None:
    tail = LogTail(path, 0)
    assert tail.read() == []
    append(path, b"a\n")
    assert tail.read() == [LogLine("a", 1)]


def test_a_line_is_given_once_and_when_it_is_whole(path: Path) -> None:
    tail = LogTail(path, 0)
    append(path, b"one\ntw")
    assert texts(tail.read()) == ["one"]
    assert tail.read() == []
    append(path, b"o\r\n\n")
    assert tail.read() == [LogLine("two", 2), LogLine("", 3)]
    assert tail.read() == []


def test_half_a_line_is_one_when_nothing_is_written_any_more(path: Path) -> None:
    tail = LogTail(path, 0)
    append(path, b"whole\nhalf \xe2\x82")
    assert texts(tail.read()) == ["whole"]
    assert tail.read(ended=True) == [LogLine("half \ufffd", 2)]
    assert tail.read(ended=True) == []


def test_lines_that_are_in_the_store_already_are_left_out_and_counted(path: Path) -> None:
    append(path, b"1\n2\n3\n")
    assert LogTail(path, 2).read() == [LogLine("3", 3)]


def test_a_nul_and_what_is_no_text_are_replaced(path: Path) -> None:
    append(path, b"a\0b\xffc\n")
    assert texts(LogTail(path, 0).read()) == ["a\ufffdb\ufffdc"]


def test_of_a_progress_bar_its_last_state_is_left(path: Path) -> None:
    append(path, b"  0%\r 50%\r100%\n")
    assert texts(LogTail(path, 0).read()) == ["100%"]


def test_many_lines_come_in_parts_of_bounded_size(path: Path) -> None:
    count = 2 * MOST_AT_ONCE + 5
    append(path, b"".join(b"%d\n" % number for number in range(count)))
    tail = LogTail(path, 0)
    parts = [tail.read() for _ in range(4)]
    assert [len(part) for part in parts] == [MOST_AT_ONCE, MOST_AT_ONCE, 5, 0]
    lines = [line for part in parts for line in part]
    assert lines == [LogLine(str(number), number + 1) for number in range(count)]


def test_a_very_long_line_comes_in_pieces_and_is_never_read_whole(path: Path) -> None:
    append(path, b"x" * (3 * LONGEST_LINE + 10))
    tail = LogTail(path, 0)
    assert [len(text) for text in texts(tail.read())] == [LONGEST_LINE] * 3
    append(path, b"\nnext\n")
    assert tail.read() == [LogLine("x" * 10, 4), LogLine("next", 5)]


@given(
    text=st.text(st.sampled_from("aä€𝄞\n"), max_size=60),
    cuts=st.lists(st.integers(0, 240)),
    done=st.integers(0, 9),
)
def test_lines_do_not_depend_on_when_the_file_was_looked_at(
    tmp_path_factory: pytest.TempPathFactory, text: str, cuts: list[int], done: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("innerloop.service.work.tail.LONGEST_LINE", 7)
        path = tmp_path_factory.mktemp("tail") / "file"
        content = text.encode()
        piecemeal = LogTail(path, done)
        found = []
        at = 0
        for cut in sorted(cuts):
            append(path, content[at:cut])
            at = max(at, cut)
            found += piecemeal.read()
        append(path, content[at:])
        found += piecemeal.read(ended=True)
        assert found == LogTail(path, done).read(ended=True)
        if done == 0:
            assert "".join(line.text for line in found) == text.replace("\n", "")


def metrics(path: Path) -> MetricTail:
    return MetricTail(path, lambda name: None if name.startswith("left/") else f"ppo/{name}")


def test_rows_become_values_with_the_names_of_the_store(path: Path) -> None:
    row = {"step": 3, "loss": 0.5, "left/out": 1.0, "bad": math.nan}
    append(path, json.dumps(row).encode() + b'\n{"step": 4')
    values = metrics(path).read()
    assert values[0] == MetricValue(3, "ppo/loss", 0.5)
    assert (values[1].name, math.isnan(values[1].value)) == ("ppo/bad", True)
    assert len(values) == 2


def test_a_file_that_a_resumed_run_wrote_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    first = JsonlTracker(tmp_path)
    for step in (1, 2, 3):
        first.log(step, {"loss": step})
    tail = metrics(first.path)
    assert [value.step for value in tail.read()] == [1, 2, 3]
    append(first.path, b'{"step": 4, "lo')
    assert tail.read() == []
    resumed = JsonlTracker(tmp_path, start_step=2)
    resumed.log(3, {"loss": 30})
    assert [(value.step, value.value) for value in tail.read()] == [(1, 1), (2, 2), (3, 30)]
    first.close()
    resumed.close()


def test_a_file_that_became_shorter_is_read_from_its_beginning(path: Path) -> None:
    tail = LogTail(path, 0)
    append(path, b"one\ntwo\n")
    tail.read()
    os.truncate(path, 4)
    assert texts(tail.read()) == ["one"]


def test_many_rows_come_in_parts(path: Path) -> None:
    append(path, b"".join(b'{"step": %d, "a": 1, "b": 2}\n' % step for step in range(MOST_ROWS_AT_ONCE + 1)))
    tail = metrics(path)
    assert [len(tail.read()) for _ in range(3)] == [2 * MOST_ROWS_AT_ONCE, 2, 0]


@pytest.mark.parametrize(
    "row", ["no row", "[]", "1", "{}", '{"step": "x"}', '{"step": 1, "loss": "high"}', "\0"]
)
def test_a_damaged_row_is_an_error_that_names_the_file(path: Path, row: str) -> None:
    append(path, row.encode() + b"\n")
    with pytest.raises(InputError, match=f"{path} has a damaged row"):
        metrics(path).read()
