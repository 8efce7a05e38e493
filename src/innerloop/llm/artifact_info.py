"""What ``innerloop.json`` says of a trained artifact, as a type, and its reading and writing.

Weights and tokenizer are standard files beside it; they belong to ``artifacts.py``.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NoReturn, cast

from innerloop.core.errors import InputError

INFO_FILE = "innerloop.json"
FORMAT = 1

LearningRate = float | Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class InnerRuleInfo:
    """The inner rule an artifact was trained for, so that a new task is adapted to in the same way.

    Args:
        rule: the rule's name, for example ``"sgd"``.
        learning_rate: one rate, or for learned rates one for each step of each tensor.
        steps: gradient steps an adaptation takes.
        batch_size: support rows a step takes.
        max_grad_norm: the norm a step's gradient is clipped to; none where it is not clipped.
    """

    rule: str
    learning_rate: LearningRate
    steps: int
    batch_size: int
    max_grad_norm: float | None


@dataclass(frozen=True)
class ArtifactInfo:
    """Where an artifact comes from and how it is meant to be adapted.

    Args:
        algorithm: the algorithm that trained it.
        adapts: whether the weights beside it are a whole model or a LoRA adapter.
        base_model: the base as the user named it (alias, hub id or path).
        base_path: the base as plain ``from_pretrained`` takes it (hub id or absolute folder).
        inner: the inner rule; none where training had none.
        data_manifest_hash: the prepared data's hash; none where the data had no manifest.
        seed: the run's seed.
        step: outer steps taken.
        config: the run's resolved configuration, as JSON holds it.
        versions: releases of the libraries it was made with.
    """

    algorithm: str
    adapts: Literal["full", "lora"]
    base_model: str
    base_path: str
    inner: InnerRuleInfo | None
    data_manifest_hash: str | None
    seed: int
    step: int
    config: Mapping[str, object]
    versions: Mapping[str, str]


def write_info(folder: Path, info: ArtifactInfo) -> None:
    """Writes ``innerloop.json`` into a folder, whole or not at all."""
    text = json.dumps({"format": FORMAT, **asdict(info)}, indent=2, allow_nan=False)
    partial = folder / f".{INFO_FILE}.partial"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(folder / INFO_FILE)


def read_info(folder: Path) -> ArtifactInfo:
    """Reads an artifact's ``innerloop.json``.

    Raises:
        InputError: if the file is missing, cut short, of a later format, or holds a value of the wrong kind.
    """
    path = folder / INFO_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no {INFO_FILE}, so it was not written by innerloop") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); take another checkpoint") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} is not a JSON object; take another checkpoint")
    if document.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {document.get('format')!r}, and this release reads {FORMAT}; "
            "load it with the release of innerloop that wrote it"
        )
    record = _Record(path, document)
    adapts = record.text("adapts")
    if adapts not in ("full", "lora"):
        raise InputError(f"{path}: 'adapts' is {adapts!r}; it must be 'full' or 'lora'")
    inner = record.optional_mapping("inner")
    return ArtifactInfo(
        algorithm=record.text("algorithm"),
        adapts=cast(Literal["full", "lora"], adapts),
        base_model=record.text("base_model"),
        base_path=record.text("base_path"),
        inner=None if inner is None else _inner_rule(_Record(path, inner, "inner.")),
        data_manifest_hash=record.optional_text("data_manifest_hash"),
        seed=record.whole("seed"),
        step=record.whole("step"),
        config=record.mapping("config"),
        versions={name: str(release) for name, release in record.mapping("versions").items()},
    )


def _inner_rule(record: "_Record") -> InnerRuleInfo:
    return InnerRuleInfo(
        rule=record.text("rule"),
        learning_rate=record.learning_rate("learning_rate"),
        steps=record.whole("steps"),
        batch_size=record.whole("batch_size"),
        max_grad_norm=None if record.get("max_grad_norm") is None else record.number("max_grad_norm"),
    )


@dataclass(frozen=True)
class _Record:
    """A JSON object whose every access names the file and the key when the value is not of its kind."""

    path: Path
    values: Mapping[str, object]
    prefix: str = ""

    def get(self, key: str) -> object:
        if key not in self.values:
            raise InputError(f"{self.path}: '{self.prefix}{key}' is missing; take another checkpoint")
        return self.values[key]

    def text(self, key: str) -> str:
        value = self.get(key)
        return value if isinstance(value, str) else self._wrong(key, "text")

    def optional_text(self, key: str) -> str | None:
        return None if self.get(key) is None else self.text(key)

    def whole(self, key: str) -> int:
        value = self.get(key)
        return value if type(value) is int else self._wrong(key, "a whole number")

    def number(self, key: str) -> float:
        return self._finite(key, self.get(key))

    def mapping(self, key: str) -> Mapping[str, object]:
        value = self.get(key)
        return value if isinstance(value, dict) else self._wrong(key, "an object")

    def optional_mapping(self, key: str) -> Mapping[str, object] | None:
        return None if self.get(key) is None else self.mapping(key)

    def learning_rate(self, key: str) -> LearningRate:
        value = self.get(key)
        if not isinstance(value, dict):
            return self._finite(key, value)
        rates: dict[str, tuple[float, ...]] = {}
        for tensor, steps in value.items():
            if not isinstance(steps, list):
                self._wrong(f"{key}.{tensor}", "a list of numbers")
            rates[tensor] = tuple(self._finite(f"{key}.{tensor}", step) for step in steps)
        return rates

    def _finite(self, key: str, value: object) -> float:
        if type(value) not in (int, float) or not math.isfinite(cast(float, value)):
            self._wrong(key, "a finite number")
        return float(cast(float, value))

    def _wrong(self, key: str, wanted: str) -> NoReturn:
        raise InputError(f"{self.path}: '{self.prefix}{key}' is not {wanted}; take another checkpoint")
