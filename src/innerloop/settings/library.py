"""Where settings files are looked up: those the package brings, and the user's own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.settings.layers import Layer, read_yaml

DEFAULTS = "default"
BASE = "base"
"""The key by which packaged settings name others that they lie over."""
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Library:
    """The packaged settings of one domain.

    Args:
        folder: where its YAML files are; ``default.yaml`` gives every key its default.
        shown: how messages call the folder.
        aliases: other names of packaged settings, and what they stand for.
    """

    folder: Path
    shown: str
    aliases: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """What ``--config-name`` takes without a path: packaged settings, then their other names."""
        return [*(name for name in _names_in(self.folder) if name != DEFAULTS), *self.aliases]

    def defaults(self) -> Layer:
        """The layer under all others."""
        return self._read(DEFAULTS)

    def layers(self, name: str | None, path: Path | None) -> list[Layer]:
        """The files that a name and a path stand for, the lower one first.

        Args:
            name: packaged settings; with a folder as ``path``, a file of that folder instead.
            path: a YAML file to merge over the named settings, or the folder that ``name`` is looked up in.

        Raises:
            InputError: there is no such file, or it is not settings.
        """
        if path is not None and path.is_dir():
            return [read_yaml(_in_folder(path, name))]
        found = []
        if name not in (None, DEFAULTS):
            found += self._packaged(name)
        if path is not None:
            found.append(read_yaml(path))
        return found

    def _packaged(self, name: str) -> list[Layer]:
        stem = _stem(name)
        known = _names_in(self.folder)
        stem = self.aliases.get(stem, stem)
        if stem not in known:
            nearest = difflib.get_close_matches(stem, [*known, *self.aliases], n=1, cutoff=0.5)
            meant = f"did you mean '{nearest[0]}'? " if nearest else ""
            offer = "there are: " + ", ".join(self.names())
            raise InputError(
                f"no packaged settings '{name}'; {meant}{offer}; a file of your own goes to --config-path"
            )
        layer = self._read(stem)
        base = layer.values.get(BASE)
        if base is None:
            return [layer]
        own = {key: value for key, value in layer.values.items() if key != BASE}
        return [*self._packaged(base), replace(layer, values=own)]

    def _read(self, stem: str) -> Layer:
        return _read_packaged(self.folder / f"{stem}.yaml", f"{self.shown}/{stem}.yaml")


@cache
def _read_packaged(path: Path, shown: str) -> Layer:
    return read_yaml(path, name=shown)


def _in_folder(folder: Path, name: str | None) -> Path:
    there = ", ".join(_names_in(folder)) or "none"
    if name is None:
        raise InputError(
            f"--config-path {folder} is a folder; name a file in it with --config-name (there: {there})"
        )
    for suffix in _SUFFIXES:
        if (file := folder / f"{_stem(name)}{suffix}").is_file():
            return file
    raise InputError(f"no settings '{name}' in {folder} (there: {there})")


def _stem(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def _names_in(folder: Path) -> list[str]:
    return sorted({file.stem for file in folder.iterdir() if file.suffix in _SUFFIXES})
