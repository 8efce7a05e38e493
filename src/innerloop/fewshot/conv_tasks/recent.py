"""The last few results of a computation."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Results found again by the very objects they were made from, which must not have changed.

    Args:
        room: the sizes of what is kept come to so much at most; the oldest goes first.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._entries: list[tuple[tuple[Any, ...], Value, int]] = []

    def get(self, sources: tuple[Any, ...], make: Callable[[], Value], size: int = 1) -> Value:
        """The result made from these objects, now or before; one larger than the room is not kept."""
        for known, value, _ in self._entries:
            if len(known) == len(sources) and all(a is b for a, b in zip(known, sources, strict=True)):
                return value
        # Room is made first, so that no more than it holds is ever there.
        while self._entries and sum(entry[2] for entry in self._entries) + size > self._room:
            del self._entries[0]
        value = make()
        if size <= self._room:
            self._entries.append((sources, value, size))
        return value
