"""Which dtype and attention back end a language model runs with: asked for by name, checked here.

A wish that cannot be met is either an error or met by the nearest thing with a warning, never silently.
"""

import logging

import torch
from transformers.utils.import_utils import is_flash_attn_2_available

from innerloop.core.errors import InputError

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
ATTENTION = ("eager", "sdpa", "flash_attention_2")
_HALF = (torch.float16, torch.bfloat16)


def parse_dtype(name: str) -> torch.dtype | None:
    """The dtype a name stands for; none for ``auto``, the dtype the weights are stored in.

    Raises:
        InputError: if the name is not known.
    """
    if name == "auto":
        return None
    if name not in DTYPES:
        raise InputError(f"dtype '{name}' is not known; choose auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def supported_dtypes(device: torch.device) -> tuple[str, ...]:
    """The dtypes a model can be held and trained in on a device."""
    missing: set[torch.dtype] = set()
    if device.type == "mps":
        missing.add(torch.float64)
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        missing.add(torch.bfloat16)
    return tuple(name for name, dtype in DTYPES.items() if dtype not in missing)


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Makes sure that a device can compute in a dtype.

    Raises:
        InputError: if it cannot.
    """
    supported = supported_dtypes(device)
    if dtype not in (DTYPES[name] for name in supported):
        raise InputError(
            f"{str(dtype).removeprefix('torch.')} is not supported on '{device}'; "
            f"set model.dtype to one of {', '.join(supported)}"
        )


def attention_backends(device: torch.device) -> tuple[str, ...]:
    """The attention back ends that can run on a device."""
    flash = device.type == "cuda" and is_flash_attn_2_available()
    return ATTENTION if flash else ATTENTION[:2]


def pick_attention(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """The attention back end to load a model with.

    Args:
        name: ``auto``, ``eager``, ``sdpa`` or ``flash_attention_2``.
        device: where the model will run.
        dtype: what it will compute in; flash attention knows only the two half precisions.

    Returns:
        The back end's name, or none to leave the choice to the model's own code (``auto``).

    Raises:
        InputError: if the name is not known.
    """
    if name == "auto":
        return None
    if name not in ATTENTION:
        raise InputError(f"attn_implementation '{name}' is not known; choose auto, {', '.join(ATTENTION)}")
    if name != "flash_attention_2":
        return name
    if device.type != "cuda":
        reason = f"it does not run on '{device.type}'"
    elif dtype not in _HALF:
        reason = f"it does not compute in {str(dtype).removeprefix('torch.')}"
    elif not is_flash_attn_2_available():
        reason = "it is not installed (pip install flash-attn)"
    else:
        return name
    logger.warning("attn_implementation 'flash_attention_2' is left for 'sdpa': %s", reason)
    return "sdpa"
