"""A job's folder: orders and outcomes come out as they went in, and no identifier leads elsewhere."""

import json
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Outcome
from innerloop.service.kinds.kind import SourceJob
from innerloop.service.work.folder import JobFolder, JobFolders, Mirrored, Order


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path / "a1")


@pytest.mark.parametrize(
    "order",
    [
        Order(Kind.TASKS, {"name": "größer", "nested": {"values": [1, 0.5, None, True]}}, {}, None),
        Order(
            Kind.TRANSFER,
            {"seed": 3},
            {"a": SourceJob({"x": 1}, Path("/jobs/b/run")), "b": SourceJob({}, None)},
            Path("/library"),
        ),
    ],
)
def test_an_order_is_read_as_it_was_given(folder: JobFolder, order: Order) -> None:
    folder.give(order)
    assert folder.order() == order


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(State.COMPLETED, results={"a": [1.5]}, model_path="/jobs/a1/run"),
        Outcome(State.FAILED, error_message="it could not"),
    ],
)
def test_an_outcome_is_read_as_it_was_answered(folder: JobFolder, outcome: Outcome) -> None:
    folder.answer(outcome)
    assert folder.outcome() == outcome


def test_a_new_order_forgets_the_outcome_of_the_attempt_before(folder: JobFolder) -> None:
    folder.answer(Outcome(State.COMPLETED))
    folder.give(Order(Kind.TASKS, {}, {}, None))
    assert folder.outcome() is None


def test_an_outcome_holds_nothing_that_json_has_no_word_for(folder: JobFolder) -> None:
    with pytest.raises(ValueError, match="JSON"):
        folder.answer(Outcome(State.COMPLETED, results={"loss": float("nan")}))
    assert folder.outcome() is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a1").write_text("a file")
    with pytest.raises(InputError, match="a1"):
        JobFolder(tmp_path / "a1").give(Order(Kind.TASKS, {}, {}, None))


@pytest.mark.parametrize("identifier", ["", "..", "a/b", "../a", "/etc", "a.b", "a b", "a\0", ".lock", "a-b"])
def test_what_is_no_identifier_is_refused(tmp_path: Path, identifier: str) -> None:
    with pytest.raises(InputError, match="no identifier"):
        JobFolders(tmp_path).of(identifier)
    with pytest.raises(InputError, match="no identifier"):
        JobFolders(tmp_path).drop(identifier)


def test_a_dropped_folder_is_gone_and_may_be_dropped_again(tmp_path: Path) -> None:
    folders = JobFolders(tmp_path)
    folders.of("a1").answer(Outcome(State.COMPLETED))
    folders.of("b2").answer(Outcome(State.COMPLETED))
    folders.drop("a1")
    folders.drop("a1")
    assert [path.name for path in tmp_path.iterdir()] == ["b2"]


def test_forgetting_the_run_leaves_the_log(folder: JobFolder) -> None:
    (folder.path / "run").mkdir(parents=True)
    folder.metrics.touch()
    folder.log.touch()
    folder.forget_run()
    folder.forget_run()
    assert [path.name for path in folder.path.iterdir()] == ["log.txt"]


def test_a_run_without_a_checkpoint_has_none(folder: JobFolder) -> None:
    (folder.path / "run").mkdir(parents=True)
    assert folder.checkpoint() is None
    (folder.path / "run" / "latest").touch()
    assert folder.checkpoint() == str(folder.path / "run")


def test_the_log_goes_on_with_a_new_line_after_half_of_one(folder: JobFolder) -> None:
    for text in (b"whole\n", b"half", b"", b"more\n"):
        with folder.open_log() as log:
            log.write(text)
    assert folder.log.read_text() == "whole\nhalf\nmore\n"


def test_what_wandb_has_is_read_as_it_was_written_and_damage_counts_as_nothing(folder: JobFolder) -> None:
    assert folder.mirrored() is None
    folder.mirror(Mirrored("abc", 7))
    assert folder.mirrored() == Mirrored("abc", 7)
    for damaged in ("", "{", "[]", json.dumps({"run_id": "abc"})):
        (folder.wandb / "mirrored.json").write_text(damaged)
        assert folder.mirrored() is None
