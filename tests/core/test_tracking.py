"""The metrics file: one whole line a step, cut back to where a resumed run starts."""

import errno
import json
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.core.tracking import Fanout, JsonlTracker, read_metrics


def write_steps(folder: Path, first: int, last: int, start_step: int = 0) -> Path:
    tracker = JsonlTracker(folder, start_step)
    for step in range(first, last + 1):
        tracker.log(step, {"meta/loss": step / 3})
    tracker.close()
    return tracker.path


def steps(path: Path) -> list[float]:
    return [row["step"] for row in read_metrics(path)]


def test_one_json_object_a_step(tmp_path: Path) -> None:
    path = write_steps(tmp_path / "made" / "on demand", 1, 3)
    assert path.name == "metrics.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": step, "meta/loss": step / 3} for step in (1, 2, 3)
    ]
    assert read_metrics(path) == [{"step": step, "meta/loss": step / 3} for step in (1, 2, 3)]


def test_a_line_is_there_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log(1, {"meta/loss": 1.0})
    assert steps(tracker.path) == [1]
    tracker.close()


def test_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log(1, {"meta/loss": 0.1 + 0.2, "größe": 1e-300})
    tracker.close()
    assert read_metrics(tracker.path) == [{"step": 1, "meta/loss": 0.1 + 0.2, "größe": 1e-300}]


def test_a_resumed_run_takes_back_the_steps_it_repeats(tmp_path: Path) -> None:
    path = write_steps(tmp_path, 1, 5)
    write_steps(tmp_path, 4, 6, start_step=3)
    assert steps(path) == [1, 2, 3, 4, 5, 6]


def test_a_new_run_in_the_folder_starts_an_empty_file(tmp_path: Path) -> None:
    path = write_steps(tmp_path, 1, 5)
    JsonlTracker(tmp_path, 0).close()
    assert path.read_text() == ""


def test_a_half_written_last_line_is_no_row(tmp_path: Path) -> None:
    path = write_steps(tmp_path, 1, 3)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole) - 1):  # every place a kill can cut the third line
        path.write_bytes(whole[:end])
        assert steps(path) == [1, 2]
    write_steps(tmp_path, 3, 4, start_step=2)
    assert steps(path) == [1, 2, 3, 4]


def test_a_last_line_without_its_newline_is_kept_apart_from_the_next(tmp_path: Path) -> None:
    path = write_steps(tmp_path, 1, 2)
    path.write_bytes(path.read_bytes()[:-1])
    write_steps(tmp_path, 3, 3, start_step=2)
    assert steps(path) == [1, 2, 3]


def test_damage_before_the_last_line_is_named(tmp_path: Path) -> None:
    path = write_steps(tmp_path, 1, 3)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:7], lines[2]]) + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2, is not JSON"):
        read_metrics(path)
    with pytest.raises(InputError, match="line 2"):
        JsonlTracker(tmp_path, 3)
    assert path.read_text().count("\n") == 3  # nothing was thrown away


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write the metrics file") as caught:
        JsonlTracker(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


class FullDisk:
    """A file on a disk with room for a few more bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = min(self.room, len(data))
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 5])
def test_a_full_disk_is_one_line(tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log(1, {"meta/loss": 1.0})
    with monkeypatch.context() as patched:
        patched.setattr(tracker, "_file", FullDisk(room))
        with pytest.raises(InputError, match="No space left on device; free some space"):
            tracker.log(2, {"meta/loss": 1.0})
    tracker.close()
    assert steps(tracker.path) == [1]


def test_fanout_passes_everything_on(tmp_path: Path) -> None:
    left, right = JsonlTracker(tmp_path / "left"), JsonlTracker(tmp_path / "right")
    fanout = Fanout([left, right])
    fanout.log(1, {"meta/loss": 2.0})
    fanout.close()
    for tracker in (left, right):
        assert read_metrics(tracker.path) == [{"step": 1, "meta/loss": 2.0}]
        with pytest.raises(ValueError, match="closed"):
            tracker.log(2, {})
