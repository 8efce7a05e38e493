"""Fixtures of the core's tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def float64_llama() -> Iterator[None]:
    """The tiny Llama computes in float64 throughout; see :func:`core.families.llama_in_double`."""
    from core.families import llama_in_double  # transformers is slow to import and few modules need it

    with llama_in_double():
        yield
