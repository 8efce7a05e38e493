"""The settings of few-shot training: typed, checked, merged from YAML files and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from innerloop.fewshot.backbones import BackboneName
from innerloop.fewshot.data.load import DataConfig
from innerloop.fewshot.learners import METHODS, Method
from innerloop.settings.chosen import read_chosen
from innerloop.settings.constraints import NotEmpty, OneOrMany, Range
from innerloop.settings.kinds import (
    Count,
    Seed,
)
from innerloop.settings.layers import Layer, read_overrides
from innerloop.settings.library import Library
from innerloop.settings.optim import OptimConfig
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
    common, method = read_chosen([_LIBRARY.defaults(), *layers], _Common, "method", METHODS)
    return Config(**{key: getattr(common, key) for key in _Common.__dataclass_fields__}, method=method)
