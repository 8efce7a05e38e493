"""The classes to train on, to choose settings on, and to test on. They share none."""

from dataclasses import dataclass
from typing import Literal

from innerloop.core.errors import InputError
from innerloop.fewshot.data.images import ImageSet

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Splits:
    """Three sets of images without a common class; a user's own data may lack the last two.

    Args:
        train: to train on.
        validation: to choose on; none if the data has none.
        test: to report on; none if the data has none.
    """

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet | None

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for split in ("train", "validation", "test"):
            images: ImageSet | None = getattr(self, split)
            for name in images.classes if images is not None else ():
                if name in seen:
                    raise InputError(
                        f"the class '{name}' is in both {seen[name]} and {split}; leave it in one"
                    )
                seen[name] = split

    def get(self, name: SplitName) -> ImageSet:
        """One of them.

        Raises:
            InputError: the data has none of that name.
        """
        images: ImageSet | None = getattr(self, name)
        if images is None:
            raise InputError(f"{self.train.name} has no {name} split; add one, or name another with --split")
        return images
