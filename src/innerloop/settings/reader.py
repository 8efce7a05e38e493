"""From plain containers to typed settings: every key is known, every value of its type and in its range.

Knows dataclasses and the marks of `constraints`; which keys there are stands in `schema`.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from innerloop.core.errors import InputError
from innerloop.settings.constraints import (
    HomePath,
    NotEmpty,
    OneOrMany,
    Range,
    Shorthand,
    SingleName,
    Spelled,
    refusal,
)

_Section = TypeVar("_Section")


class _Mismatch(Exception):  # noqa: N818 - caught inside this module, where the key and what it admits are known
    """The value at hand is not of the type at hand."""


def key_of(field: Field[Any]) -> str:
    """The YAML key of a field: its name, less the underscore that keeps it from being a Python keyword."""
    return field.name.removesuffix("_")


def hints_of(section: type) -> Mapping[str, Any]:
    """The types of a section's keys, with their marks, by YAML key."""
    hints = get_type_hints(section, include_extras=True)
    return {key_of(field): hints[field.name] for field in fields(section)}


def section_of(hint: Any) -> type | None:
    """The section that a type stands for, also when it may be null; None when it is no section."""
    if is_dataclass(hint) and isinstance(hint, type):
        return hint
    if get_origin(hint) in (Union, UnionType):
        return next((found for found in map(section_of, get_args(hint)) if found), None)
    return None


def known_keys(section: type, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a section, list entries left out."""
    for key, hint in hints_of(section).items():
        yield f"{prefix}{key}"
        if inner := section_of(hint):
            yield from known_keys(inner, f"{prefix}{key}.")


class Reader:
    """Reads one tree of plain containers.

    Args:
        place: tells for a dotted key where its value stood (file and line, or the command line).
        root: the outermost section, whose keys are offered when one is misspelt.
        also_known: dotted keys that are understood besides the schema's (older spellings).
    """

    def __init__(self, place: Callable[[str], str], root: type, also_known: Collection[str] = ()) -> None:
        self._place = place
        self._root = root
        self._also_known = also_known

    def section(self, kind: type[_Section], values: Mapping[str, Any], key: str = "") -> _Section:
        """Builds one section.

        Raises:
            InputError: an unknown key, a missing one, a wrong type, or a value out of range.
        """
        prefix = f"{key}." if key else ""
        hints = hints_of(kind)
        for name in values:
            if name not in hints:
                raise self._unknown(f"{prefix}{name}", [f"{prefix}{known}" for known in hints])
        settings = {}
        for field in fields(kind):  # type: ignore[arg-type]  # kind is a dataclass, which type[_Section] cannot say
            name = key_of(field)
            if name in values:
                settings[field.name] = self.read(hints[name], values[name], f"{prefix}{name}")
            elif field.default is MISSING and field.default_factory is MISSING:
                raise InputError(f"{prefix}{name} is missing ({self._place(key)})")
        return kind(**settings)

    def read(self, hint: Any, value: Any, key: str) -> Any:
        """One value as its type says, or the error that names key, value and what is allowed."""
        try:
            return self._match(hint, value, key)
        except _Mismatch:
            raise refusal(key, value, hint, self._place(key)) from None

    def _match(self, hint: Any, value: Any, key: str) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._marked(arguments[0], arguments[1:], value, key)
        if origin in (Union, UnionType):
            return self._either(arguments, value, key)
        if origin is Literal:
            return _choice(arguments, value)
        if origin is tuple:
            return self._list(arguments, value, key)
        if origin is Mapping:
            return self._open_mapping(arguments[1], value, key)
        if is_dataclass(hint) and isinstance(hint, type):
            if not isinstance(value, dict):
                raise _Mismatch
            return self.section(hint, value, key)
        return _scalar(hint, value)

    def _marked(self, base: Any, marks: tuple[Any, ...], value: Any, key: str) -> Any:
        for mark in marks:
            match mark:
                case OneOrMany() if not isinstance(value, list | dict | NoneType):
                    value = [value]
                case Shorthand() if isinstance(value, str):
                    value = {mark.key: value}
                case Spelled() if isinstance(value, str):
                    value = mark.spellings.get(value.casefold(), value)
                case _:
                    pass  # the other marks judge the value once it is of its type
        value = self._match(base, value, key)
        for mark in marks:
            match mark:
                case Range() if not mark.admits(value):
                    raise _Mismatch
                case NotEmpty() if not (value.strip() if isinstance(value, str) else value):
                    raise _Mismatch
                case SingleName() if (
                    not value.strip() or value in (".", "..") or re.search(r"[/\\\n]", value)
                ):
                    raise _Mismatch
                case HomePath() if value == "~" or value.startswith("~/"):
                    value = str(Path(value).expanduser())
                case _:
                    pass  # handled above, or satisfied
        return value

    def _either(self, alternatives: tuple[Any, ...], value: Any, key: str) -> Any:
        for alternative in alternatives:
            try:
                return self._match(alternative, value, key)
            except _Mismatch:
                continue
        raise _Mismatch

    def _list(self, arguments: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
        open_ended = arguments[-1] is Ellipsis
        if not isinstance(value, list) or not (open_ended or len(value) == len(arguments)):
            raise _Mismatch
        return tuple(self.read(arguments[0], entry, f"{key}[{i}]") for i, entry in enumerate(value))

    def _open_mapping(self, hint: Any, value: Any, key: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise _Mismatch
        return {name: self.read(hint, entry, f"{key}.{name}") for name, entry in value.items()}

    def _unknown(self, key: str, siblings: Collection[str]) -> InputError:
        nearest = _nearest(key, siblings, [*known_keys(self._root), *self._also_known])
        if nearest == key:
            return InputError(f"'{key}' ({self._place(key)}) has a dot; in a file, nest one key in the other")
        return InputError(f"unknown key '{key}' ({self._place(key)}); the nearest known key is '{nearest}'")


def _nearest(key: str, siblings: Collection[str], known: Collection[str]) -> str:
    """The key that was most likely meant: a slip in the same section, else the same name in another one."""
    name, bare = key.rpartition(".")[2], re.sub(r"\[\d+\]", "", key)
    neighbours = [
        *siblings,
        *(other for other in known if other.rpartition(".")[0] == bare.rpartition(".")[0]),
    ]
    if close := difflib.get_close_matches(key.casefold(), neighbours, n=1, cutoff=0.9):
        return close[0]
    if elsewhere := [other for other in known if other.rpartition(".")[2] == name]:
        return elsewhere[0]
    by_name = {other.rpartition(".")[2]: other for other in reversed(neighbours)}
    if close := difflib.get_close_matches(name.casefold(), by_name, n=1, cutoff=0.6):
        return by_name[close[0]]
    return difflib.get_close_matches(bare, neighbours, n=1, cutoff=0.0)[0]


def _choice(choices: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, str):
        value = value.casefold()
    if isinstance(value, bool) or value not in choices:
        raise _Mismatch
    return choices[choices.index(value)]


def _scalar(kind: type, value: Any) -> Any:
    """A scalar of the wanted kind; a float without a fraction is an integer too: ``total_steps: 1e4``."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise _Mismatch
    return value
