"""W&B beside the store: one run a job, continued when the job goes on, and harmless when it fails."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from innerloop.service.jobs.job import Job, Kind, MetricValue
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore
from innerloop.service.work import mirror
from innerloop.service.work.folder import JobFolder, Mirrored
from innerloop.service.work.mirror import NoMirror, WandbMirror, mirror_of

from .at_work import folder_of, now, quick, rows, submit, until, until_state, until_step, working
from .kills import processes

pytest.importorskip("wandb")

pytestmark = pytest.mark.usefixtures("stand_in")

MIRRORED = "until:wandb/mirrored.json"
BROKEN = "def init(**_):\n    raise RuntimeError('no such project')\nSettings = dict\nRun = object\n"
HANGING = "import time\n\ndef init(**_):\n    time.sleep(600)\nSettings = dict\nRun = object\n"

NOTING = (
    "import json, pathlib\n\ndef init(**given):\n"
    "    pathlib.Path(given['dir'], 'config.json').write_text(json.dumps(given['config']))\n"
    "    raise RuntimeError('noted')\nSettings = dict\nRun = object\n"
)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    yield
    for pid in mirrors(home):
        os.kill(pid, signal.SIGKILL)


def mirrors(home: Path) -> list[int]:
    return [pid for pid, words in processes(home) if "innerloop.service.work.wandb_process" in words]


def recorded(folder: JobFolder, home: Path) -> list[tuple[str, str, int, dict[str, float]]]:
    """Run's id and name, step and values of every step in W&B's records of a job, oldest record first."""
    from tracking.test_wandb import records

    until(lambda: not mirrors(home))
    found = []
    for path in sorted(
        folder.wandb.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime
    ):
        run = name = ""
        for record in records(path):
            if record.HasField("run"):
                run, name = record.run.run_id, record.run.display_name
            if record.HasField("history"):
                items = record.history.item
                values = {"".join(item.nested_key) or item.key: float(item.value_json) for item in items}
                step = int(values["_step"])
                found.append((run, name, step, {key: values[key] for key in values if key[0] != "_"}))
    return found


def use_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wandb: str) -> None:
    """Lets W&B's process find this text as the library."""
    (tmp_path / "instead").mkdir()
    (tmp_path / "instead" / "wandb.py").write_text(wandb)
    before = os.environ.get("PYTHONPATH")
    paths = [str(tmp_path / "instead"), *([before] if before else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.mark.usefixtures("offline")
def test_a_job_has_one_run_with_its_name_and_the_names_of_the_store(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, f"steps:3 {MIRRORED} steps:6", name="my job")
    with working(jobs, quick(home)):
        done = until_state(jobs, job, State.COMPLETED)
    run, names = done.wandb_run_id, {"ppo/loss", "ppo/perf/seconds"}
    found = recorded(folder_of(home, job), home)
    assert [each[:3] for each in found] == [(run, "my job", step) for step in range(1, 7)]
    assert all(set(values) == names for *_, values in found)
    assert [(step, "ppo/loss", values["ppo/loss"]) for *_, step, values in found] == rows(jobs, job)


@pytest.mark.usefixtures("offline")
def test_a_resumed_job_continues_its_run_and_repeats_nothing(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, f"steps:3 {MIRRORED} steps:120")
    with working(jobs, quick(home)):
        until_step(jobs, job, 10)
        assert jobs.move(job.id, State.RUNNING, State.PAUSING)
        first = until_state(jobs, job, State.PAUSED).wandb_run_id
        assert first is not None
        assert jobs.move(job.id, State.PAUSED, State.QUEUED)
        assert until_state(jobs, job, State.COMPLETED).wandb_run_id == first
    found = recorded(folder_of(home, job), home)
    assert [(run, step) for run, _, step, _ in found] == [(first, step) for step in range(1, 121)]


@pytest.mark.usefixtures("offline")
def test_jobs_have_runs_of_their_own(jobs: JobStore, home: Path) -> None:
    both = [submit(jobs, f"steps:1 {MIRRORED}", name=name) for name in ("one", "two")]
    with working(jobs, quick(home)):
        ids = {until_state(jobs, job, State.COMPLETED).wandb_run_id for job in both}
    assert None not in ids
    assert len(ids) == 2


@pytest.mark.usefixtures("offline")
def test_when_its_process_is_killed_the_job_goes_on_and_later_its_run_too(jobs: JobStore, home: Path) -> None:
    job = submit(jobs, f"steps:3 {MIRRORED} steps:60")
    with working(jobs, quick(home)):
        run = until(lambda: now(jobs, job).wandb_run_id)
        for pid in until(lambda: mirrors(home)):
            os.kill(pid, signal.SIGKILL)
        done = until_state(jobs, job, State.COMPLETED)
        assert (len(rows(jobs, job)), done.wandb_run_id) == (60, run)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("wandb", [BROKEN, "1 / 0\n"], ids=["init fails", "import fails"])
def test_a_failing_wandb_costs_nothing_else(
    jobs: JobStore, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: str
) -> None:
    use_instead(monkeypatch, tmp_path, wandb)
    job = submit(jobs, "steps:20")
    with working(jobs, quick(home)):
        done = until_state(jobs, job, State.COMPLETED)
        until(lambda: not mirrors(home))
    assert (len(rows(jobs, job)), done.wandb_run_id) == (20, None)
    assert "Error" in folder_of(home, job).wandb_log.read_text()


@pytest.mark.usefixtures("offline")
def test_a_hanging_wandb_costs_nothing_else(
    jobs: JobStore, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_instead(monkeypatch, tmp_path, HANGING)
    monkeypatch.setattr(mirror, "WAITING", 2)
    job = submit(jobs, "steps:60")
    with working(jobs, quick(home)):
        done = until_state(jobs, job, State.COMPLETED)
    assert (len(rows(jobs, job)), done.wandb_run_id) == (60, None)


@pytest.mark.usefixtures("offline")
def test_what_people_gave_to_learn_from_does_not_go_to_wandb(
    jobs: JobStore, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_instead(monkeypatch, tmp_path, NOTING)
    job = submit(jobs, "steps:3", Kind.ADAPTATION)
    noted = folder_of(home, job).wandb / "config.json"
    with working(jobs, quick(home)):
        until_state(jobs, job, State.COMPLETED)
        until(noted.exists)
    text = noted.read_text()
    assert job.id in text
    assert "steps" in text
    assert "invoice" not in text
    assert "examples" not in text


def test_a_hanging_wandb_ends_some_time_after_its_job(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text(HANGING)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pathlib import Path\n"
        "from innerloop.service.work import wandb_process\n"
        "from innerloop.service.work.folder import JobFolder\n"
        "wandb_process.SECONDS_TO_END = 0.5\n"
        f"wandb_process.main(JobFolder(Path({str(tmp_path)!r})))"
    )
    about = '{"project": "p", "experiment": "e", "config": {}}\n'
    ended = subprocess.run([sys.executable, "-c", code], input=about, text=True, timeout=90, check=False)
    assert ended.returncode == 1


@pytest.mark.usefixtures("offline")
def test_a_folder_that_wandb_cannot_write_to_costs_nothing_else(
    jobs: JobStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", "/proc/nowhere")
    job = submit(jobs, "steps:20")
    folder_of(home, job).path.mkdir(parents=True)
    folder_of(home, job).wandb.write_text("in the way")
    with working(jobs, quick(home)):
        done = until_state(jobs, job, State.COMPLETED)
    assert (len(rows(jobs, job)), done.wandb_run_id) == (20, None)


def test_a_missing_wandb_is_told_once_and_costs_nothing_else(
    jobs: JobStore, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setitem(sys.modules, "wandb", None)
    job = submit(jobs, "steps:2")
    with working(jobs, quick(home)):
        assert until_state(jobs, job, State.COMPLETED).wandb_run_id is None
    assert caplog.text.count("pip install 'innerloop[wandb]'") == 1
    assert "kkkk" not in caplog.text


@pytest.mark.parametrize("environment", [{}, {"WANDB_MODE": "disabled"}, {"WANDB_PROJECT": "p"}])
def test_nobody_asked_for_wandb(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert isinstance(mirror_of(JobFolder(tmp_path), a_job()), NoMirror)


def a_job() -> Job:
    return Job(Kind.TASKS, "a job", "", {}, total_episodes=1)


def test_what_follows_the_last_step_that_wandb_has_is_all_that_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker tells all values again when a job goes on; which of them are new, W&B's process knows."""
    (tmp_path / "instead").mkdir()
    (tmp_path / "instead" / "wandb.py").write_text(
        "class Run:\n"
        "    id = 'same'\n"
        "    def log(self, values, step):\n"
        "        print('log', step, values, flush=True)\n"
        "    def finish(self):\n"
        "        print('finish', flush=True)\n"
        "def init(**_):\n"
        "    return Run()\n"
        "Settings = dict\n"
    )
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "instead"), os.environ.get("PYTHONPATH", "")])
    )
    folder = JobFolder(tmp_path / "a1")
    folder.mirror(Mirrored("same", 2))
    sending = WandbMirror(folder, a_job())
    sending.log([MetricValue(step, name, step / 2) for step in (1, 2, 3) for name in ("a", "b")])
    sending.close()
    until(lambda: "finish" in folder.wandb_log.read_text() if folder.wandb_log.exists() else False)
    assert folder.wandb_log.read_text() == "log 3 {'a': 1.5, 'b': 1.5}\nfinish\n"
    assert folder.mirrored() == Mirrored("same", 3)
