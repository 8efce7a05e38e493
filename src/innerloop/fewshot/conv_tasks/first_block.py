"""The first block: convolution and batch norm in one, because they are few numbers of the images.

The convolution sees every pixel's neighbourhood, a vector p of 9 I numbers, so the mean and the variance of
its outputs are w·m and wᵀ C w with m the mean and C the covariance of the neighbourhoods. Convolution and
batch norm together are then a convolution with

    u = γ s w,  c = β − u·m,  s = 1/√(wᵀ C w + ε),

and their derivatives are those of this convolution pulled through these few numbers: no pass over the block's
outputs, the largest of the net, is spent on batch norm. With U, h the cotangents of u, c and K = U − h mᵀ,

    backward            ∂γ = s K·w,  ∂w = γ s (K − s ∂γ C w),  ∂β = h
    forward tangent     s' = −s³ w'·C w,  u' = (γ s)' w + γ s w',  c' = β' − u'·m
    the backward's      ∂γ' = s' K·w + s (K'·w + K·w'),
                        ∂w' = (γ s)' ∂w / γ s + γ s (K' − (s ∂γ)' C w − s ∂γ C w'),  ∂β' = h'

The images need no gradient.
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
        self._rows, self._scale = self._by_channel(self.point)
        self._spread = self._rows @ self.seen.covariance
        variance = _dot(self._rows, self._spread) + self.epsilon
        self._inverse = variance.rsqrt()
        self._slope = self._scale * self._inverse
        self._weight, bias = self._merged(self._slope * self._rows, self.point.shift)
        self._activation = Activation.of(self.convolution(self.seen.maps, self._weight, bias), self.pooled)

    @property
    def output(self) -> Tensor:
        """The maps that leave the block."""
        return self._activation.output

    def backward(self, output: Tensor) -> BlockPoint:
        """The parameters' cotangents from the output's."""
        self._cotangent, shift = self._to_merged(output)
        self._along_rows = _dot(self._cotangent, self._rows)
        self._to_scale = self._inverse * self._along_rows
        self._to_rows = self._cotangent - self._inverse * self._to_scale * self._spread
        return self._point(self._slope * self._to_rows, self._to_scale, shift)

    def tangent(self, along: BlockPoint) -> Tensor:
        """The output's tangent along a direction of the parameters."""
        self._rows_tangent, scale = self._by_channel(along)
        self._inverse_tangent = -self._inverse.pow(3) * _dot(self._rows_tangent, self._spread)
        self._slope_tangent = scale * self._inverse + self._scale * self._inverse_tangent
        merged = self._slope_tangent * self._rows + self._slope * self._rows_tangent
        return self._activation.tangent(self.convolution(self.seen.maps, *self._merged(merged, along.shift)))

    def backward_tangent(self, output: Tensor) -> BlockPoint:
        """The tangent of what :meth:`backward` gave, from that of the output's cotangent."""
        cotangent, shift = self._to_merged(output)
        across = _dot(cotangent, self._rows) + _dot(self._cotangent, self._rows_tangent)
        to_scale = self._inverse_tangent * self._along_rows + self._inverse * across
        to_spread = self._inverse_tangent * self._to_scale + self._inverse * to_scale
        to_rows = cotangent - to_spread * self._spread
        to_rows -= self._inverse * self._to_scale * (self._rows_tangent @ self.seen.covariance)
        rows = self._slope_tangent * self._to_rows + self._slope * to_rows
        return self._point(rows, to_scale, shift)

    def _merged(self, rows: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """The one convolution's weight and bias from its rows and β."""
        bias = shift - (rows @ self.seen.mean[..., None]).flatten()
        return rows.view(self.point.weight.shape), bias

    def _to_merged(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """K, and the cotangent of the merged bias."""
        maps = self._activation.to_input(output)
        weight = self.convolution.to_weight(maps, self.seen.maps, self._weight)
        bias = maps.sum((0, 2, 3))
        rows = weight.reshape(self._rows.shape) - bias.view(self._scale.shape) * self.seen.mean[:, None]
        return rows, bias

    def _by_channel(self, point: BlockPoint) -> tuple[Tensor, Tensor]:
        """w as ``T x C x 9I`` and γ as ``T x C x 1``."""
        tasks = self.convolution.tasks
        weight = point.weight
        return weight.reshape(tasks, -1, weight[0].numel()), point.scale.view(tasks, -1, 1)

    def _point(self, rows: Tensor, scale: Tensor, shift: Tensor) -> BlockPoint:
        return BlockPoint(rows.view(self.point.weight.shape), scale.flatten(), shift)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(-1, keepdim=True)
