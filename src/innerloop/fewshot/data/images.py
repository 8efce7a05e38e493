"""Labelled images in memory: a whole data set is one tensor, and an episode is one indexing of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop.core.errors import InputError

QUARTERS = 4
"""The turns by 90 degrees that make further classes of one."""


@dataclass(frozen=True)
class ImageSet:
    """Images sorted by class.

    Args:
        name: what messages call the set.
        images: ``uint8``, ``M x C x H x W``.
        first: ``int64``, ``classes + 1``: the images of class ``c`` are ``first[c]`` to ``first[c + 1] - 1``.
        classes: the classes' names, those of the images as they are stored.
        turned: each class turned by 90, 180 and 270 degrees counts as a class of its own (Santoro 2016).
    """

    name: str
    images: Tensor
    first: Tensor
    classes: tuple[str, ...]
    turned: bool = False

    def __len__(self) -> int:
        return len(self.classes) * (QUARTERS if self.turned else 1)

    @property
    def counts(self) -> Tensor:
        """The number of images of each class, turned ones included; ``int64``, ``len(self)``."""
        counts = self.first.diff()
        return counts.repeat(QUARTERS) if self.turned else counts

    def take(self, classes: Tensor, picks: Tensor) -> Tensor:
        """Images by class and position in the class.

        Args:
            classes: ``int64``, broadcast to the shape of ``picks``; class ``c + t * stored`` is stored class
                ``c`` after ``t`` quarter turns.
            picks: ``int64``, ``...``.

        Returns:
            ``float32`` in 0 to 1, ``... x C x H x W``.
        """
        classes = classes.expand_as(picks)
        stored = len(self.classes)
        images = self.images[self.first[classes % stored] + picks]
        turns = classes // stored
        for quarter in range(1, QUARTERS) if self.turned else ():
            chosen = turns == quarter
            images[chosen] = torch.rot90(images[chosen], quarter, dims=(-2, -1))
        return as_numbers(images)

    def subset(self, name: str, classes: Sequence[int]) -> "ImageSet":
        """The set of some of the stored classes, in the order given."""
        if not classes:
            raise InputError(f"the split '{name}' of {self.name} holds no class")
        index = torch.tensor(classes)
        sizes = self.first.diff()[index]
        rows = torch.cat([torch.arange(int(self.first[c]), int(self.first[c + 1])) for c in classes])
        first = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        names = tuple(self.classes[c] for c in classes)
        return ImageSet(f"{self.name} ({name})", self.images[rows], first, names, self.turned)


def as_numbers(pixels: Tensor) -> Tensor:
    """``uint8`` pixels as the networks take them, ``float32`` in 0 to 1."""
    return pixels.float() / 255


def image_set(name: str, by_class: Mapping[str, Sequence[Tensor]]) -> ImageSet:
    """The set of some ``uint8``, ``C x H x W`` images, a sequence for each class.

    Raises:
        InputError: there is no class, or one without an image.
    """
    if not by_class:
        raise InputError(f"{name} holds no class")
    for label, images in by_class.items():
        if not len(images):
            raise InputError(f"class '{label}' of {name} holds no image")
    sizes = torch.tensor([len(images) for images in by_class.values()])
    return ImageSet(
        name,
        torch.cat([torch.stack(tuple(images)) for images in by_class.values()]),
        torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]),
        tuple(by_class),
    )
