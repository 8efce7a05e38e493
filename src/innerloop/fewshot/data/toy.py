"""A generated set for tests and first steps: blurred random patterns, drawn with shifts and noise."""

import torch
from torch.nn import functional as F

from innerloop.core.sampler import derive_seed
from innerloop.fewshot.data.images import ImageSet
from innerloop.fewshot.data.splits import Splits

CELLS = 4
CLASSES = (60, 20, 20)
"""To train on, to choose on, to test on."""
IMAGES = 20
"""A class."""


def toy_splits(size: int = 16, seed: int = 0) -> Splits:
    """Greyscale classes that a few gradient steps can tell apart, and whose raw pixels cannot.

    A class is a pattern of 4 x 4 cells; its images are the pattern shifted around the border by up to a cell,
    at another contrast and under noise.

    Args:
        size: height and width; a multiple of 4.
        seed: of everything.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "toy"))
    total = sum(CLASSES)
    cells = (torch.rand(total, 1, CELLS, CELLS, generator=generator) > 0.5).float()
    patterns = F.interpolate(cells, size=(size, size), mode="bilinear", align_corners=False)
    reach = size // CELLS
    shifts = torch.randint(-reach // 2, reach // 2 + 1, (total, IMAGES, 2), generator=generator)
    drawn = torch.stack(
        [
            torch.stack([torch.roll(pattern, tuple(shift.tolist()), dims=(-2, -1)) for shift in own])
            for pattern, own in zip(patterns, shifts, strict=True)
        ]
    )
    contrast = 0.6 + 0.4 * torch.rand(total, IMAGES, 1, 1, 1, generator=generator)
    noise = 0.15 * torch.randn(drawn.shape, generator=generator)
    pixels = ((contrast * drawn + noise).clamp(0, 1) * 255).to(torch.uint8)
    whole = ImageSet(
        "the toy set",
        pixels.flatten(0, 1),
        torch.arange(total + 1) * IMAGES,
        tuple(f"pattern_{number:03d}" for number in range(total)),
    )
    train, validation, _ = CLASSES
    numbers = list(range(total))
    return Splits(
        whole.subset("train", numbers[:train]),
        whole.subset("validation", numbers[train : train + validation]),
        whole.subset("test", numbers[train + validation :]),
    )
