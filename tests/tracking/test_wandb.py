"""The W&B sink: offline for real, and every way W&B can fail a run that must go on."""

import logging
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from innerloop.tracking.wandb import RUN_ID_FILE, WandbTracker

# An offline record is a log of protocol buffers in LevelDB's format: after seven bytes of its own, blocks of
# 32 KiB with pieces of (checksum 4, length 2, type 1, data), a record's last piece being of type 1 or 4.
FILE_HEADER, BLOCK, PIECE = 7, 32 * 1024, struct.Struct("<IHB")
LAST_PIECES = (1, 4)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    yield
    wandb.teardown()


def records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    data, position, whole = path.read_bytes(), FILE_HEADER, b""
    while position + PIECE.size <= len(data):
        if BLOCK - position % BLOCK < PIECE.size:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = PIECE.unpack_from(data, position)
        position += PIECE.size + length
        whole += data[position - length : position]
        if kind in LAST_PIECES:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def recorded(folder: Path) -> list[tuple[str, int, float]]:
    """(run id, step, meta/loss) of every step in the folder's offline records, oldest record first."""
    # Finishing a run returns before its file is whole; ending W&B's own process waits for that.
    wandb.teardown()
    rows = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        run_id = ""
        for record in records(path):
            if record.HasField("run"):
                run_id = record.run.run_id
            if record.HasField("history"):
                values = {
                    "".join(item.nested_key) or item.key: item.value_json for item in record.history.item
                }
                rows.append((run_id, int(values["_step"]), float(values["meta/loss"])))
    return rows


def test_offline_metrics_are_recorded_and_a_resumed_run_continues_the_same_one(tmp_path: Path) -> None:
    first = WandbTracker(tmp_path, "project", "experiment", {"folder": tmp_path, "meta": {"inner_lr": 0.5}})
    first.log(1, {"meta/loss": 2.0})
    first.log(2, {"meta/loss": 1.5})
    first.close()
    resumed = WandbTracker(tmp_path, "project", "experiment", {}, start_step=2)
    resumed.log(3, {"meta/loss": 1.25})
    resumed.close()
    run_id = (tmp_path / RUN_ID_FILE).read_text()
    assert recorded(tmp_path) == [(run_id, 1, 2.0), (run_id, 2, 1.5), (run_id, 3, 1.25)]


def test_a_run_from_the_start_is_a_new_one(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        WandbTracker(tmp_path, "project", "experiment", {}).close()
        ids.append((tmp_path / RUN_ID_FILE).read_text())
    assert ids[0] != ids[1]


def test_two_trackers_of_one_process_have_runs_of_their_own(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    trackers = [WandbTracker(folder, "project", "experiment", {}) for folder in folders]
    for number, tracker in enumerate(trackers):
        tracker.log(1, {"meta/loss": float(number)})
    for tracker in trackers:
        tracker.close()
    assert [[loss for _, _, loss in recorded(folder)] for folder in folders] == [[0.0], [1.0]]


class Failing:
    """A W&B run whose network is down."""

    def __init__(self) -> None:
        self.calls = 0

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.calls += 1
        raise wandb.errors.CommError("network\nis down")

    def finish(self) -> None:
        raise TimeoutError("still sending")


def test_a_failing_start_warns_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with caplog.at_level(logging.WARNING):
        tracker = WandbTracker(tmp_path, "project", "experiment", {})
        tracker.log(1, {"meta/loss": 1.0})
        tracker.close()
    (record,) = caplog.records
    assert "could not start the W&B run (UsageError: No API key configured)" in record.message


def test_failing_logs_warn_once_and_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Failing()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    with caplog.at_level(logging.WARNING):
        tracker = WandbTracker(tmp_path, "project", "experiment", {})
        tracker.log(1, {"meta/loss": 1.0})
        tracker.log(2, {"meta/loss": 1.0})
        tracker.close()
    (record,) = caplog.records
    assert "could not log to the W&B run (CommError: network is down)" in record.message
    assert run.calls == 1


def test_a_failing_finish_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: Failing())
    with caplog.at_level(logging.WARNING):
        WandbTracker(tmp_path, "project", "experiment", {}).close()
    (record,) = caplog.records
    assert "could not finish the W&B run (TimeoutError: still sending)" in record.message


def test_a_folder_that_cannot_be_written_costs_wandb_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        tracker = WandbTracker(tmp_path / "file" / "run", "project", "experiment", {})
        tracker.log(1, {"meta/loss": 1.0})
    assert len(caplog.records) == 1


def test_closing_leaves_no_process(tmp_path: Path) -> None:
    tracker = WandbTracker(tmp_path, "project", "experiment", {})
    tracker.log(1, {"meta/loss": 1.0})
    tracker.close()
    wandb.teardown()
    listing = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True).stdout
    assert str(tmp_path) not in listing
