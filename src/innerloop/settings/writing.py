"""Settings back to plain containers and YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from innerloop.settings.reader import key_of


def plain(value: Any) -> Any:
    """A section as nested plain containers, ready for YAML or JSON."""
    if is_dataclass(value):
        return {key_of(field): plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, tuple) else value


def escaped(value: Any) -> Any:
    """Containers to be read again. Text with ``${`` in it is meant as it stands: it was resolved already."""
    if isinstance(value, dict):
        return {key: escaped(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [escaped(entry) for entry in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value
