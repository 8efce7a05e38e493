"""What the tests of workers share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from innerloop.service.jobs.store import JobStore
from innerloop.service.stores.opening import open_store
from innerloop.service.work import process


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tests of W&B have any."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done by the program that stands in."""
    program = (sys.executable, str(Path(__file__).with_name("stand_in.py")))
    monkeypatch.setattr(process, "PROGRAM", program)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of the folder of jobs."""
    return tmp_path / "home"


@pytest.fixture
def jobs(sqlite_url: str) -> Iterator[JobStore]:
    """An empty store."""
    store = open_store(sqlite_url)
    yield store
    store.close()
