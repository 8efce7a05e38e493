"""The decoder layers of a model through ``torch.compile``.

A layer is compiled by itself: all are alike, so that one compilation serves them all, at any length of rows.
What was compiled stays in the cache folder, where later runs find it.
"""

import os

import torch
from torch import nn

from innerloop.cache import cache_folder
from innerloop.core.errors import InputError
from innerloop.llm.prefix import decoder_layers, frozen_layers

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def compile_layers(model: nn.Module, device: torch.device) -> None:
    """Has the layers compiled that training runs, at their first use.

    Frozen layers below the lowest adapter stay as they are: what comes out of them is kept
    (:mod:`innerloop.llm.prefix`).

    Args:
        model: with its adapter, if it is to have one; its layers are changed in place.
        device: where it will run.

    Raises:
        InputError: nothing can be compiled for the device here.
    """
    os.environ.setdefault(CACHE_VARIABLE, str(cache_folder() / "compiled"))
    _check_that_compiling_works(device)
    for layer in decoder_layers(model)[len(frozen_layers(model)) :]:
        layer.compile(dynamic=True)


def _check_that_compiling_works(device: torch.device) -> None:
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"model.compile=true, but torch.compile does not work on the {device.type} here ({reason}); it "
            "needs a C++ compiler, and Triton for a GPU; install them, or set model.compile=false"
        ) from error
