"""The first block: convolution and batch norm in one, because they are few numbers of the images.

The convolution sees every pixel's neighbourhood, a vector p of 9 I numbers, so the mean and the variance of
its outputs are w·m and wᵀ C w with m the mean and C the covariance of the neighbourhoods. Convolution and
batch norm together are then a convolution with

    u = γ s w,  c = β − u·m,  s = 1/√(wᵀ C w + ε),

and their derivatives are those of this convolution pulled through these few numbers: no pass over the block's
outputs, the largest of the net, is spent on batch norm. The images need no gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from innerloop.fewshot.conv_tasks.block import BlockPoint
from innerloop.fewshot.conv_tasks.layers import Activation, Convolution, side_by_side


@dataclass(frozen=True)
class Neighbourhoods:
    """What the first block needs of a batch of images.

    Args:
        maps: the images, ``M x (T I) x H x W``.
        mean: of the neighbourhoods, ``T x 9I``.
        covariance: of them, ``T x 9I x 9I``.
    """

    maps: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, images: Tensor, stride: int) -> "Neighbourhoods":
        """Of images ``T x M x I x H x W``."""
        # A task at a time: the neighbourhoods are nine times as many numbers as the images.
        means, covariances = [], []
        for task in images:
            columns = F.unfold(task, 3, padding=1, stride=stride).transpose(0, 1).flatten(1)
            mean = columns.mean(1, keepdim=True)
            columns -= mean
            means.append(mean[:, 0])
            covariances.append(columns @ columns.T / columns.shape[1])
        return cls(side_by_side(images), torch.stack(means), torch.stack(covariances))


@dataclass
class FirstBlockPass:
    """The first block at one point; see :class:`~innerloop.fewshot.conv_tasks.block.BlockPass`."""

    convolution: Convolution
    point: BlockPoint
    seen: Neighbourhoods
    pooled: bool
    epsilon: float

    def __post_init__(self) -> None:
        """The forward pass."""
        self._weight, bias = self._merged(self.point)
        self._activation = Activation.of(self.convolution(self.seen.maps, self._weight, bias), self.pooled)

    @property
    def output(self) -> Tensor:
        """The maps that leave the block."""
        return self._activation.output

    def backward(self, output: Tensor) -> BlockPoint:
        """The parameters' cotangents from the output's."""
        self._to_merged = self._to_weight(output)
        return self._pulled(self.point, *self._to_merged)

    def tangent(self, along: BlockPoint) -> Tensor:
        """The output's tangent along a direction of the parameters."""
        self._along = along
        weight, bias = torch.func.jvp(
            lambda *point: self._merged(BlockPoint(*point)), _parts(self.point), _parts(along)
        )[1]
        return self._activation.tangent(self.convolution(self.seen.maps, weight, bias))

    def backward_tangent(self, output: Tensor) -> BlockPoint:
        """The tangent of what :meth:`backward` gave, from that of the output's cotangent."""
        found = torch.func.jvp(
            lambda weight, scale, shift, to_weight, to_bias: _parts(
                self._pulled(BlockPoint(weight, scale, shift), to_weight, to_bias)
            ),
            (*_parts(self.point), *self._to_merged),
            (*_parts(self._along), *self._to_weight(output)),
        )[1]
        return BlockPoint(*found)

    def _to_weight(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The cotangents of the merged weight and bias."""
        maps = self._activation.to_input(output)
        return self.convolution.to_weight(maps, self.seen.maps, self._weight), maps.sum((0, 2, 3))

    def _inverse(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """s, ``T x C x 1``, and w C of weights ``T x C x 9I``."""
        spread = rows @ self.seen.covariance
        return ((rows * spread).sum(-1, keepdim=True) + self.epsilon).rsqrt(), spread

    def _merged(self, point: BlockPoint) -> tuple[Tensor, Tensor]:
        rows = self._rows(point.weight)
        inverse, _ = self._inverse(rows)
        merged = self._rows(point.scale) * inverse * rows
        bias = point.shift - (merged @ self.seen.mean[..., None]).flatten()
        return merged.view(point.weight.shape), bias

    def _pulled(self, point: BlockPoint, to_weight: Tensor, to_bias: Tensor) -> BlockPoint:
        rows, scale = self._rows(point.weight), self._rows(point.scale)
        inverse, spread = self._inverse(rows)
        cotangent = self._rows(to_weight) - self._rows(to_bias) * self.seen.mean[:, None]
        to_scale = inverse * (cotangent * rows).sum(-1, keepdim=True)
        to_rows = scale * inverse * (cotangent - inverse * to_scale * spread)
        return BlockPoint(to_rows.view(point.weight.shape), to_scale.flatten(), to_bias)

    def _rows(self, of_channels: Tensor) -> Tensor:
        return of_channels.view(self.convolution.tasks, -1, of_channels[0].numel())


def _parts(point: BlockPoint) -> tuple[Tensor, Tensor, Tensor]:
    return point.weight, point.scale, point.shift
