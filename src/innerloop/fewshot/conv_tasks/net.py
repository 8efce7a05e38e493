"""A classifier over Conv4 at the points of many tasks: its loss, gradient and Hessian-vector products."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.core.params import Params
from innerloop.fewshot.backbones import Conv4
from innerloop.fewshot.conv_tasks.block import BlockPass, BlockPoint
from innerloop.fewshot.conv_tasks.first_block import FirstBlockPass, Neighbourhoods
from innerloop.fewshot.conv_tasks.layers import Convolution, by_task


@dataclass(frozen=True)
class Plan:
    """What is the same at all points of a classifier over Conv4.

    Args:
        strided: whether the blocks halve by strides, and the net averages at the end, instead of pooling.
        epsilons: of each block's batch norm.
    """

    strided: bool
    epsilons: tuple[float, ...]

    @classmethod
    def of(cls, backbone: Conv4) -> "Plan":
        """Of a backbone."""
        norms = (layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d))
        return cls(backbone.strided, tuple(norm.eps for norm in norms))

    @property
    def stride(self) -> int:
        """Of the convolutions."""
        return 2 if self.strided else 1


class NetPass:
    """The classifiers of ``T`` tasks on a batch each, forward when made.

    Args:
        plan: the net.
        params: the points, each tensor with a leading dimension ``T``.
        seen: the images.
    """

    def __init__(self, plan: Plan, params: Params, seen: Neighbourhoods) -> None:
        self.tasks = len(seen.mean)
        convolution = Convolution(self.tasks, plan.stride)
        points = [_block_point(params, block) for block in range(len(plan.epsilons))]
        pooled = not plan.strided
        self.first = FirstBlockPass(convolution, points[0], seen, pooled, plan.epsilons[0])
        self.blocks: list[BlockPass] = []
        maps = self.first.output
        for point, epsilon in zip(points[1:], plan.epsilons[1:], strict=True):
            self.blocks.append(BlockPass(convolution, point, maps, pooled, epsilon))
            maps = self.blocks[-1].output
        self._averaged, self._maps = plan.strided, maps
        self._head = params["head.weight"]
        self._features = self._to_features(maps)
        self.logits = torch.baddbmm(params["head.bias"][:, None], self._features, self._head.mT)

    def loss(self, labels: Tensor) -> Tensor:
        """The mean cross-entropy of labels ``T x M``, shape ``(T,)``."""
        losses = F.cross_entropy(self.logits.flatten(0, 1), labels.flatten(), reduction="none")
        return losses.view(labels.shape).mean(1)

    def gradient(self, labels: Tensor) -> Params:
        """The gradient of :meth:`loss`, a task's own in each row."""
        self._shares = self.logits.softmax(-1)
        wrong = self._shares - F.one_hot(labels, self.logits.shape[-1])
        self._to_logits = wrong / labels.shape[1]
        found = self._head_gradient(self._to_logits, self._features)
        output = self._to_maps(self._to_logits @ self._head)
        for number in reversed(range(len(self.blocks))):
            point, output = self.blocks[number].backward(output)
            self._enter(found, number + 1, point)
        self._enter(found, 0, self.first.backward(output))
        return found

    def product(self, direction: Params) -> Params:
        """The Hessian of :meth:`loss` times a direction; after :meth:`gradient`."""
        maps = self.first.tangent(_block_point(direction, 0))
        for number, block in enumerate(self.blocks):
            maps = block.tangent(_block_point(direction, number + 1), maps)
        features, head = self._to_features(maps), direction["head.weight"]
        logits = torch.baddbmm(direction["head.bias"][:, None], features, self._head.mT)
        logits.baddbmm_(self._features, head.mT)
        shares = self._shares * (logits - (self._shares * logits).sum(-1, keepdim=True))
        to_logits = shares / logits.shape[1]
        found = self._head_gradient(to_logits, self._features)
        found["head.weight"].baddbmm_(self._to_logits.mT, features)
        output = self._to_maps(torch.baddbmm(to_logits @ self._head, self._to_logits, head))
        for number in reversed(range(len(self.blocks))):
            point, output = self.blocks[number].backward_tangent(output)
            self._enter(found, number + 1, point)
        self._enter(found, 0, self.first.backward_tangent(output))
        return found

    def _to_features(self, maps: Tensor) -> Tensor:
        return by_task(maps.mean((2, 3)) if self._averaged else maps.flatten(1), self.tasks)

    def _to_maps(self, features: Tensor) -> Tensor:
        """The cotangent of the last maps from that of the features."""
        shape, flat = self._maps.shape, features.transpose(0, 1).reshape(self._maps.shape[0], -1)
        if not self._averaged:
            return flat.view(shape).contiguous(memory_format=torch.channels_last)
        spread = (flat / (shape[2] * shape[3]))[:, :, None, None].expand(shape)
        return spread.contiguous(memory_format=torch.channels_last)

    def _head_gradient(self, to_logits: Tensor, features: Tensor) -> Params:
        return {"head.weight": to_logits.mT @ features, "head.bias": to_logits.sum(1)}

    def _enter(self, found: Params, block: int, point: BlockPoint) -> None:
        scale = point.scale.view(self.tasks, -1)
        found[f"body.blocks.{block}.0.weight"] = point.weight.view(*scale.shape, *point.weight.shape[1:])
        found[f"body.blocks.{block}.0.bias"] = torch.zeros_like(scale)
        found[f"body.blocks.{block}.1.weight"] = scale
        found[f"body.blocks.{block}.1.bias"] = point.shift.view(self.tasks, -1)


def _block_point(params: Params, block: int) -> BlockPoint:
    weight = params[f"body.blocks.{block}.0.weight"]
    return BlockPoint(
        # Where all tasks have the same weights this is a copy, and in the layout of the maps.
        weight.movedim(2, -1).flatten(0, 1).movedim(-1, 1),
        params[f"body.blocks.{block}.1.weight"].flatten(),
        params[f"body.blocks.{block}.1.bias"].flatten(),
    )
