"""Trained artifacts: a standard Hugging Face or PEFT folder with ``innerloop.json`` in it.

Anything that loads a Hugging Face model or a PEFT adapter loads these folders with no help from here. Making
the folder appear whole, under its name, is the business of ``innerloop.core.checkpoint``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from innerloop.core.errors import InputError
from innerloop.llm.artifact_info import ArtifactInfo, InnerRuleInfo, read_info, write_info
from innerloop.llm.lora import merge_lora
from innerloop.llm.model import LoadedModel, ModelSpec, load_source
from innerloop.llm.quiet import without_progress_bars
from innerloop.llm.sources import find_model

__all__ = [
    "Artifact",
    "ArtifactInfo",
    "InnerRuleInfo",
    "load_artifact",
    "merge_lora",
    "read_info",
    "save_artifact",
]


@dataclass(frozen=True)
class Artifact:
    """A loaded artifact.

    Args:
        loaded: model and tokenizer.
        info: what innerloop wrote about it; none for a model from elsewhere.
        folder: where it was loaded from.
    """

    loaded: LoadedModel
    info: ArtifactInfo | None
    folder: Path


def save_artifact(
    folder: Path,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    info: ArtifactInfo,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes a model, its tokenizer and its info into an existing folder.

    Args:
        folder: where to; other files in it are left alone.
        model: a PEFT model, of which the adapter is written, or a plain one, written whole.
        tokenizer: written with its chat template.
        info: written as ``innerloop.json``; its ``adapts`` must say what the model is.
        state_dict: the weights to write instead of the model's own, by the model's parameter names; for a
            sharded model the gathered ones.

    Raises:
        InputError: if ``info.adapts`` and the model do not agree.
    """
    is_adapter = isinstance(model, PeftModel)
    if is_adapter != (info.adapts == "lora"):
        raise InputError(f"info.adapts is '{info.adapts}', and the model is {type(model).__name__}")
    weights = None if state_dict is None else dict(state_dict)
    with without_progress_bars():
        if isinstance(model, PeftModel):
            # 'auto' would ask the hub whether the base's vocabulary has grown; it never does here.
            model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)
        else:
            model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    write_info(folder, info)


def load_artifact(
    path: Path | str,
    trainable: bool,
    *,
    device: str = "auto",
    strict_device: bool = False,
    dtype: str = "auto",
    attn_implementation: str = "auto",
    gradient_checkpointing: bool = False,
    trust_remote_code: bool = False,
) -> Artifact:
    """Loads what a run wrote, or a plain model or PEFT adapter from elsewhere.

    Args:
        path: a run's folder (its newest checkpoint is taken), a ``step_N`` folder, a plain Hugging Face or
            PEFT folder, or any other name that ``load_model`` knows.
        trainable: whether the parameters that the artifact adapts take gradients. An adapter stays one.
        device: as in ``ModelSpec``, and so are the arguments after it.
        strict_device: as in ``ModelSpec``.
        dtype: as in ``ModelSpec``.
        attn_implementation: as in ``ModelSpec``.
        gradient_checkpointing: as in ``ModelSpec``.
        trust_remote_code: as in ``ModelSpec``.

    Raises:
        InputError: if it is not there, or half of it is missing or damaged.
    """
    spec = ModelSpec(
        name=str(path),
        dtype=dtype,
        attn_implementation=attn_implementation,
        gradient_checkpointing=gradient_checkpointing,
        trust_remote_code=trust_remote_code,
        device=device,
        strict_device=strict_device,
    )
    source = find_model(spec.name, trust_remote_code)
    loaded = load_source(source, spec, "train" if trainable else "freeze")
    if not source.is_adapter:
        loaded.model.requires_grad_(trainable)
    return Artifact(loaded, source.info, source.folder)
