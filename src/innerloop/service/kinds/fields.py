"""Kinds of values that the requests of several kinds of jobs hold, with their bounds.

Numbers are strict: ``"5"`` and ``true`` are no numbers here, as they are none in the OpenAPI schema.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from innerloop.service.kinds.kind import NO_NUL

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Of another job."""

FolderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""Of a folder in the library, or of one that is made for a task: never a path."""

Episodes = Annotated[int, Field(strict=True, ge=1, le=100_000)]
Steps = Annotated[int, Field(strict=True, ge=1, le=1000)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Clusters = Annotated[int, Field(strict=True, ge=1, le=512)]
Rate = Annotated[float, Field(strict=True, gt=0, le=100)]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("holds nothing but white space")
    return text


Passage = Annotated[
    str, StringConstraints(min_length=1, max_length=8000, pattern=NO_NUL), AfterValidator(_not_blank)
]
"""A prompt or a response."""
