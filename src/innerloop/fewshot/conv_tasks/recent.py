"""The last few results of a computation."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Results found again by the very objects they were made from, which must not have changed.

    Args:
        count: results at most; the oldest goes first.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._entries: list[tuple[tuple[Any, ...], Value]] = []

    def get(self, sources: tuple[Any, ...], make: Callable[[], Value]) -> Value:
        """The result made from these objects, now or before."""
        for known, value in self._entries:
            if len(known) == len(sources) and all(a is b for a, b in zip(known, sources, strict=True)):
                return value
        value = make()
        self._entries = [*self._entries[-self._count + 1 :], (sources, value)]
        return value
