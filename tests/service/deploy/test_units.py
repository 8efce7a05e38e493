"""systemd takes the unit files, finds little to object to, and gives jobs the time to be saved."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from innerloop.service.work.settings import WorkerSettings
from service.deploy.files import UNITS, unit_settings

MOST_EXPOSED = 20
"""Tenths of systemd's points for what a service may do that it might not have to; a unit without any
hardening has 96."""

GRACE = WorkerSettings("any", Path()).grace

analysed = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed (apt-get install systemd)",
)


@pytest.fixture(params=UNITS, ids=lambda unit: unit.name)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit file whose program is one that every machine has."""
    found: Path = request.param
    text = found.read_text()
    assert text.count("/opt/innerloop/bin/innerloop") == 1
    copy = tmp_path / found.name
    copy.write_text(text.replace("/opt/innerloop/bin/innerloop", shutil.which("true") or "/bin/true"))
    return copy


def analyse(*words: str | Path) -> str:
    found = subprocess.run(
        ["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, timeout=60
    )
    said = found.stdout + found.stderr
    assert found.returncode == 0, said
    return said


@analysed
def test_a_unit_is_one_that_systemd_takes(unit: Path) -> None:
    # It warns, too, of machines' own units; what it says of ours is what matters.
    assert not [line for line in analyse("verify", unit).splitlines() if unit.name in line]


@analysed
def test_a_unit_may_do_little(unit: Path) -> None:
    analyse("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", unit)


def test_there_is_a_unit_of_each() -> None:
    assert [unit.name for unit in UNITS] == ["innerloop-worker@.service", "innerloop.service"]


@pytest.mark.parametrize("file", UNITS, ids=lambda unit: unit.name)
def test_a_stop_leaves_the_time_to_save(file: Path) -> None:
    settings = unit_settings(file)
    (seconds,) = settings["TimeoutStopSec"]
    # Streams end in 5 seconds; workers get 10 more than their jobs.
    assert float(seconds) > GRACE + 15
    # Else systemd itself would end the jobs' processes together with those that watch over them.
    assert settings["KillMode"] == ["mixed"]


@pytest.mark.parametrize("file", UNITS, ids=lambda unit: unit.name)
def test_a_unit_may_write_where_it_is_told_to(file: Path) -> None:
    settings = unit_settings(file)
    given = dict(pair.split("=", 1) for line in settings["Environment"] for pair in line.split())
    assert given["INNERLOOP_HOME"] == f"/var/lib/{settings['StateDirectory'][0]}"
    assert given["INNERLOOP_CACHE"] == f"/var/cache/{settings['CacheDirectory'][0]}"
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["NoNewPrivileges"] == ["yes"]
    # Secrets come from a file, never from a unit that everybody may read.
    assert not re.search(r"TOKEN|PASSWORD|KEY", " ".join(settings["Environment"]))


def test_both_units_are_confined_alike() -> None:
    own = {"Description", "ExecStart"}
    worker, service = ({n: v for n, v in unit_settings(unit).items() if n not in own} for unit in UNITS)
    assert worker == service
