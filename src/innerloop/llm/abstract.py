"""A language model as shapes alone: built from its config, no weights loaded, no memory taken.

What runs on it allocates nothing and computes nothing, through the code that trains. ``estimate.py`` counts
the bytes that it would have taken.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from innerloop.core.errors import InputError
from innerloop.llm.attention import FLASH
from innerloop.llm.devices import parse_dtype, pick_attention
from innerloop.llm.lora import attach_lora
from innerloop.llm.model import ModelSpec, recompute_activations, stored_dtype
from innerloop.llm.sources import ALIASES, MODEL_CONFIG, find_base, find_model


@contextmanager
def abstract_model(spec: ModelSpec) -> Iterator[PreTrainedModel | PeftModel]:
    """A model to train, as ``load_model`` would give it; tensors made while the context is open are abstract.

    Its tensors say they are on the CPU, whatever device is planned for: kernels save the same there.

    Raises:
        InputError: if the model's config is not to be had, or the settings do not fit it.
    """
    config = _config(spec)
    device = torch.device("cpu")
    if spec.attn_implementation in FLASH:
        spec = replace(spec, attn_implementation="sdpa")  # flash attention runs on no CPU, and saves the same
    dtype = parse_dtype(spec.dtype) or stored_dtype(config)
    # Libraries build on the meta device but stumble over fake tensors, and only these choose real kernels.
    with torch.device("meta"):
        try:
            built: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config,
                dtype=dtype,
                attn_implementation=pick_attention(spec.attn_implementation, device, dtype),
                trust_remote_code=spec.trust_remote_code,
            )
        except (ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"model '{spec.name}' cannot be built from its config: {reason}") from error
        plain: PreTrainedModel = built
        model: PreTrainedModel | PeftModel = plain
        if spec.lora is not None:
            model = attach_lora(plain, spec.lora, spec.name)
    if spec.gradient_checkpointing:
        recompute_activations(plain)
    module: nn.Module = model
    module.eval()
    with FakeTensorMode():
        _make_fake(module, device)
        yield model


def _make_fake(model: nn.Module, device: torch.device) -> None:
    """Puts a fake tensor in the place of every parameter and buffer; tied ones stay tied."""
    fakes: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in fakes:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            trained = isinstance(tensor, nn.Parameter)
            fakes[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if trained else empty
        return fakes[id(tensor)]

    old = []  # kept until all are replaced: an id must not be given out again
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    old.append(tensor)
                    tensors[name] = fake(tensor)  # type: ignore[assignment]


def _config(spec: ModelSpec) -> PreTrainedConfig:
    """The model's config alone: of a folder or a hub id the weights need not be there."""
    place = Path(spec.name).expanduser()
    where: Path | str = spec.name
    if (place / MODEL_CONFIG).is_file():
        where = place.absolute()
    elif spec.name in ALIASES or place.exists():
        source = find_model(spec.name, spec.trust_remote_code)
        where = (find_base(source, spec.trust_remote_code) if source.is_adapter else source).folder
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"model '{spec.name}' is no folder with {MODEL_CONFIG}, and the hub has no such model or cannot "
            f"be reached ({type(error).__name__}); an estimate needs the config alone"
        ) from error
    assert isinstance(config, PreTrainedConfig)
    return config
