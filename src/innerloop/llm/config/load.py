"""Finds settings files, stacks the layers, and hands out checked `Config` objects; and writes them back.

Package defaults <- named settings <- the user's file <- ``key=value`` words: a later layer wins.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from innerloop.core.errors import InputError
from innerloop.llm.config.checks import check, unread
from innerloop.llm.config.legacy import UNDERSTOOD, adopt_training_files, translate
from innerloop.llm.config.schema import Config, MethodConfig
from innerloop.settings.layers import COMMAND_LINE, Layer, Stack, read_overrides
from innerloop.settings.library import Library
from innerloop.settings.reader import Reader
from innerloop.settings.writing import escaped, plain

ALIASES: Mapping[str, str] = {
    "config_maml_sft_example": "maml_sft",
    "config_meta_lora_example": "meta_lora",
    "config_qwen3_4b_math": "qwen3_4b_math",
}

_LIBRARY = Library(Path(str(resources.files("innerloop.configs"))), "innerloop/configs", ALIASES)


class ConfigWarning(UserWarning):
    """A setting that was read has no effect. Shown once for each key and place."""


def available_configs() -> list[str]:
    """The names that ``--config-name`` takes without a path: packaged settings, then their older names."""
    return _LIBRARY.names()


def load_config(name: str | None = None, path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Loads, merges and checks settings.

    Args:
        name: packaged settings; with a folder as ``path``, a file of that folder instead.
        path: a YAML file that is merged over the named settings, or the folder that ``name`` is looked up in.
        overrides: ``section.key=value`` words, which win over every file.

    Returns:
        The settings of a run, every interpolation resolved, ``optim.lr`` being the rate in force.

    Raises:
        InputError: no such settings, broken YAML, an unknown key, a wrong type, a value out of range, or
            settings that contradict each other. It names the key, and the file and line or the command line.
    """
    return _build([*_LIBRARY.layers(name, path), read_overrides(overrides)])


def config_from_dict(values: Mapping[str, Any], source: str) -> Config:
    """Checked settings from what `to_dict` gave, for example out of an artifact.

    Args:
        values: nested plain containers.
        source: what messages call their origin.

    Raises:
        InputError: as in `load_config`.
    """
    return _build([Layer(source, escaped(dict(values)), {})])


def with_overrides(config: Config, overrides: Sequence[str], source: str = COMMAND_LINE) -> Config:
    """The same settings with some ``section.key=value`` words over them, checked again.

    Args:
        config: settings as they were loaded.
        overrides: what to change.
        source: what messages call the origin of the words.

    Raises:
        InputError: as in `load_config`.
    """
    common = Layer("the settings that are overridden", escaped(to_dict(config)), {})
    return _build([common, read_overrides(overrides, source)])


def method_config(config: Config, method: MethodConfig) -> Config:
    """The settings of one method of an experiment: the common ones with its overrides, and no experiment.

    Raises:
        InputError: as in `load_config`.
    """
    return _build(_method_layers(config, method))


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as nested plain containers, ready for YAML or JSON."""
    return plain(config)  # type: ignore[no-any-return]  # a section gives a mapping


def to_yaml(config: Config) -> str:
    """The settings as YAML that `load_config` reads back to an equal `Config`."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(to_dict(config))))


@dataclass(frozen=True)
class _Checked:
    """Settings, and what their user should be told: a note for each key that has no effect."""

    config: Config
    notes: Mapping[str, str]


def _build(layers: Sequence[Layer]) -> Config:
    checked = _checked(layers)
    if checked.config.experiment is not None:
        for method in checked.config.experiment.methods:
            _check_method(checked.config, method)
    for note in checked.notes.values():
        warnings.warn(note, ConfigWarning, stacklevel=1)  # one place, so that Python shows each text once
    return checked.config


def _checked(layers: Sequence[Layer]) -> _Checked:
    defaults = _LIBRARY.defaults()
    stack = Stack(defaults)
    notes: dict[str, str] = {}
    for layer in layers:
        translated = translate(layer)
        stack.push(translated.layer)
        notes |= translated.notes
    notes |= adopt_training_files(stack)
    values = stack.resolved()
    config = Reader(stack.place, Config, UNDERSTOOD).section(Config, values)

    def is_changed(key: str) -> bool:
        return stack.is_given(key) and _at(values, key) != _at(defaults.values, key)

    check(config, stack.place)
    notes |= unread(config, stack.place, is_changed)
    if config.meta.outer_lr is not None:
        config = replace(config, optim=replace(config.optim, lr=config.meta.outer_lr))
    return _Checked(config, notes)


def _method_layers(config: Config, method: MethodConfig) -> list[Layer]:
    common = Layer("the experiment's settings", escaped(to_dict(replace(config, experiment=None))), {})
    return [common, read_overrides(method.overrides, f"experiment method '{method.name}'")]


def _check_method(config: Config, method: MethodConfig) -> None:
    """Every method of an experiment must be a valid run: better known now than hours later."""
    algorithm = _checked(_method_layers(config, method)).config.meta.algorithm
    if method.kind == "control" and algorithm != "sft":
        problem = f"is a control, so its overrides must set meta.algorithm=sft, not {algorithm}"
        raise InputError(f"experiment method '{method.name}' {problem}")
    if method.kind == "meta" and algorithm == "sft":
        problem = "is of kind meta, but its meta.algorithm is sft"
        raise InputError(f"experiment method '{method.name}' {problem}")


def _at(values: Mapping[str, Any], key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values
