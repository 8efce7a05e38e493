"""LoRA adapters on a causal language model: where they go, how they start, how they are read back and merged.

Everything is plain PEFT; what is added here is checking, a seeded start, and layers chosen by name.
"""

import difflib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from innerloop.core.errors import InputError
from innerloop.llm.sources import ADAPTER_WEIGHTS

ALL_LINEAR: Literal["all-linear"] = "all-linear"
_ADAPTABLE = (nn.Linear, nn.Embedding, Conv1D)


@dataclass(frozen=True)
class LoraSpec:
    """A new LoRA adapter (Hu et al. 2021): W + (alpha / rank) B A beside each chosen weight W.

    Args:
        rank: rows of A and columns of B.
        alpha: the scale's numerator.
        dropout: probability of dropping an input of A, in [0, 1).
        target_modules: names of modules, or ``all-linear`` for every linear layer but the output head.
        layers: which decoder layers: their indices, ``upper_half``, or all of them (``all`` or none).
        seed: A's random start. B starts at 0, so the adapted model starts as the base.

    Raises:
        InputError: if a number is out of its range.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] | Literal["all-linear"] = ALL_LINEAR
    layers: tuple[int, ...] | Literal["all", "upper_half"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.rank < 1:
            raise InputError(f"lora_rank is {self.rank}; it must be 1 or more (0 trains all parameters)")
        if not self.alpha > 0:
            raise InputError(f"lora_alpha is {self.alpha}; it must be above 0")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora_dropout is {self.dropout}; it must be in [0, 1)")
        if not self.target_modules:
            raise InputError(f"target_modules is empty; name the modules to adapt, or '{ALL_LINEAR}'")


def attach_lora(model: PreTrainedModel, spec: LoraSpec, reference: str) -> PeftModel:
    """Puts a new trainable adapter on a model, whose own parameters are frozen.

    The same seed gives the same adapter on every device, and the global random state is left alone. Over
    half-precision weights PEFT holds the adapter in float32, otherwise in the weights' dtype.

    Args:
        model: the base; its modules are changed in place.
        spec: the adapter.
        reference: the base as plain ``from_pretrained`` takes it, written into the adapter's config.

    Raises:
        InputError: if a target or a layer does not exist in this model.
    """
    targets = _target_names(model, spec.target_modules)
    planned = planned_modules(model, spec)
    for target in targets:
        if not any(_matches(name, target) for name in planned):
            raise InputError(f"LoRA target '{target}' is in none of the layers chosen by lora_layers")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=cast(int, spec.alpha),  # PEFT takes and stores any number
        lora_dropout=spec.dropout,
        target_modules=targets,
        layers_to_transform=_layer_indices(model, spec.layers),
        fan_in_fan_out=any(
            isinstance(module, Conv1D) for name, module in model.named_modules() if name in planned
        ),
    )
    with _cpu_seed(spec.seed), _without_peft_warnings():
        adapted = get_peft_model(model, config)
    config.base_model_name_or_path = reference
    return adapted


def load_lora(model: PreTrainedModel, folder: Path, trainable: bool, reference: str) -> PeftModel:
    """Puts a saved adapter on its base.

    Args:
        model: the base; its modules are changed in place.
        folder: holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        trainable: whether the adapter's parameters take gradients.
        reference: the base as plain ``from_pretrained`` takes it on this machine.

    Raises:
        InputError: if the adapter's weights are damaged, incomplete, or do not fit the base.
    """
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
            saved = set(weights.keys())
        with _cpu_seed(0), _without_peft_warnings():
            adapted = PeftModel.from_pretrained(model, folder, is_trainable=trainable, torch_device="cpu")
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"the adapter {folder} cannot be put on '{reference}': {_short(error)}") from error
    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if saved != expected:
        raise InputError(
            f"the adapter {folder} does not fit '{reference}': {len(expected - saved)} of its tensors are "
            f"missing and {len(saved - expected)} have no place, for example {min(saved ^ expected)}"
        )
    adapted.peft_config[adapted.active_adapter].base_model_name_or_path = reference
    return adapted


def merge_lora(model: PeftModel) -> PreTrainedModel:
    """Adds the adapter into its base's weights and returns the base, with no adapter left.

    Raises:
        InputError: if an adapted weight is shared with another module, which the sum would change too.
    """
    shared = _shared_adapted_weight(model)
    if shared is not None:
        raise InputError(
            f"the adapter on '{shared}' cannot be merged, because its weight is tied to another module's; "
            "keep it as an adapter"
        )
    merged = model.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    return merged


def adapted_modules(model: PeftModel) -> frozenset[str]:
    """The names, within the base, of the modules that carry an adapter."""
    base = model.get_base_model()
    return frozenset(name for name, module in base.named_modules() if isinstance(module, LoraLayer))


def planned_modules(model: PreTrainedModel, spec: LoraSpec) -> frozenset[str]:
    """The names of the modules that ``attach_lora`` would adapt.

    Raises:
        InputError: if a target or a layer does not exist in this model.
    """
    targets = _target_names(model, spec.target_modules)
    layers = _layer_indices(model, spec.layers)
    return frozenset(
        name
        for name, _ in _adaptable_modules(model)
        if any(_matches(name, target) for target in targets) and (layers is None or _layer_of(name) in layers)
    )


def _target_names(model: PreTrainedModel, wanted: Sequence[str]) -> list[str]:
    modules = dict(_adaptable_modules(model))
    if wanted == ALL_LINEAR:
        head = cast(Any, model).get_output_embeddings()
        return sorted(
            {
                _last(name)
                for name, module in modules.items()
                if module is not head and not isinstance(module, nn.Embedding)
            }
        )
    for target in wanted:
        if any(_matches(name, target) for name in modules):
            continue
        names = sorted({_last(name) for name in modules})
        other = next((module for name, module in model.named_modules() if _matches(name, target)), None)
        if other is not None:
            raise InputError(
                f"LoRA target '{target}' is a {type(other).__name__}, which LoRA cannot adapt; "
                f"choose among {', '.join(names)}"
            )
        near = difflib.get_close_matches(target, names, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(
            f"LoRA target '{target}' is no module of this model; {hint}it has {', '.join(names)}"
        )
    return sorted(set(wanted))


def _layer_indices(
    model: PreTrainedModel, wanted: tuple[int, ...] | Literal["all", "upper_half"] | None
) -> list[int] | None:
    if wanted is None or wanted == "all":
        return None
    count: int = model.config.get_text_config().num_hidden_layers
    if wanted == "upper_half":
        return list(range(count // 2, count))
    outside = [layer for layer in wanted if not 0 <= layer < count]
    if outside or not wanted:
        raise InputError(
            f"lora_layers names layer {outside[0] if outside else 'none'}; this model has 0 to {count - 1}"
        )
    return sorted(set(wanted))


def _adaptable_modules(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, _ADAPTABLE))


def _shared_adapted_weight(model: PeftModel) -> str | None:
    base: nn.Module = model.get_base_model()
    uses: dict[int, int] = {}
    for _, parameter in base.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer) and uses[id(module.get_base_layer().weight)] > 1:
            return str(name)
    return None


@contextmanager
def _cpu_seed(seed: int) -> Iterator[None]:
    """Seeds the CPU generator alone, which is where PEFT draws A, and puts its state back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _without_peft_warnings() -> Iterator[None]:
    """Drops PEFT's warnings: an old name it uses itself, tied targets, missing tensors (an error here)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _layer_of(name: str) -> int | None:
    """The decoder layer that a module is in: the first number in its name."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
