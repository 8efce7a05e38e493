"""A library of models that the jobs of these tests may name."""

from pathlib import Path

import pytest

from service.kinds.running import library


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A library with the tiny model. Shared: do not write to it."""
    return library(tmp_path_factory.mktemp("library") / "shelf", tiny_model)
