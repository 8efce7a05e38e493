"""The networks that turn images into features."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.core.errors import InputError

BackboneName = Literal["conv4", "conv4_strided", "resnet12", "siamese"]


class Backbone(nn.Module, ABC):
    """Images to feature vectors.

    Attributes:
        features: the length of the vectors.
    """

    features: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """``M x C x H x W`` to ``M x features``."""


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, batch norm, ReLU, and 2 x 2 max pooling where asked for.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the convolution.
        pooled: whether pooling follows.
        running: whether batch norm gathers running statistics for testing; otherwise it always takes those of
            the batch at hand, as the gradient-based methods do (Finn 2017), and can be mapped over tasks.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, pooled: bool = True, running: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, 3, stride, padding=1),
            nn.BatchNorm2d(outputs, track_running_stats=running),
            nn.ReLU(),
        ]
        super().__init__(*layers, *([nn.MaxPool2d(2)] if pooled else []))


class Conv4(Backbone):
    """Four blocks of 3 x 3 convolutions (Vinyals 2016).

    Args:
        channels: of the images.
        size: height and width of the images.
        width: filters of each block.
        strided: halve by strides and average at the end, as MAML does on Omniglot, instead of pooling.
        running: see :class:`ConvBlock`.
    """

    def __init__(
        self, channels: int, size: int, width: int = 64, strided: bool = False, running: bool = True
    ) -> None:
        super().__init__()
        if size < 16 and not strided:
            raise InputError(
                f"conv4 halves the image four times, and {size} pixels are too few; use 16 or more"
            )
        self.strided, self.width = strided, width
        stride = 2 if strided else 1
        self.blocks = nn.Sequential(
            *(
                ConvBlock(channels if block == 0 else width, width, stride, not strided, running)
                for block in range(4)
            )
        )
        self.features = width if strided else width * (size // 16) ** 2

    def forward(self, images: Tensor) -> Tensor:
        """``M x C x H x W`` to ``M x features``."""
        maps: Tensor = self.blocks(images)
        return maps.mean((-2, -1)) if self.strided else maps.flatten(1)


class ResidualBlock(nn.Module):
    """Three 3 x 3 convolutions beside a 1 x 1 one, then 2 x 2 max pooling (Oreshkin 2018)."""

    def __init__(self, inputs: int, outputs: int, running: bool) -> None:
        super().__init__()

        def layer(channels: int, kernel: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(outputs, track_running_stats=running),
            )

        self.layers = nn.ModuleList([layer(inputs, 3), layer(outputs, 3), layer(outputs, 3)])
        self.shortcut = layer(inputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """``M x inputs x H x W`` to ``M x outputs x H/2 x W/2``."""
        inner = maps
        for number, layer in enumerate(self.layers):
            inner = layer(inner)
            if number < 2:
                inner = F.leaky_relu(inner, 0.1)
        return F.max_pool2d(F.leaky_relu(inner + self.shortcut(maps), 0.1), 2)


class ResNet12(Backbone):
    """Four residual blocks and global average pooling (Oreshkin 2018), without DropBlock.

    Args:
        channels: of the images.
        width: channels of the first block; the others have twice, four and eight times as many.
        running: see :class:`ConvBlock`.
    """

    def __init__(self, channels: int, width: int = 64, running: bool = True) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(inputs, outputs, running)
                for inputs, outputs in zip([channels, *widths], widths, strict=False)
            )
        )
        self.features = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """``M x C x H x W`` to ``M x features``."""
        maps: Tensor = self.blocks(images)
        return maps.mean((-2, -1))


class SiameseNet(Backbone):
    """The twin of Koch 2015, for 105 x 105 drawings: 64@10, 128@7, 128@4, 256@4, then 4096 sigmoids."""

    SIZE = 105

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        if size != self.SIZE:
            raise InputError(
                f"the siamese backbone is made for {self.SIZE} x {self.SIZE} images, not {size}; "
                f"set data.size={self.SIZE}, or choose conv4"
            )
        self.blocks = nn.Sequential(
            nn.Conv2d(channels, 64, 10), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 7), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(128, 128, 4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(128, 256, 4), nn.ReLU(), nn.Flatten(),
            nn.Linear(256 * 6 * 6, 4096), nn.Sigmoid(),
        )  # fmt: skip
        self.features = 4096

    def forward(self, images: Tensor) -> Tensor:
        """``M x C x 105 x 105`` to ``M x 4096``."""
        features: Tensor = self.blocks(images)
        return features


def build_backbone(name: BackboneName, channels: int, size: int, width: int, running: bool) -> Backbone:
    """The named backbone.

    Args:
        name: which.
        channels: of the images.
        size: height and width of the images.
        width: filters of the first block; Koch's net has its own.
        running: see :class:`ConvBlock`.

    Raises:
        InputError: it cannot take images of that size.
    """
    match name:
        case "conv4":
            return Conv4(channels, size, width, strided=False, running=running)
        case "conv4_strided":
            return Conv4(channels, size, width, strided=True, running=running)
        case "resnet12":
            if size < 16:
                raise InputError(f"resnet12 halves the image four times, and {size} pixels are too few")
            return ResNet12(channels, width, running)
        case "siamese":
            return SiameseNet(channels, size)


def embed(backbone: Backbone, images: Tensor) -> Tensor:
    """The features of images of any leading dimensions: ``... x C x H x W`` to ``... x features``."""
    flat = images.flatten(0, -4)
    features: Tensor = backbone(_channels_last(flat) if images.device.type == "cpu" else flat)
    return features.view(*images.shape[:-3], -1)


def _channels_last(images: Tensor) -> Tensor:
    """The same images with the channels of a pixel side by side, which the CPU's layers take in less time.

    Of one channel both layouts are the same numbers in the same places, and ``contiguous(memory_format=...)``
    leaves the strides as they are, by which layers choose their way; so the strides are made anew.
    """
    pixels = images.movedim(-3, -1)
    return pixels.flatten().view(pixels.shape).movedim(-1, -3)


def embed_together(backbone: Backbone, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The features of two ``E x M x C x H x W`` tensors in one pass, so that batch norm sees both."""
    features = embed(backbone, torch.cat([left, right], 1))
    return features[:, : left.shape[1]], features[:, left.shape[1] :]
