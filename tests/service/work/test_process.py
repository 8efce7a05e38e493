"""A job's process: asked to stop, made to stop, and told no secrets."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.service.jobs.job import Kind
from innerloop.service.kinds import KINDS
from innerloop.service.work import lifeline, process
from innerloop.service.work.child import INTERRUPTED
from innerloop.service.work.folder import JobFolder, Order
from innerloop.service.work.process import SECRETS, JobProcess

from .at_work import until

Starting = Callable[..., tuple[JobFolder, JobProcess]]


@pytest.fixture
def start(stand_in: None, tmp_path: Path) -> Iterator[Starting]:
    started = []

    def start(words: str, lease: float = 60.0, grace: float = 30.0) -> tuple[JobFolder, JobProcess]:
        folder = JobFolder(tmp_path / "a1")
        request = KINDS[Kind.TASKS].request.model_validate(
            {**KINDS[Kind.TASKS].example, "description": words}
        )
        folder.give(Order(Kind.TASKS, request.model_dump(mode="json"), {}, None))
        started.append(JobProcess(folder, lease, grace))
        return folder, started[-1]

    yield start
    for each in started:
        each.close()


def ended(job: JobProcess) -> int:
    until(lambda: job.status() is not None)
    status = job.status()
    assert status is not None
    return status


def saved(folder: JobFolder) -> bool:
    return folder.checkpoint() is not None


def test_one_that_ends_says_how(start: Starting) -> None:
    folder, job = start("steps:2")
    assert ended(job) == 0
    assert not job.interrupted
    outcome = folder.outcome()
    assert outcome is not None
    assert (outcome.results, outcome.model_path) == ({"steps": 2}, str(folder.path / "run"))


def test_one_that_is_asked_to_stop_saves_first(start: Starting) -> None:
    folder, job = start("steps:1000")
    until(lambda: saved(folder))
    job.ask_to_stop()
    job.ask_to_stop()
    assert ended(job) == INTERRUPTED
    assert job.interrupted
    assert folder.outcome() is None


def test_one_that_does_not_heed_is_killed_after_the_grace(start: Starting) -> None:
    folder, job = start("deaf", grace=1.0)
    until(lambda: (folder.path / "deaf").exists())
    asked = time.monotonic()
    while job.status() is None:
        job.ask_to_stop()
        time.sleep(0.02)
    assert 1.0 < time.monotonic() - asked < 30
    assert job.status() == -signal.SIGKILL
    assert job.interrupted


def test_one_that_was_killed_unasked_was_not_interrupted(start: Starting) -> None:
    folder, job = start("steps:1000")
    until(lambda: saved(folder))
    job.kill()
    job.kill()
    assert job.status() == -signal.SIGKILL
    assert not job.interrupted


def test_killing_it_ends_what_it_has_started(
    start: Starting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    monkeypatch.setattr(process, "PROGRAM", (sys.executable, "-c", code))
    folder, job = start("")
    until(lambda: folder.log.read_text().strip())
    job.kill()
    until(lambda: not alive(int(folder.log.read_text())))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_silence_of_its_worker_counts_as_being_asked(start: Starting) -> None:
    folder, job = start("steps:1000", lease=3.0)
    until(lambda: saved(folder))
    assert ended(job) == INTERRUPTED
    assert job.interrupted


def test_closing_lets_it_save(start: Starting) -> None:
    folder, job = start("steps:1000")
    until(lambda: saved(folder))
    job.close()
    assert job.status() == INTERRUPTED


def test_closing_does_not_wait_until_the_lease_is_over(start: Starting) -> None:
    folder, job = start("deaf", lease=3.0)
    until(lambda: (folder.path / "deaf").exists())
    job.close()
    assert job.status() == -signal.SIGKILL
    job.close()


def test_a_beat_to_one_that_has_ended_does_no_harm(start: Starting) -> None:
    _, job = start("crash:3")
    assert ended(job) == 3
    job.beat()
    job.close()


def test_no_secret_is_in_its_environment(start: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "hush-hush")
    monkeypatch.setenv("HARMLESS", "told")
    folder, job = start(" ".join(f"say:{name}" for name in (*SECRETS, "HARMLESS")))
    assert ended(job) == 0
    said = folder.log.read_text()
    assert [line for line in said.splitlines() if " is " in line] == [
        *(f"{name} is None" for name in SECRETS),
        "HARMLESS is told",
    ]


def test_two_never_work_in_a_folder_at_once(start: Starting) -> None:
    folder, first = start("steps:1000")
    until(lambda: saved(folder))
    second = JobProcess(folder, 60.0, 30.0)
    done = int((folder.path / "run" / "latest").read_text())
    until(lambda: int((folder.path / "run" / "latest").read_text()) > done + 20)
    assert second.status() is None
    first.close()
    until(lambda: len(folder.metrics.read_text().splitlines()) > done + 40)
    second.close()
    steps = [line.partition(",")[0] for line in folder.metrics.read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in range(1, len(steps) + 1)]


def test_one_that_waits_for_another_too_long_gives_up(start: Starting, tmp_path: Path) -> None:
    folder, first = start("steps:1000")
    until(lambda: saved(folder))
    code = (
        "import sys; from innerloop.service.work import child, lifeline; lifeline.GRACE = 0.1; "
        "lifeline.hold = lambda seconds: None; sys.exit(child.main(sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", code, str(folder.path), "--lease", "1"]
    second = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert second.returncode == lifeline.LOST
    assert "another process works in" in second.stdout
    assert first.status() is None


def test_one_that_cannot_be_started_is_told_in_a_line(
    start: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PROGRAM", ("/no/such/program",))
    with pytest.raises(InputError, match="cannot be started"):
        start("")


def test_a_ctrl_c_at_the_terminal_does_not_reach_it(start: Starting) -> None:
    folder, _ = start("steps:1000")
    until(lambda: saved(folder))
    pid = next(int(entry.name) for entry in Path("/proc").iterdir() if works_in(folder, entry.name))
    assert os.getpgid(pid) == pid != os.getpgrp()


def works_in(folder: JobFolder, pid: str) -> bool:
    try:
        return str(folder.path) in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return False
