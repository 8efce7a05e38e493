"""The settings of few-shot training: typed, checked, merged from YAML files and the command line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from innerloop.core.errors import InputError
from innerloop.fewshot.backbones import BackboneName
from innerloop.fewshot.data.load import DataConfig
from innerloop.fewshot.learners import METHODS, Method
from innerloop.settings.constraints import NotEmpty, OneOrMany, Range
from innerloop.settings.kinds import (
    Count,
    Seed,
)
from innerloop.settings.layers import Layer, Stack, read_overrides
from innerloop.settings.library import Library
from innerloop.settings.optim import OptimConfig
from innerloop.settings.reader import Reader
from innerloop.settings.run import RunConfig
from innerloop.settings.writing import escaped, plain

_LIBRARY = Library(Path(str(resources.files("innerloop.configs"))) / "fewshot", "innerloop/configs/fewshot")


@dataclass(frozen=True)
class BackboneConfig:
    """The network that turns images into features."""

    name: BackboneName
    width: Count


@dataclass(frozen=True)
class TrainEpisodes:
    """The episodes a step trains on."""

    ways: Annotated[int, Range(at_least=2)]
    shots: Count
    queries: Count
    per_step: Count


@dataclass(frozen=True)
class TestEpisodes:
    """The episodes accuracy is measured on: on each of ``ways`` when testing, on the first while training."""

    ways: Annotated[tuple[Annotated[int, Range(at_least=2)], ...], OneOrMany(), NotEmpty()]
    shots: Count
    queries: Count
    count: Count
    validation_count: Count
    seed: Seed
    within_alphabet: bool


@dataclass(frozen=True)
class TrainerConfig(RunConfig):
    """The run: where, how long, what is written."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    test_freq: Count | Literal[-1]


@dataclass(frozen=True)
class _Common:
    """All sections but that of the method, whose keys depend on its name."""

    data: DataConfig
    backbone: BackboneConfig
    train: TrainEpisodes
    test: TestEpisodes
    optim: OptimConfig
    trainer: TrainerConfig


@dataclass(frozen=True)
class Config(_Common):
    """All settings of a run, checked. Made by :func:`load_config`."""

    method: Method


def available_configs() -> list[str]:
    """The names that ``--config-name`` takes."""
    return _LIBRARY.names()


def load_config(name: str | None = None, path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Loads, merges and checks settings.

    Args:
        name: packaged settings; with a folder as ``path``, a file of that folder instead.
        path: a YAML file that is merged over the named settings, or the folder that ``name`` is looked up in.
        overrides: ``section.key=value`` words, which win over every file.

    Raises:
        InputError: no such settings, broken YAML, an unknown key, a wrong type, a value out of range.
    """
    return _build([*_LIBRARY.layers(name, path), read_overrides(overrides)])


def config_from_dict(values: Mapping[str, Any], source: str) -> Config:
    """Checked settings from what :func:`to_dict` gave.

    Args:
        values: nested plain containers.
        source: what messages call their origin.

    Raises:
        InputError: as in :func:`load_config`.
    """
    return _build([Layer(source, escaped(dict(values)), {})])


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as nested plain containers, ready for YAML or JSON."""
    return plain(config)  # type: ignore[no-any-return]  # a section gives a mapping


def _build(layers: Sequence[Layer]) -> Config:
    stack = Stack(_LIBRARY.defaults())
    for layer in layers:
        stack.push(layer)
    values = stack.resolved()
    method = values.pop("method", None)
    common = Reader(stack.place, _Common).section(_Common, values)
    kind = _method(method, stack)
    settings = Reader(stack.place, kind).section(kind, method, "method")
    return Config(**{key: getattr(common, key) for key in _Common.__dataclass_fields__}, method=settings)


def _method(values: Any, stack: Stack) -> type[Method]:
    name = values.get("name") if isinstance(values, Mapping) else None
    if name is None:
        raise InputError(
            f"method.name is missing; name a packaged configuration or set it to one of {', '.join(METHODS)}"
        )
    if name not in METHODS:
        nearest = difflib.get_close_matches(str(name), METHODS, n=1, cutoff=0.5)
        meant = f"did you mean '{nearest[0]}'? " if nearest else ""
        place = stack.place("method.name")
        raise InputError(f"no method '{name}' ({place}); {meant}there are: {', '.join(METHODS)}")
    return METHODS[name]
