"""Folders of small images for the tests."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def picture(path: Path, colour: tuple[int, int, int] | int, size: int = 8) -> Path:
    """Writes one plain image, in colour or greyscale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", (size, size), colour).save(path)
    return path


def class_folders(folder: Path, classes: Mapping[str, int]) -> Path:
    """A folder for each class with so many greyscale images, each image of another brightness."""
    for number, (name, images) in enumerate(classes.items()):
        for image in range(images):
            picture(folder / name / f"{image:02d}.png", 10 * number + image)
    return folder
