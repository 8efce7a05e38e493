"""The backup of a PostgreSQL store as the page has it: dumped in use, put back into one that went on."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from innerloop.service.jobs.job import Job, Kind, MetricValue
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Report
from innerloop.service.stores.opening import open_store
from service.deploy.files import ROOT
from service.servers import postgres_programs


def command(program: str) -> str:
    """The page's line for a program."""
    (found,) = re.findall(rf"^{program} .*$", (ROOT / "docs/deployment.md").read_text(), re.MULTILINE)
    return str(found)


def run(line: str, folder: Path, url: str) -> None:
    programs = postgres_programs()
    assert programs is not None  # there is a server
    environment = os.environ | {"INNERLOOP_STORE": url, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", line], check=True, cwd=folder, env=environment, timeout=120)


def test_a_dump_puts_everything_back(postgres_url: str, tmp_path: Path) -> None:
    programs = postgres_programs()
    assert programs is not None  # there is a server
    if not shutil.which("pg_dump", path=f"{programs}:{os.environ['PATH']}"):
        pytest.skip("pg_dump is not installed (apt-get install postgresql-client)")
    (tmp_path / "backup").mkdir()
    store = open_store(postgres_url)
    kept = store.create(Job(Kind.TASKS, "kept", "", {}, 3))
    store.move(kept.id, State.PENDING, State.QUEUED)
    claim = store.claim("any", 60, 3)
    assert claim is not None
    store.report(claim, Report(step=1, metrics=[MetricValue(1, "ppo/return", 0.5)]), 60)
    kept = store.get(kept.id) or kept
    # While it is open and used.
    run(command("pg_dump"), tmp_path, postgres_url)
    later = store.create(Job(Kind.TASKS, "later", "", {}, 3))
    store.close()

    run(command("pg_restore"), tmp_path, postgres_url)
    store = open_store(postgres_url)
    assert store.get(kept.id) == kept
    assert [value.value for value in store.metrics(kept.id)] == [0.5]
    assert store.get(later.id) is None
    # It is whole: what it holds goes on, and more can be added.
    store.report(claim, Report(step=2, metrics=[MetricValue(2, "ppo/return", 0.7)]), 60)
    assert [value.number for value in store.metrics(kept.id)] == [1, 2]
    store.create(later)
    store.close()
