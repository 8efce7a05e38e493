"""The cache's place, and folders that appear in it whole or not at all."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from innerloop.cache import build_once, cache_folder


def fill(folder: Path) -> None:
    """A slow build that leaves a trace of its own in a log beside the target."""
    with (folder.parent / "builds.log").open("a") as log:
        log.write(f"{os.getpid()}\n")
    (folder / "first").write_text("1")
    time.sleep(0.3)
    (folder / "second").write_text("2")


def build(target: Path) -> None:
    build_once(target, fill)


def test_the_variable_names_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"


def test_the_platform_names_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INNERLOOP_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "innerloop"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "innerloop"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "innerloop"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert cache_folder() == tmp_path / "Local" / "innerloop"


def test_a_folder_is_built_once(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    assert build_once(target, fill) == target
    assert build_once(target, fill) == target
    assert sorted(path.name for path in target.iterdir()) == ["first", "second"]
    assert len((target.parent / "builds.log").read_text().splitlines()) == 1


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise OSError("no space left")

    target = tmp_path / "target"
    with pytest.raises(OSError, match="no space left"):
        build_once(target, fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    build_once(target, fill)
    assert not (target / "half").exists()


def test_processes_that_race_build_once(tmp_path: Path) -> None:
    target = tmp_path / "target"
    processes = [multiprocessing.Process(target=build, args=(target,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len((tmp_path / "builds.log").read_text().splitlines()) == 1
    assert sorted(path.name for path in target.iterdir()) == ["first", "second"]


def test_a_killed_build_is_begun_again(tmp_path: Path) -> None:
    target = tmp_path / "target"
    process = multiprocessing.Process(target=build, args=(target,))
    process.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / ".target.partial" / "first").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert not target.exists()
    build_once(target, fill)
    assert sorted(path.name for path in target.iterdir()) == ["first", "second"]
    assert not (tmp_path / ".target.partial").exists()
