"""The settings of reinforcement learning: typed, checked, merged from YAML files and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from innerloop.core.errors import InputError
from innerloop.rl.controls import BalancingControl, Control, ScalingControl
from innerloop.rl.facts import FACTS
from innerloop.rl.families import FAMILIES, Family
from innerloop.rl.policy import PolicyShape
from innerloop.rl.policy_gradient import Surrogate
from innerloop.rl.ppo import PPOSettings
from innerloop.settings.chosen import read_chosen
from innerloop.settings.constraints import NotEmpty, OneOrMany, Range
from innerloop.settings.kinds import Count, Fraction, NonNegative, Positive, Seed
from innerloop.settings.layers import Layer, read_overrides
from innerloop.settings.library import Library
from innerloop.settings.optim import OptimConfig
from innerloop.settings.run import RunConfig
from innerloop.settings.writing import escaped, plain

_LIBRARY = Library(Path(str(resources.files("innerloop.configs"))) / "rl", "innerloop/configs/rl")

TransferKind = Literal["feature_extraction", "fine_tuning", "layer_wise"]
MetaAlgorithm = Literal["maml", "fomaml", "implicit_fomaml", "reptile"]


@dataclass(frozen=True)
class PolicyConfig:
    """The network, and what it may do in a step."""

    width: Count
    task_width: Count
    most: Count
    sharpness: Positive


@dataclass(frozen=True)
class TransferConfig:
    """What of a source policy is kept from changing."""

    kind: TransferKind
    frozen_layers: tuple[int, ...]
    thaw_every: Count


@dataclass(frozen=True)
class MetaConfig:
    """The inner loop, and how its outcome is judged."""

    algorithm: MetaAlgorithm
    surrogate: Surrogate
    inner_lr: NonNegative
    task_lr: NonNegative
    learn_inner_lr: bool
    inner_steps: Count
    support_episodes: Count
    support_uses: Count
    support_remembered: bool
    query_episodes: Count
    clusters: Count
    clusters_at_once: Count
    repeats: Count
    clip: Positive | None
    proximal: Positive
    cg_steps: Annotated[int, Range(at_least=0)]
    value_weight: NonNegative
    cost_weight: NonNegative
    entropy_weight: NonNegative
    discount: Fraction
    smoothing: Fraction


@dataclass(frozen=True)
class TestConfig:
    """Held-out clusters, and after how many episodes of adaptation returns are measured."""

    clusters: Count
    seeds: Count
    episodes: Count
    adaptation_episodes: Annotated[tuple[int, ...], OneOrMany(), NotEmpty()]
    fine_tuning_lr: Positive
    scratch_lr: Positive
    seed: Seed


@dataclass(frozen=True)
class _Common:
    """All sections but that of the family, whose defaults depend on its name."""

    policy: PolicyConfig
    ppo: PPOSettings
    transfer: TransferConfig
    meta: MetaConfig
    optim: OptimConfig
    test: TestConfig
    trainer: RunConfig


@dataclass(frozen=True)
class Config(_Common):
    """All settings of a run, checked. Made by :func:`load_config`."""

    family: Family

    @property
    def shape(self) -> PolicyShape:
        """What the policy is built from."""
        return PolicyShape(
            self.family.kind, self.policy.width, 2 * self.policy.most + 1, self.policy.task_width
        )

    @property
    def control(self) -> Control:
        """What the policy's actions are."""
        if self.family.kind == "scaling":
            return ScalingControl(self.policy.most)
        return BalancingControl(self.policy.sharpness)


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


def config_from_dict(values: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> Config:
    """Checked settings from what :func:`to_dict` gave.

    Args:
        values: nested plain containers.
        source: what messages call their origin.
        overrides: ``section.key=value`` words, which win over the values.

    Raises:
        InputError: as in :func:`load_config`.
    """
    return _build([Layer(source, escaped(dict(values)), {}), read_overrides(overrides)])


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as nested plain containers, ready for YAML or JSON."""
    return plain(config)  # type: ignore[no-any-return]  # a section gives a mapping


def _build(layers: Sequence[Layer]) -> Config:
    common, family = read_chosen([_LIBRARY.defaults(), *layers], _Common, "family", FAMILIES)
    if common.ppo.told and common.policy.task_width < FACTS:
        raise InputError(
            f"policy.task_width is {common.policy.task_width}; with ppo.told it must be {FACTS} or more, "
            "a coordinate for each fact"
        )
    return Config(**{key: getattr(common, key) for key in _Common.__dataclass_fields__}, family=family)
