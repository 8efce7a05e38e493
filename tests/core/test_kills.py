"""SIGKILL at any moment: before every file operation of a checkpoint, and anywhere in a run."""

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.checkpoints import content_of, names, writer
from core.toy import assert_same_state, rows
from core.victim import MODEL, PAUSE, started, train_slowly, watched
from innerloop.core.checkpoint import CheckpointFolder, RunState


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


# A checkpoint killed before each of its file operations

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink"}


def changes_files(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an event of the interpreter is an operation that changes the disk."""
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    return event in CHANGES


def killed_before(operation: int, work: Callable[[], object]) -> bool:
    """Does the work in a child that SIGKILL ends before its nth file operation; false if it got through."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if changes_files(event, arguments):
                seen += 1
                if seen == operation:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(count)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the work failed by itself: {status}"
    return status != 0


def kills(prepare: Callable[[], object], work: Callable[[], object]) -> Iterator[int]:
    """Prepares and kills the work before its first operation, before its second, until it gets through."""
    for operation in itertools.count(1):
        prepare()
        if not killed_before(operation, work):
            assert operation > 1, "no operation was seen"
            return
        yield operation


def copied(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, target, symlinks=True)


def hidden(folder: Path) -> set[str]:
    return {name for name in names(folder) if name.startswith(".")}


def assert_whole(checkpoints: CheckpointFolder, latest: set[str]) -> None:
    """Each checkpoint is whole, and ``latest`` shows one of the given contents if there is any."""
    if latest:
        assert content_of(checkpoints.folder / "latest") in latest
    for step in checkpoints.steps():
        assert content_of(checkpoints.path(step)) in {"new", f"old {step}"}


@pytest.mark.parametrize(
    ("old_steps", "step", "keep"),
    [
        pytest.param((), 1, -1, id="the first"),
        pytest.param((1,), 2, 1, id="one more, the old one pruned"),
        pytest.param((1, 2), 2, -1, id="the newest again"),
        pytest.param((1, 2, 3), 2, 1, id="an earlier one again, the others pruned"),
    ],
)
def test_a_kill_anywhere_leaves_whole_checkpoints(
    folder: Path, tmp_path: Path, old_steps: tuple[int, ...], step: int, keep: int
) -> None:
    before = tmp_path / "before"
    for old in old_steps:
        CheckpointFolder(before).save(old, writer(f"old {old}"))
    checkpoints = CheckpointFolder(folder, keep)
    old_or_new = {"new", f"old {old_steps[-1]}"} if old_steps else set()

    def save() -> None:
        checkpoints.save(step, writer("new"))

    for operation in kills(lambda: copied(before, folder), save):
        # Killed in the middle of a replacement, ``latest`` may show the checkpoint that is being replaced.
        assert_whole(checkpoints, old_or_new and old_or_new | {f"old {step}"})
        if operation % 2:  # the next run tidies when it starts, or when it first saves
            checkpoints.tidy()
            assert_whole(checkpoints, old_or_new)
        save()
        assert checkpoints.latest() == checkpoints.path(step)
        assert content_of(folder / "latest") == "new"
        assert len(checkpoints.steps()) == (1 if keep == 1 else len({*old_steps, step}))
        assert not hidden(folder)


def test_a_kill_while_recovering_from_a_kill_leaves_whole_checkpoints(folder: Path, tmp_path: Path) -> None:
    before, dead = tmp_path / "before", tmp_path / "dead"
    for old in (1, 2):
        CheckpointFolder(before).save(old, writer(f"old {old}"))
    checkpoints = CheckpointFolder(folder)
    seen = set()
    for _ in kills(lambda: copied(before, folder), lambda: checkpoints.save(2, writer("new"))):
        state = frozenset(names(folder)), (folder / "latest").readlink()
        if state in seen or not hidden(folder):
            continue
        seen.add(state)
        copied(folder, dead)
        for _ in kills(lambda: copied(dead, folder), checkpoints.tidy):
            assert_whole(checkpoints, {"new", "old 2"})
        assert_whole(checkpoints, {"new", "old 2"})
        assert names(folder) == {"step_1", "step_2", "latest"}
    assert len(seen) > 3


# A run killed anywhere

KILLS = 10
TOTAL_STEPS = 3 * KILLS + 5  # each attempt gets three steps further at most


def assert_run_is_whole(folder: Path) -> None:
    """``latest`` and every checkpoint can be loaded, and the metrics can be read."""
    checkpoints = CheckpointFolder(folder)
    for step in checkpoints.steps():
        checkpoint = checkpoints.path(step)
        assert RunState.read(checkpoint).values["step"] == step
        assert (checkpoint / MODEL).read_text() == f"the model of step {step}"
    if checkpoints.steps():
        newest = (folder / "latest").resolve(strict=True)
        assert newest == checkpoints.latest()
        assert (newest / MODEL).exists()
    rows(folder)


def test_ten_kills_and_resumes_end_where_an_uninterrupted_run_does(tmp_path: Path) -> None:
    chance = random.Random(2)
    folder = tmp_path / "killed"
    while_writing = 0
    for kill in range(KILLS):
        with started(train_slowly, folder, TOTAL_STEPS) as (process, channel):
            moment = ("writing", "drawing", "adapting")[kill % 3]
            for _ in range(chance.randint(1, 3)):
                while not channel.recv().startswith(moment):
                    pass
            time.sleep(chance.uniform(0, 1.5 * PAUSE))
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
        while_writing += any(name.endswith(".writing") for name in names(folder))
        assert_run_is_whole(folder)
    assert while_writing > 0
    assert 0 < CheckpointFolder(folder).steps()[-1] < TOTAL_STEPS

    straight = watched(tmp_path / "straight", TOTAL_STEPS, lambda _where: None).trainer().fit()
    resumed = watched(folder, TOTAL_STEPS, lambda _where: None).trainer().fit()
    assert_same_state(resumed, straight)
    assert rows(folder) == rows(tmp_path / "straight")
    assert_run_is_whole(folder)
    assert not hidden(folder)
