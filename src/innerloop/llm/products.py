"""Matrix products of a model on the CPU, by the kernels that use all of the processor.

PyTorch hands float32 products to MKL, which keeps its AVX-512 kernels for Intel's processors; on others
oneDNN, which PyTorch brings too, takes half the time. A model's linear layers go there by :func:`speed_up`,
and those with a LoRA adapter add it in passing. What both compute stays the same but for rounding. Anything
out of the ordinary (another dtype or device, functorch's transforms, a second adapter) takes the way it
always took.
"""

import sys
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear as torch_linear

LEAST_WORK = 1 << 15
"""Multiply-adds below which calling oneDNN costs more than it saves."""


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor with AVX-512 for which MKL has no AVX-512 kernels."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not has_onednn or not sys.platform.startswith("linux"):
        return False
    about = Path("/proc/cpuinfo")
    text = about.read_text() if about.exists() else ""
    return "avx512f" in text and "GenuineIntel" not in text


def speed_up(model: nn.Module) -> None:
    """Has the model's linear layers multiply by oneDNN, where that is faster; changed in place.

    Args:
        model: with its adapter, if it is to have one, on a CPU.
    """
    if not onednn_is_faster():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
        elif type(module) is LoraLinear and not module.lora_variant:
            module.__class__ = OneDnnLoraLinear


class OneDnnLinear(nn.Linear):
    """A linear layer whose products are oneDNN's."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name it has in PyTorch
        """As ``nn.Linear``."""
        if not _ordinary(input, self.weight):
            return torch_linear(input, self.weight, self.bias)
        output = times(input.flatten(0, -2), self.weight).view(*input.shape[:-1], -1)
        return output if self.bias is None else output + self.bias


class OneDnnLoraLinear(LoraLinear):
    """A linear layer of PEFT's with one plain LoRA adapter, which is added while its output is written."""

    def forward(self, x: Tensor, adapter_names: list[str] | None = None) -> Tensor:
        """As PEFT's, without the arguments of its variants."""
        plain = not (adapter_names or self.merged or self.disable_adapters or self.lora_variant)
        if not plain or len(self.active_adapters) != 1 or self.active_adapters[0] not in self.lora_A:
            return self._by_peft(x, adapter_names)
        name = self.active_adapters[0]
        base: Any = self.base_layer
        down, up = cast(nn.Linear, self.lora_A[name]), cast(nn.Linear, self.lora_B[name])
        drops = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        of_linear = isinstance(base, nn.Linear) and not self.fan_in_fan_out and up.bias is None
        if drops or not of_linear or not _ordinary(x, base.weight, down.weight, up.weight):
            return self._by_peft(x, adapter_names)
        scale: float = self.scaling[name]
        flat: Tensor = _Adapted.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), base.weight, down.weight, up.weight, scale
        )
        output = flat.view(*x.shape[:-1], -1)
        return output if base.bias is None else output + base.bias

    def _by_peft(self, x: Tensor, adapter_names: list[str] | None) -> Tensor:
        output: Tensor = super().forward(x, adapter_names=adapter_names)
        return output


def times(left: Tensor, right: Tensor) -> Tensor:
    """The product ``left @ right.T``, which can be differentiated any number of times.

    Args:
        left: (n, k) float32, on the CPU.
        right: (m, k).

    Returns:
        (n, m).
    """
    if torch.is_grad_enabled() and (left.requires_grad or right.requires_grad):
        product: Tensor = _Product.apply(left, right)  # type: ignore[no-untyped-call]
        return product
    return _multiply(left, right)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        return _multiply(left, right)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (left, right) = gradients, ctx.saved_tensors
        to_left, to_right = ctx.needs_input_grad
        return (
            times(gradient, right.T) if to_left else None,
            times(gradient.T, left.T) if to_right else None,
        )


class _Adapted(torch.autograd.Function):
    """x Wᵀ + s (x Aᵀ) Bᵀ. Backward asks ``times`` for everything, so it can be differentiated itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale = scale
        return _plus_times(_multiply(x, weight), scale * _multiply(x, down), up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight, down, up) = gradients, ctx.saved_tensors
        to_x, to_weight, to_down, to_up, _ = ctx.needs_input_grad
        inner = ctx.scale * times(gradient, up.T) if to_x or to_down else gradient
        return (
            _plus_times(times(gradient, weight.T), inner, down.T) if to_x else None,
            times(gradient.T, x.T) if to_weight else None,
            times(inner.T, x.T) if to_down else None,
            times(gradient.T, (ctx.scale * times(x, down)).T) if to_up else None,
            None,
        )


def _plus_times(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``total + left @ right.T``; outside any graph in one go."""
    if torch.compiler.is_compiling():
        return total + _multiply(left, right)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (total, left, right)):
        return total + times(left, right)
    both: Tensor = torch.ops.mkldnn._linear_pointwise.binary(left, total, right, None, "add")
    return both


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T`` outside any graph."""
    (rows, inner), columns = left.shape, len(right)
    if rows * inner * columns < LEAST_WORK:
        return torch.mm(left, right.T)
    # oneDNN wants the left side row by row and PyTorch copies it for that; the right side it takes as it is.
    if left.stride(-1) != 1 and rows > columns:
        return _multiply(right, left).T
    # The compiler knows this operator for weights alone, and in a layout of its own.
    product: Tensor = (_opaque_product if torch.compiler.is_compiling() else _product)(left, right)
    return product


def _product(left: Tensor, right: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return product


_opaque_product = torch.library.custom_op("innerloop::product", _product, mutates_args=())


@_opaque_product.register_fake
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(left.shape[0], right.shape[0])


def _ordinary(*tensors: Tensor) -> bool:
    """Whether they are plain float32 tensors on the CPU, and neither functorch nor autocast is at work."""
    if torch._C._are_functorch_transforms_active() or torch.is_autocast_enabled("cpu"):
        return False
    return all(
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype is torch.float32
        and tensor.device.type == "cpu"
        and tensor.ndim > 1
        for tensor in tensors
    )
