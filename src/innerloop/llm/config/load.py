"""Finds settings files, stacks the layers, and hands out checked `Config` objects; and writes them back.

Package defaults <- named settings <- the user's file <- ``key=value`` words: a later layer wins.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from innerloop.core.errors import InputError
from innerloop.llm.config.checks import check, unread
from innerloop.llm.config.layers import COMMAND_LINE, Layer, Stack, read_overrides, read_yaml
from innerloop.llm.config.legacy import UNDERSTOOD, adopt_training_files, translate
from innerloop.llm.config.reader import Reader, key_of
from innerloop.llm.config.schema import Config, MethodConfig

ALIASES: Mapping[str, str] = {
    "config_maml_sft_example": "maml_sft",
    "config_meta_lora_example": "meta_lora",
    "config_qwen3_4b_math": "qwen3_4b_math",
}

_PACKAGED = Path(str(resources.files("innerloop.configs")))
_DEFAULTS = "default"
_SUFFIXES = (".yaml", ".yml")


class ConfigWarning(UserWarning):
    """A setting that was read has no effect. Shown once for each key and place."""


def available_configs() -> list[str]:
    """The names that ``--config-name`` takes without a path: packaged settings, then their older names."""
    return [*(name for name in _names_in(_PACKAGED) if name != _DEFAULTS), *ALIASES]


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
    layers = []
    if path is not None and path.is_dir():
        layers.append(read_yaml(_in_folder(path, name)))
    else:
        if name not in (None, _DEFAULTS):
            layers.append(_packaged(name))
        if path is not None:
            layers.append(read_yaml(path))
    return _build([*layers, read_overrides(overrides)])


def config_from_dict(values: Mapping[str, Any], source: str) -> Config:
    """Checked settings from what `to_dict` gave, for example out of an artifact.

    Args:
        values: nested plain containers.
        source: what messages call their origin.

    Raises:
        InputError: as in `load_config`.
    """
    return _build([Layer(source, _escaped(dict(values)), {})])


def with_overrides(config: Config, overrides: Sequence[str], source: str = COMMAND_LINE) -> Config:
    """The same settings with some ``section.key=value`` words over them, checked again.

    Args:
        config: settings as they were loaded.
        overrides: what to change.
        source: what messages call the origin of the words.

    Raises:
        InputError: as in `load_config`.
    """
    common = Layer("the settings that are overridden", _escaped(to_dict(config)), {})
    return _build([common, read_overrides(overrides, source)])


def method_config(config: Config, method: MethodConfig) -> Config:
    """The settings of one method of an experiment: the common ones with its overrides, and no experiment.

    Raises:
        InputError: as in `load_config`.
    """
    return _build(_method_layers(config, method))


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as nested plain containers, ready for YAML or JSON."""
    return _plain(config)  # type: ignore[no-any-return]  # a section gives a mapping


def to_yaml(config: Config) -> str:
    """The settings as YAML that `load_config` reads back to an equal `Config`."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(to_dict(config))))


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
    defaults = _read_packaged(_DEFAULTS)
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
    common = Layer("the experiment's settings", _escaped(to_dict(replace(config, experiment=None))), {})
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


def _packaged(name: str) -> Layer:
    stem = _stem(name)
    known = _names_in(_PACKAGED)
    stem = ALIASES.get(stem, stem)
    if stem not in known:
        nearest = difflib.get_close_matches(stem, [*known, *ALIASES], n=1, cutoff=0.5)
        meant = f"did you mean '{nearest[0]}'? " if nearest else ""
        offer = "there are: " + ", ".join(available_configs())
        raise InputError(
            f"no packaged settings '{name}'; {meant}{offer}; a file of your own goes to --config-path"
        )
    return _read_packaged(stem)


@cache
def _read_packaged(stem: str) -> Layer:
    return read_yaml(_PACKAGED / f"{stem}.yaml", name=f"innerloop/configs/{stem}.yaml")


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


def _at(values: Mapping[str, Any], key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {key_of(field): _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _escaped(value: Any) -> Any:
    """Text that holds ``${`` is meant as it stands, for it was resolved already."""
    if isinstance(value, dict):
        return {key: _escaped(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_escaped(entry) for entry in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value
