"""From image files to tensors of one size and one number of channels."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from innerloop.core.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})


def is_image(name: str) -> bool:
    """Whether a file's name is an image's; hidden files are none."""
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def is_colour(data: bytes, place: str) -> bool:
    """Whether an image has colour channels."""
    with _opened(data, place) as image:
        return image.mode not in ("1", "L", "LA", "I", "I;16", "F")


def decode(data: bytes, size: int, colour: bool, place: str) -> Tensor:
    """One image, ``uint8``, ``C x size x size``, 3 channels or 1, resized whatever its sides' ratio.

    Raises:
        InputError: it cannot be read; ``place`` says which it is.
    """
    with _opened(data, place) as image:
        try:
            resized = image.convert("RGB" if colour else "L").resize((size, size), Image.Resampling.LANCZOS)
        except (OSError, SyntaxError, ValueError) as error:
            raise _unreadable(place, error) from error
    pixels = torch.from_numpy(np.array(resized, dtype=np.uint8))
    return pixels.permute(2, 0, 1).contiguous() if colour else pixels[None]


def one_kind(kinds: Iterable[tuple[str, bool]], name: str) -> bool:
    """Whether the images of a set are in colour, all of them.

    Args:
        kinds: place and :func:`is_colour` of each.
        name: the set's.

    Raises:
        InputError: some are, some are not.
    """
    first: dict[bool, str] = {}
    for place, colour in kinds:
        first.setdefault(colour, place)
    if len(first) == 2:
        raise InputError(
            f"{name} mixes colour ({first[True]}) and greyscale images ({first[False]}); convert them to one "
            "kind, or set data.channels to 1 or 3"
        )
    return next(iter(first), False)


def _opened(data: bytes, place: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise _unreadable(place, error) from error


def _unreadable(place: str, error: Exception) -> InputError:
    reason = (
        "it is not an image this release reads" if isinstance(error, UnidentifiedImageError) else str(error)
    )
    return InputError(f"cannot read the image {place}: {reason}; replace it or take it out")
