"""What a setting may be: the marks put beside a type in the schema, and how they read in an error message.

The schema writes ``Annotated[float, Range(above=0)]``; `reader` enforces it. Nothing here reads a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from innerloop.core.errors import InputError


@dataclass(frozen=True)
class Range:
    """Bounds of a number. Not-a-number and infinities are outside every range."""

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    def admits(self, value: float) -> bool:
        """Whether a number lies inside."""
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {
            "above": self.above,
            "at least": self.at_least,
            "at most": self.at_most,
            "below": self.below,
        }
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)


@dataclass(frozen=True)
class NotEmpty:
    """The text or list must hold something."""


@dataclass(frozen=True)
class SingleName:
    """The text becomes the name of a folder and of metrics, so it may not be a path."""


@dataclass(frozen=True)
class HomePath:
    """A leading ``~`` stands for the user's home folder."""


@dataclass(frozen=True)
class OneOrMany:
    """One value may stand for a list of one."""


@dataclass(frozen=True)
class Shorthand:
    """A bare text stands for a section with only this key set."""

    key: str


class Spelled:
    """Other spellings of the choices, as users have them in their files: pairs of theirs and ours."""

    def __init__(self, *spellings: tuple[str, str]) -> None:
        self.spellings = dict(spellings)


def describe(hint: Any) -> str:
    """What a value of this type may be, in the words of an error message."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _describe_marked(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return " or ".join(describe(alternative) for alternative in arguments)
    if origin is Literal:
        choices = [str(choice) for choice in arguments]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if origin is tuple:
        if arguments[-1] is not Ellipsis:
            return f"a list of {len(arguments)} values, each {describe(arguments[0])}"
        return f"a list, each entry {describe(arguments[0])}"
    if is_dataclass(hint) or origin is Mapping:
        return "a section with keys of its own"
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        str: "text",
        NoneType: "null",
    }
    return words[hint]


def _describe_marked(base: Any, marks: tuple[Any, ...]) -> str:
    words = describe(base)
    for mark in marks:
        match mark:
            case Range():
                words = f"{words} {mark}"
            case NotEmpty():
                words = f"{words} (not empty)"
            case SingleName():
                words = "a name without slashes"
            case Shorthand():
                words = f"a {mark.key} or {words}"
            case OneOrMany():
                words = f"{describe(get_args(base)[0])}, or {words}"
            case _:
                pass  # spellings and home folders widen what is read, not what is allowed
    return words


def show(value: object) -> str:
    """A value as YAML would write it, cut short, for an error message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def refusal(key: str, value: object, hint: Any, place: str) -> InputError:
    """The one line for a value that its key does not admit."""
    return InputError(f"{key} must be {describe(hint)}, not {show(value)} ({place})")
