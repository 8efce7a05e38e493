"""Which device, dtype and attention back end a model runs with: asked for by name, checked on this machine.

A wish that cannot be met is either an error or met by the nearest thing with a warning, never silently.
"""

import logging
import re

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
_DEVICE = re.compile(r"(auto|cpu|cuda|mps)(?::(\d+))?")


def best_device() -> torch.device:
    """The fastest kind of device this machine has: CUDA, then MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_device(name: str = "auto", strict: bool = False) -> torch.device:
    """The device a name stands for on this machine.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``mps``, or ``cuda:1`` for one of several.
        strict: whether a device that is absent is an error instead of a warning.

    Raises:
        InputError: if the name is none of these, or the device is absent and ``strict`` is set.
    """
    match = _DEVICE.fullmatch(name)
    if match is None or (match[2] is not None and match[1] != "cuda"):
        raise InputError(f"device '{name}' is not known; choose auto, cpu, cuda, cuda:N or mps")
    kind, index = match[1], int(match[2] or 0)
    if kind == "auto":
        return best_device()
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and index < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }[kind]
    if present:
        return torch.device(name)
    best = best_device()
    if strict:
        raise InputError(
            f"device '{name}' is not on this machine; use trainer.device={best.type}, "
            "or trainer.strict_device=false to fall back by itself"
        )
    logger.warning("device '%s' is not on this machine; using '%s'", name, best)
    return best


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
