"""The desk every end-to-end test works at."""

from pathlib import Path

import pytest

from end_to_end.workbench import Workbench, write_tasks


@pytest.fixture
def workbench(tiny_model: Path, tmp_path: Path) -> Workbench:
    """A fresh desk."""
    return Workbench(tiny_model, write_tasks(tmp_path / "data"), tmp_path / "work")
