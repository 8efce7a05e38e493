"""Which device a run uses: asked for by name, checked on this machine.

A device that is absent is either an error or replaced by the best there is with a warning, never silently.
"""

import logging
import re

import torch

from innerloop.core.errors import InputError

logger = logging.getLogger(__name__)

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
