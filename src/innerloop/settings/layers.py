"""The layers that settings come from: YAML files and ``key=value`` words, each value with the place it stood.

OmegaConf parses them and resolves what refers to other keys. Which keys there are is not known here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from innerloop.core.errors import InputError
from innerloop.settings.constraints import show

COMMAND_LINE = "command line"

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True, eq=False)
class Layer:
    """Settings of one origin.

    Attributes:
        name: the origin in an error message, for example the file as the user wrote it.
        values: nested plain containers, interpolations not yet resolved.
        places: dotted key to ``file:line``; keys that are not listed stand somewhere in ``name``.
    """

    name: str
    values: dict[str, Any]
    places: Mapping[str, str]

    def place(self, key: str) -> str:
        """Where a key of this layer stood."""
        while key and key not in self.places:
            key = _parent(key)
        return self.places.get(key, self.name)


class Stack:
    """Layers merged in order, later ones over earlier ones, with the place of every value.

    Args:
        base: the first layer, which gives the defaults.
    """

    def __init__(self, base: Layer) -> None:
        self.values: dict[str, Any] = {}
        self._base = base
        self._origin: dict[str, Layer] = {}
        self.push(base)

    def push(self, layer: Layer) -> None:
        """Merges a layer over those before. An empty section says nothing; a list replaces the one before.

        Raises:
            InputError: a section is given as a value, or a list as a section.
        """
        self.values = _merged(self.values, layer.values, layer, "")
        for key, value in _walk(layer.values):
            if isinstance(value, list):  # it replaces the whole list, so the places of the old entries go
                for old in [old for old in self._origin if old.startswith(f"{key}[")]:
                    del self._origin[old]
            self._origin[key] = layer

    def resolved(self) -> dict[str, Any]:
        """The merged containers with ``${...}`` resolved.

        Raises:
            InputError: an interpolation names nothing, or goes in a circle.
        """
        try:
            return _plain(OmegaConf.create(self.values), resolve=True)
        except OmegaConfBaseException as error:
            key = str(error.full_key)
            raise InputError(f"{key} cannot be resolved: {_first_line(error)} ({self.place(key)})") from error

    def place(self, key: str) -> str:
        """Where the value in force for a key stood; for an absent key, where its section did."""
        layer = self._layer(key)
        return layer.place(key) if layer else "nowhere"

    def is_given(self, key: str) -> bool:
        """Whether a layer over the defaults set the value in force."""
        return self._origin.get(key, self._base) is not self._base

    def _layer(self, key: str) -> Layer | None:
        while key and key not in self._origin:
            key = _parent(key)
        return self._origin.get(key)


def read_yaml(path: Path, name: str | None = None) -> Layer:
    """Reads one settings file.

    Args:
        path: the file.
        name: what messages call it; the path itself when left out.

    Raises:
        InputError: the file cannot be read, is not YAML (with the line), or is not a list of keys.
    """
    name = name or str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read settings file {name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"settings file {name} is not UTF-8 text (byte {error.start})") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return Layer(name, {}, {})
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"settings file {name} must hold 'key: value' lines, not {root.id} content")
        places = {key: f"{name}:{line}" for key, line in _lines(root, "")}
        values = _plain(OmegaConf.load(io.StringIO(text)), resolve=False)
    except yaml.YAMLError as error:
        raise InputError(f"{name}:{_line(error, text)}: broken YAML: {_first_line(error)}") from error
    except OmegaConfBaseException as error:
        place = Layer(name, {}, places).place(str(error.full_key or ""))
        raise InputError(f"{place}: cannot be read: {_first_line(error)}") from error
    except RecursionError:
        raise InputError(f"settings file {name} is nested too deeply or refers to itself") from None
    return Layer(name, values, places)


def read_overrides(words: Sequence[str], name: str = COMMAND_LINE) -> Layer:
    """Reads ``section.key=value`` words. A value is YAML: ``[a, b]``, ``null``, ``1e-4``.

    Raises:
        InputError: a word is not of that form, or its value is broken.
    """
    stack = Stack(Layer(name, {}, {}))
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise InputError(f"override {word!r} ({name}) is not of the form section.key=value")
        try:
            values = _plain(OmegaConf.from_dotlist([word]), resolve=False)
        except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
            raise InputError(
                f"{key}: cannot read the value {value!r} ({name}): {_first_line(error)}"
            ) from error
        except RecursionError:
            raise InputError(f"{key}: the value ({name}) is nested too deeply") from None
        stack.push(Layer(name, values, {}))
    return Layer(name, stack.values, {})


def _plain(container: Any, resolve: bool) -> dict[str, Any]:
    content = OmegaConf.to_container(container, resolve=resolve, throw_on_missing=resolve)
    return _text_keys(content)  # type: ignore[no-any-return]  # a mapping in, a mapping out


def _text_keys(value: Any) -> Any:
    """YAML has numbers and booleans as keys; no setting does, so they become text and are found unknown."""
    if isinstance(value, dict):
        return {str(key): _text_keys(entry) for key, entry in value.items()}
    return [_text_keys(entry) for entry in value] if isinstance(value, list) else value


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key below a container, sections before what they hold."""
    if isinstance(value, dict):
        entries = [(f"{key}.{name}" if key else name, entry) for name, entry in value.items()]
    elif isinstance(value, list):
        entries = [(f"{key}[{i}]", entry) for i, entry in enumerate(value)]
    else:
        return
    for inner, entry in entries:
        yield inner, entry
        yield from _walk(entry, inner)


def _merged(base: dict[str, Any], over: dict[str, Any], layer: Layer, prefix: str) -> dict[str, Any]:
    """Both in new containers. Unlike OmegaConf's merge it can say which key changed its shape, and where."""
    result = dict(base)
    for name, value in over.items():
        key, old = f"{prefix}{name}", base.get(name)
        if isinstance(old, dict) and value is None:
            continue
        if isinstance(old, dict) and not isinstance(value, dict):
            words = f"must be a section with keys of its own, not {show(value)}"
            raise InputError(f"{key} {words} ({layer.place(key)})")
        if isinstance(old, list) and isinstance(value, dict):
            raise InputError(
                f"{key} must be a list, which is replaced whole, not a section ({layer.place(key)})"
            )
        if isinstance(value, dict):
            value = _merged(old if isinstance(old, dict) else {}, value, layer, f"{key}.")
        result[name] = value
    return result


def _lines(node: Any, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for name, entry in node.value:
            inner = f"{key}.{name.value}" if key else str(name.value)
            yield inner, name.start_mark.line + 1
            yield from _lines(entry, inner)
    elif isinstance(node, yaml.SequenceNode):
        for i, entry in enumerate(node.value):
            yield f"{key}[{i}]", entry.start_mark.line + 1
            yield from _lines(entry, f"{key}[{i}]")


def _line(error: Any, text: str) -> int:
    """The line, counted from 1, that a YAML error is about."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return int(error.problem_mark.line) + 1
    return text.count("\n", 0, getattr(error, "position", 0)) + 1


def _first_line(error: Exception) -> str:
    problem = getattr(error, "problem", None) or str(error)
    return str(problem).splitlines()[0]


def _parent(key: str) -> str:
    """The key one level up: of ``a.b[2].c`` it is ``a.b[2]``, then ``a.b``, then ``a``, then nothing."""
    cut = max(key.rfind("."), key.rfind("["))
    return key[:cut] if cut > 0 else ""
