"""Loading a causal language model with its tokenizer, ready to train: dtype, attention, device, LoRA.

Where a named model comes from is in ``sources.py``; what is saved of a trained one in ``artifacts.py``.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from innerloop.core.devices import pick_device
from innerloop.core.errors import InputError
from innerloop.llm.attention import keep_rows_apart
from innerloop.llm.devices import check_dtype, parse_dtype, pick_attention
from innerloop.llm.lora import LoraSpec, adapted_modules, attach_lora, load_lora, merge_lora, planned_modules
from innerloop.llm.products import speed_up
from innerloop.llm.quiet import without_progress_bars
from innerloop.llm.sources import Source, find_base, find_model

logger = logging.getLogger(__name__)

Adapter = Literal["train", "freeze", "merge"]


@dataclass(frozen=True)
class ModelSpec:
    """A model to load.

    Args:
        name: hub id, folder (a plain model, a PEFT adapter, an artifact or a run of several), ``.gguf`` file
            or alias.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16``, ``float16`` or ``float64``.
        attn_implementation: ``auto`` (on a CPU ``sdpa``, packed rows taken one by one), ``eager``,
            ``sdpa`` or ``flash_attention_2``.
        gradient_checkpointing: whether training recomputes activations instead of keeping them.
        trust_remote_code: whether Python files that come with the model may run.
        use_chat_template: whether the tokenizer keeps its chat template; without it rows are plain text.
        lora: the adapter to train; none trains all parameters.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        strict_device: whether a device that is absent is an error instead of a warning.
        left_on_host: whether the model stays in host memory, to be sharded from there onto the device.
    """

    name: str
    dtype: str = "auto"
    attn_implementation: str = "auto"
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False
    use_chat_template: bool = True
    lora: LoraSpec | None = None
    device: str = "auto"
    strict_device: bool = False
    left_on_host: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, in evaluation mode, and its tokenizer.

    Args:
        model: a plain model, or a PEFT model with one LoRA adapter.
        tokenizer: with an end-of-sequence and a padding token.
        base_model: the base as the user named it: alias, hub id or path.
        base_path: the base as plain ``from_pretrained`` takes it: hub id or absolute folder.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    base_model: str
    base_path: str

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def trainable_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that take gradients, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def load_model(spec: ModelSpec) -> LoadedModel:
    """Loads a model to train.

    With ``spec.lora`` a new adapter is put on a plain model, and a saved adapter is taken up again where it
    is the one asked for. Without it all parameters train: a saved adapter is merged into its base first.

    Raises:
        InputError: if there is no such model, its files are damaged or incomplete, the saved adapter is
            another, or the settings do not fit the model or the machine.
    """
    source = find_model(spec.name, spec.trust_remote_code)
    return load_source(source, spec, "merge" if spec.lora is None else "train")


def load_source(source: Source, spec: ModelSpec, adapter: Adapter) -> LoadedModel:
    """Loads a model that has been found.

    Args:
        source: what ``find_model`` found.
        spec: how to load it; its name is not looked at again.
        adapter: what becomes of a saved adapter.

    Raises:
        InputError: as ``load_model``.
    """
    base = find_base(source, spec.trust_remote_code) if source.is_adapter else source
    device = pick_device(spec.device, spec.strict_device)
    plain = _load_base(base, spec, device)
    if spec.attn_implementation == "auto" and device.type == "cpu":
        keep_rows_apart(plain)
    model: PreTrainedModel | PeftModel = plain
    if source.is_adapter:
        model = _take_up_adapter(plain, base, source, spec, adapter)
    elif spec.lora is not None:
        model = attach_lora(plain, spec.lora, base.reference)
    tokenizer = load_tokenizer(source.folder if _has_tokenizer(source.folder) else base.folder, spec)
    _check_vocabulary(model, tokenizer, source)
    if spec.gradient_checkpointing:
        recompute_activations(plain)
    module: torch.nn.Module = model
    module.to("cpu" if spec.left_on_host else device).eval()
    if device.type == "cpu":
        speed_up(module)
    return LoadedModel(model, tokenizer, base.name, base.reference)


def _load_base(base: Source, spec: ModelSpec, device: torch.device) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(base.folder, trust_remote_code=spec.trust_remote_code)
        dtype = parse_dtype(spec.dtype) or stored_dtype(config)
        check_dtype(dtype, device)
        with without_progress_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                base.folder,
                config=config,
                dtype=dtype,
                attn_implementation=pick_attention(spec.attn_implementation, device, dtype),
                trust_remote_code=spec.trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise InputError(f"model '{base.name}' cannot be loaded: {_reason(error)}") from error
    model, report = loaded
    missing = report["missing_keys"]
    if missing:
        raise InputError(
            f"model '{base.name}' is incomplete: {len(missing)} tensors are missing, for example "
            f"{min(missing)}; copy or download it again"
        )
    assert isinstance(model, PreTrainedModel)
    return model


def load_tokenizer(folder: Path | str, spec: ModelSpec) -> PreTrainedTokenizerBase:
    """A tokenizer with an end-of-sequence and a padding token, without its chat template if so specified.

    Raises:
        InputError: if none can be loaded from there, or it cannot end a sequence.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise InputError(f"{folder} holds no tokenizer that can be loaded: {_reason(error)}") from error
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer in {folder} has no end-of-sequence token; set eos_token in its config"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked by position, so any token will do
    if not spec.use_chat_template:
        tokenizer.chat_template = None
    return tokenizer


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer_config.json").is_file()


def recompute_activations(plain: PreTrainedModel) -> None:
    """Turns on non-reentrant checkpointing: the other kind sees no gradient through frozen embeddings."""
    model: Any = plain
    enable = getattr(model, "activation_checkpointing_enable", None)  # the name since transformers 5.23
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    # It also makes the embeddings' output ask for a gradient, which only reentrant checkpointing needs, and
    # which functorch's transforms refuse.
    model.disable_input_require_grads()


def _check_vocabulary(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, source: Source
) -> None:
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer of '{source.name}' has {len(tokenizer)} tokens and its model only {rows}; "
            "they do not belong together"
        )


def _take_up_adapter(
    plain: PreTrainedModel, base: Source, source: Source, spec: ModelSpec, adapter: Adapter
) -> PreTrainedModel | PeftModel:
    planned = None if spec.lora is None else planned_modules(plain, spec.lora)
    model = load_lora(plain, source.folder, adapter == "train", base.reference)
    if spec.lora is not None and planned is not None:
        _check_same_adapter(model, spec.lora, planned, source)
    if adapter != "merge":
        return model
    merged = merge_lora(model)
    merged.requires_grad_(True)
    return merged


def _check_same_adapter(model: PeftModel, spec: LoraSpec, planned: frozenset[str], source: Source) -> None:
    saved: Any = model.peft_config[model.active_adapter]
    for key, is_there, asked in (
        ("lora_rank", saved.r, spec.rank),
        ("lora_alpha", saved.lora_alpha, spec.alpha),
        ("lora_dropout", saved.lora_dropout, spec.dropout),
    ):
        if is_there != asked:
            raise InputError(
                f"the adapter '{source.name}' has {key}={is_there}, and {asked} is asked for; "
                f"set {key}={is_there}"
            )
    if adapted_modules(model) != planned:
        different = min(adapted_modules(model) ^ planned)
        raise InputError(
            f"the adapter '{source.name}' is on other modules than target_modules and lora_layers ask for, "
            f"for example {different}; set them as they were when it was trained"
        )


def stored_dtype(config: PreTrainedConfig) -> torch.dtype:
    """The dtype a model's weights are stored in."""
    stored = config.get_text_config().dtype
    return stored if isinstance(stored, torch.dtype) else torch.float32


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "it brings its own Python code; if you trust it, set model.trust_remote_code=true"
    return f"{text[:200]} ({type(error).__name__})"
