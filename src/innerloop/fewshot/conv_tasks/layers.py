"""The layers of a block for many tasks at once: convolution, ReLU and pooling, each with its two derivatives.

Maps of ``T`` tasks have the shape ``M x (T C) x H x W`` with the channels of a pixel side by side, those of a
task together. In this layout the convolutions of all tasks are one grouped convolution and their batch norms
one batch norm over ``T C`` channels, which are PyTorch's fastest kernels on a CPU.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_aten = torch.ops.aten


def side_by_side(images: Tensor) -> Tensor:
    """``T x M x C x H x W`` as maps."""
    tasks, count, channels, height, width = images.shape
    pixels = images.permute(1, 3, 4, 0, 2).reshape(count, height, width, tasks * channels)
    # Of one channel NCHW and NHWC are the same numbers; only made this way are the strides those of NHWC.
    return pixels.flatten().view(pixels.shape).permute(0, 3, 1, 2)


def with_pixels_last(weight: Tensor) -> Tensor:
    """The same weights for all tasks, expanded to ``T x C x I x 3 x 3``, in the layout the maps have.

    What is computed from them keeps it, so that no convolution has to bring its weights into it.
    """
    if weight.dim() < 5:
        return weight
    return weight[0].contiguous(memory_format=torch.channels_last).expand_as(weight)


def by_task(features: Tensor, tasks: int) -> Tensor:
    """``M x (T F)`` as ``T x M x F``."""
    return features.view(features.shape[0], tasks, -1).transpose(0, 1)


@dataclass(frozen=True)
class Convolution:
    """3 x 3 convolutions with padding 1, one a task, without bias unless given.

    Args:
        tasks: ``T``.
        stride: of all of them.
    """

    tasks: int
    stride: int

    def __call__(self, maps: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The outputs under weights ``(T C) x I x 3 x 3``."""
        return F.conv2d(maps, weight, bias, self.stride, 1, 1, self.tasks)

    def to_input(self, outputs: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        """The cotangent of the maps from that of the outputs."""
        return self._backward(outputs, maps, weight, (True, False, False))[0]

    def to_weight(self, outputs: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        """The cotangent of the weights from that of the outputs."""
        return self._backward(outputs, maps, weight, (False, True, False))[1]

    def _backward(
        self, outputs: Tensor, maps: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        stride = (self.stride, self.stride)
        found: tuple[Tensor, Tensor, Tensor] = _aten.convolution_backward(
            outputs, maps, weight, None, stride, (1, 1), (1, 1), False, (0, 0), self.tasks, wanted
        )
        return found


@dataclass(frozen=True)
class Activation:
    """ReLU after 2 x 2 max pooling (the order does not matter), or ReLU alone, at one input.

    Its derivative is a choice of entries, constant to the second derivative.

    Args:
        output: what came out.
        shape: of what went in.
        indices: which entry of each window was the largest; ``None`` without pooling.
    """

    output: Tensor
    shape: torch.Size
    indices: Tensor | None

    @classmethod
    def of(cls, maps: Tensor, pooled: bool) -> "Activation":
        """At these maps, which it may overwrite, as it may what its derivatives are given."""
        if not pooled:
            return cls(maps.relu_(), maps.shape, None)
        largest, indices = F.max_pool2d_with_indices(maps, [2, 2])
        return cls(largest.relu_(), maps.shape, indices)

    def tangent(self, maps: Tensor) -> Tensor:
        """The output's tangent from the input's."""
        if self.indices is not None:
            maps = maps.flatten(2).gather(2, self.indices.flatten(2)).view(self.indices.shape)
        return self._where_positive(maps)

    def to_input(self, output: Tensor) -> Tensor:
        """The input's cotangent from the output's."""
        output = self._where_positive(output)
        if self.indices is None:
            return output
        like = torch.empty(
            self.shape, dtype=output.dtype, device=output.device, memory_format=torch.channels_last
        )
        found: Tensor = _aten.max_pool2d_with_indices_backward(
            output, like, (2, 2), (2, 2), (0, 0), (1, 1), False, self.indices
        )
        return found

    def _where_positive(self, maps: Tensor) -> Tensor:
        chosen: Tensor = _aten.threshold_backward.grad_input(maps, self.output, 0, grad_input=maps)
        return chosen
