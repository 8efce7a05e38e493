"""Jobs on a local Ray cluster, through the command."""

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore

from . import kills
from .at_work import folder_of, log, now, rows, submit, until, until_state, until_step
from .kills import Watcher, innerloop, processes

pytest.importorskip("ray", reason="Ray is not installed: pip install 'innerloop[ray]'")

STEPS = 150


def task_of(home: Path, folder: Path) -> int:
    """The Ray process that supervises the job of a folder."""
    child = next(pid for pid, words in processes(home) if str(folder) in words)
    return int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])


def dispatching(home: Path, url: str) -> "subprocess.Popen[bytes]":
    """The command, once it has a cluster; Ray gives up on one that takes half a minute to start."""
    options = ("--ray", "--ray-cpus", "0.5", "--ray-tasks", "2", "--name", "ray")
    for attempt in range(5):
        log_file = home / f"ray{attempt}.log"
        process = innerloop(home, url, True, "worker", *options, output=log_file.name)
        try:
            if until(partial(_started, process, log_file), 600) == "runs":
                return process
        except AssertionError:
            process.kill()
            process.wait()
            raise
        assert "timed out during startup" in log_file.read_text()
    pytest.skip("this machine is too busy for Ray to start")


def _started(process: "subprocess.Popen[bytes]", log_file: Path) -> str | None:
    if "submits up to 2 tasks" in log_file.read_text():
        return "runs"
    return None if process.poll() is None else "ended"


def test_a_task_runs_each_job_and_one_that_is_lost_is_replaced(
    jobs: JobStore, sqlite_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    both = [submit(jobs, f"steps:{STEPS}"), submit(jobs, f"steps:{STEPS}")]
    dispatcher = dispatching(home, sqlite_url)
    try:
        with Watcher(home).watching() as watcher:
            until_step(jobs, both[0], 3)
            os.kill(task_of(home, folder_of(home, both[0]).path), signal.SIGKILL)
            done = [until_state(jobs, job, State.COMPLETED) for job in both]
        for job in done:
            assert rows(jobs, job) == [(step, "ppo/loss", 1 / step) for step in range(1, STEPS + 1)]
            log(jobs, job)
            assert job.lease is not None
            assert job.lease.worker.startswith("ray/")
        assert done[0].lease is not None
        assert done[0].lease.token > 1
        assert not watcher.together

        unfinished = submit(jobs, "steps:4000")
        until_step(jobs, unfinished, 3)
        dispatcher.terminate()
        assert dispatcher.wait(120) == 0
        given_back = now(jobs, unfinished)
        assert (given_back.state, given_back.losses) == (State.QUEUED, 0)
        assert given_back.model_path == f"{unfinished.id}/run"
    finally:
        dispatcher.kill()
        dispatcher.wait()
    until(lambda: not list(processes(home)))


def test_numbers_that_run_nothing_are_refused() -> None:
    from innerloop.service.work.ray_executor import RayPlan

    with pytest.raises(InputError, match="give 1 or more"):
        RayPlan(most=0)
    with pytest.raises(InputError, match="0 or more"):
        RayPlan(cpus=-1)


def test_a_missing_ray_is_told_in_a_line(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no ray')")
    monkeypatch.setattr(kills, "SITE", tmp_path)
    process = innerloop(home, f"sqlite:///{tmp_path}/jobs.db", True, "worker", "--ray", output="out")
    assert process.wait(240) == 2
    assert (
        (home / "out")
        .read_text()
        .strip()
        .endswith("'ray' is not installed; install it with: pip install 'innerloop[ray]'")
    )
