"""A block of convolution, batch norm by the batch's statistics, and ReLU, for many tasks at once.

With x̂ = s (y − mean y) the normalised output of the convolution, s = 1/√(var y + ε), and for a channel

    D(v) = s (v − mean v − x̂ mean(v x̂)),

which is its own adjoint, the block's derivatives are

    forward tangent     x̂' = D(y'),  z' = γ x̂' + γ' x̂ + β'
    backward            ∂y = D(γ g),  ∂γ = Σ g x̂,  ∂β = Σ g                 (g the cotangent of z)
    its tangent         ∂y' = D(γ g' + γ' g) + (s'/s) D(γ g) − s (x̂' mean(γ g x̂) + x̂ mean(γ g x̂'))
                        ∂γ' = Σ g' x̂ + Σ g x̂',  ∂β' = Σ g',  s'/s = −s mean(y' x̂)

The bias of the convolution is subtracted with the mean, so it plays no part.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop.fewshot.conv_tasks.layers import Activation, Convolution

_aten = torch.ops.aten


@dataclass(frozen=True)
class BlockPoint:
    """A block's parameters, or a direction or gradient of them.

    Args:
        weight: of the convolutions, ``(T C) x I x 3 x 3``.
        scale: γ, ``(T C)``.
        shift: β, ``(T C)``.
    """

    weight: Tensor
    scale: Tensor
    shift: Tensor


@dataclass
class BlockPass:
    """One block at one point and input; first forward, then backward, then along directions.

    Args:
        convolution: of the block.
        point: the parameters.
        maps: the input.
        pooled: whether pooling follows.
        epsilon: added to the variance.
    """

    convolution: Convolution
    point: BlockPoint
    maps: Tensor
    pooled: bool
    epsilon: float

    def __post_init__(self) -> None:
        """The forward pass."""
        self._raw = self.convolution(self.maps, self.point.weight)
        normed, self._mean, self._inverse = torch.native_batch_norm(
            self._raw, self.point.scale, self.point.shift, None, None, True, 0.0, self.epsilon
        )
        self._activation = Activation.of(normed, self.pooled)
        self._count = self._raw.numel() // self._raw.shape[1]

    @property
    def output(self) -> Tensor:
        """The maps that leave the block."""
        return self._activation.output

    def backward(self, output: Tensor) -> tuple[BlockPoint, Tensor]:
        """The parameters' and the input's cotangents from the output's."""
        self._to_normed = self._activation.to_input(output)
        self._to_raw, self._to_scale, self._to_shift = self._normed_backward(
            self._to_normed, self.point.scale
        )
        weight = self.convolution.to_weight(self._to_raw, self.maps, self.point.weight)
        maps = self.convolution.to_input(self._to_raw, self.maps, self.point.weight)
        return BlockPoint(weight, self._to_scale, self._to_shift), maps

    def tangent(self, along: BlockPoint, maps: Tensor) -> Tensor:
        """The output's tangent along a direction of the parameters and the input."""
        self._along, self._maps_along = along, maps
        raw = self.convolution(maps, self.point.weight).add_(self.convolution(self.maps, along.weight))
        self._hat_along, raw_dot_hat, _ = self._normed_backward(raw, None)
        # s'/s
        self._inverse_along = raw_dot_hat * self._inverse / -self._count
        slope = along.scale * self._inverse
        normed = torch.addcmul(_row(along.shift - slope * self._mean), self._raw, _row(slope))
        normed.addcmul_(self._hat_along, _row(self.point.scale))
        return self._activation.tangent(normed)

    def backward_tangent(self, output: Tensor) -> tuple[BlockPoint, Tensor]:
        """The tangents of what :meth:`backward` gave, from that of the output's cotangent."""
        scale, inverse, count = self.point.scale, self._inverse, self._count
        normed = self._activation.to_input(output)
        through, scale_direct, shift = self._normed_backward(normed, scale)
        scale_across = (self._to_normed * self._hat_along).sum((0, 2, 3))
        # The other terms of ∂y' as multiples, channel by channel, of g, x̂', y and 1.
        of_cotangent = inverse * (self._along.scale + scale * self._inverse_along)
        of_hat_along = -inverse * scale * self._to_scale / count
        of_hat = -(of_cotangent * self._to_scale + inverse * scale * scale_across) / count
        of_raw = of_hat * inverse
        constant = -of_cotangent * self._to_shift / count - of_raw * self._mean
        raw = torch.addcmul(through, self._raw, _row(of_raw)).add_(_row(constant))
        raw.addcmul_(self._to_normed, _row(of_cotangent)).addcmul_(self._hat_along, _row(of_hat_along))
        weight = self.convolution.to_weight(raw, self.maps, self.point.weight)
        weight += self.convolution.to_weight(self._to_raw, self._maps_along, self.point.weight)
        maps = self.convolution.to_input(raw, self.maps, self.point.weight)
        maps += self.convolution.to_input(self._to_raw, self.maps, self._along.weight)
        return BlockPoint(weight, scale_direct + scale_across, shift), maps

    def _normed_backward(self, normed: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """D(scale · normed), Σ normed x̂ and Σ normed."""
        found: tuple[Tensor, Tensor, Tensor] = _aten.native_batch_norm_backward(
            normed, self._raw, scale, None, None, self._mean, self._inverse, True, self.epsilon,
            (True, True, True),
        )  # fmt: skip
        return found


def _row(channels: Tensor) -> Tensor:
    return channels.view(-1, 1, 1)
