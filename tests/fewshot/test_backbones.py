"""The backbones: their shapes, their sizes, and what they refuse."""

import pytest
import torch
from torch import nn

from innerloop.core.errors import InputError
from innerloop.fewshot.backbones import BackboneName, Conv4, build_backbone, embed, embed_together

# 3 x 3 convolutions with bias, and batch norm's two numbers a filter.
LATER_BLOCKS = 3 * (9 * 64 * 64 + 64) + 4 * 2 * 64
# Koch 2015: 64@10, 128@7, 128@4, 256@4 and 9216 x 4096.
KOCH = (100 * 64 + 64) + (49 * 64 * 128 + 128) + (16 * 128 * 128 + 128) + (16 * 128 * 256 + 256) + 9217 * 4096


@pytest.mark.parametrize(
    ("name", "size", "channels", "features", "parameters"),
    [
        pytest.param("conv4", 28, 1, 64, 9 * 64 + 64 + LATER_BLOCKS, id="omniglot"),
        pytest.param("conv4", 84, 3, 1600, 27 * 64 + 64 + LATER_BLOCKS, id="mini-imagenet"),
        pytest.param("conv4_strided", 28, 1, 64, 9 * 64 + 64 + LATER_BLOCKS, id="strided"),
        pytest.param("resnet12", 84, 3, 512, None, id="resnet12"),
        pytest.param("siamese", 105, 1, 4096, KOCH, id="siamese"),
    ],
)
def test_shapes_and_sizes(
    name: BackboneName, size: int, channels: int, features: int, parameters: int | None
) -> None:
    backbone = build_backbone(name, channels, size, 64, running=True).eval()
    assert backbone(torch.zeros(2, channels, size, size)).shape == (2, features)
    assert backbone.features == features
    if parameters is not None:
        assert sum(p.numel() for p in backbone.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "size", "line"),
    [
        ("conv4", 12, "12 pixels are too few; use 16 or more"),
        ("resnet12", 12, "12 pixels are too few"),
        ("siamese", 28, "made for 105 x 105 images, not 28"),
    ],
)
def test_images_of_a_size_they_cannot_take(name: BackboneName, size: int, line: str) -> None:
    with pytest.raises(InputError, match=line):
        build_backbone(name, 1, size, 64, running=True)


@pytest.mark.parametrize("name", ["conv4", "conv4_strided", "resnet12"])
def test_without_running_statistics_the_batch_decides_also_in_evaluation(name: BackboneName) -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 1, 16, 16)
    plain = build_backbone(name, 1, 16, 8, running=False).eval()
    assert not [
        buffer
        for module in plain.modules()
        if isinstance(module, nn.BatchNorm2d)
        for buffer in module.buffers()
    ]
    assert not torch.allclose(plain(images)[:2], plain(images[:2]))
    gathered = build_backbone(name, 1, 16, 8, running=True).eval()
    torch.testing.assert_close(gathered(images)[:2], gathered(images[:2]))


def test_leading_dimensions_are_kept() -> None:
    backbone = build_backbone("conv4", 1, 16, 8, running=True).eval()
    images = torch.rand(2, 3, 1, 16, 16)
    features = embed(backbone, images)
    assert features.shape == (2, 3, 8)
    torch.testing.assert_close(features[1, 2], backbone(images[1, 2:])[0])
    left, right = embed_together(backbone, images[:, :1], images[:, 1:])
    torch.testing.assert_close(torch.cat([left, right], 1), features)


@pytest.mark.parametrize("channels", [1, 3])
def test_embedding_lays_channels_side_by_side_and_changes_no_feature(channels: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("conv4", channels, 16, 8, running=False).double()
    assert isinstance(backbone, Conv4)
    images = torch.randn(2, 3, channels, 16, 16, dtype=torch.float64)
    seen: list[tuple[int, ...]] = []
    backbone.blocks[0].register_forward_hook(lambda _module, _inputs, maps: seen.append(maps.stride()))
    features = embed(backbone, images)
    assert seen[0][1] == 1
    torch.testing.assert_close(features.flatten(0, 1), backbone(images.flatten(0, 1)))
    assert seen[1][1] != 1
