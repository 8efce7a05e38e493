"""A folder of images, a folder for each class: mini-ImageNet, CIFAR-FS, or anyone's own.

How its classes are split is read from the folder: subfolders ``train``, ``val`` (or ``validation``) and
``test``; else ``train.csv``, ``val.csv`` and ``test.csv`` with the columns ``filename,label`` beside a folder
``images`` (Ravi & Larochelle's mini-ImageNet); else a ``splits.json`` that lists the classes of each split;
else classes are drawn, 64 % to train on, 16 % to choose on, 20 % to test on.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.fewshot.data.decoding import decode, is_colour, is_image, one_kind
from innerloop.fewshot.data.images import ImageSet, image_set
from innerloop.fewshot.data.splits import Splits

VALIDATION_NAMES = ("val", "validation")
TRAIN_SHARE, VALIDATION_SHARE = 0.64, 0.16

Files = dict[str, list[Path]]


def load_folder(folder: Path, size: int, channels: int | None = None, seed: int = 0) -> Splits:
    """Reads the images and their split.

    Args:
        folder: see the module.
        size: height and width they are resized to.
        channels: 3 or 1 to convert all of them; none takes them as they are, all of one kind.
        seed: of the split, where it is drawn.

    Raises:
        InputError: no image, no training split, a damaged image or split file, colour among greyscale.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; name the folder of the images with data.path")
    parts = _split_files(folder, seed)
    everything = {
        f"{part}/{name}": files for part, classes in parts.items() for name, files in classes.items()
    }
    colour = channels == 3 if channels is not None else _one_kind(everything, folder)
    sets = {part: _read(f"{folder} ({part})", classes, size, colour) for part, classes in parts.items()}
    return Splits(sets["train"], sets.get("validation"), sets.get("test"))


def load_classes(folder: Path, size: int, channels: int) -> ImageSet:
    """The images of a folder with a folder for each class, without a split; for example a support set."""
    return _read(str(folder), _class_folders(folder), size, channels == 3)


def load_flat(folder: Path, size: int, channels: int) -> tuple[list[Path], torch.Tensor]:
    """All images below a folder, whatever their folders mean, sorted by path.

    Returns:
        Their paths, and ``uint8``, ``M x C x size x size``.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if is_image(path.name)) if folder.is_dir() else []
    if not files:
        raise InputError(f"{folder} holds no image")
    return files, torch.stack([decode(file.read_bytes(), size, channels == 3, str(file)) for file in files])


def _split_files(folder: Path, seed: int) -> Mapping[str, Files]:
    if (folder / "train").is_dir():
        parts = {"train": _class_folders(folder / "train")}
        for name in VALIDATION_NAMES:
            if (folder / name).is_dir():
                parts["validation"] = _class_folders(folder / name)
        if (folder / "test").is_dir():
            parts["test"] = _class_folders(folder / "test")
        return parts
    if (folder / "train.csv").is_file():
        parts = {"train": _listed(folder, folder / "train.csv")}
        for part, names in (("validation", VALIDATION_NAMES), ("test", ("test",))):
            for name in names:
                if (folder / f"{name}.csv").is_file():
                    parts[part] = _listed(folder, folder / f"{name}.csv")
        return parts
    for name in ("test", *VALIDATION_NAMES):
        if (folder / name).is_dir() or (folder / f"{name}.csv").is_file():
            raise InputError(f"{folder} has a '{name}' split but no 'train' split; add it")
    classes = _class_folders(folder)
    if (folder / "splits.json").is_file():
        return _named(folder / "splits.json", classes)
    return _drawn(classes, seed)


def _class_folders(folder: Path) -> Files:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    classes: Files = {}
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            classes[child.name] = sorted(file for file in child.rglob("*") if is_image(file.name))
            if not classes[child.name]:
                raise InputError(f"class '{child.name}' of {folder} holds no image")
    if not classes:
        raise InputError(f"{folder} has no folder of images; give each class a folder of its own")
    return classes


def _listed(folder: Path, listing: Path) -> Files:
    classes: Files = {}
    with listing.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"filename", "label"} <= set(rows.fieldnames or ()):
            raise InputError(f"{listing} lacks the columns 'filename,label'")
        for row in rows:
            path = folder / "images" / str(row["filename"])
            if not path.is_file():
                raise InputError(f"{listing}, line {rows.line_num}: there is no image {path}")
            classes.setdefault(str(row["label"]), []).append(path)
    if not classes:
        raise InputError(f"{listing} lists no image")
    return classes


def _named(listing: Path, classes: Files) -> Mapping[str, Files]:
    try:
        split = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the split file {listing} is damaged: {error}") from error
    if not isinstance(split, dict) or not all(isinstance(names, list) for names in split.values()):
        raise InputError(
            f'the split file {listing} must hold {{"train": [classes], "val": [...], "test": [...]}}'
        )
    parts: dict[str, Files] = {}
    for key, names in split.items():
        part = "validation" if key in VALIDATION_NAMES else key
        if part not in ("train", "validation", "test"):
            raise InputError(f"the split file {listing} names a split '{key}'; there are train, val and test")
        for name in names:
            if name not in classes:
                raise InputError(f"the split file {listing} names the class '{name}', which has no folder")
        parts[part] = {name: classes[name] for name in names}
    if not parts.get("train"):
        raise InputError(f"the split file {listing} has no 'train' split; add it")
    return parts


def _drawn(classes: Files, seed: int) -> Mapping[str, Files]:
    names = list(classes)
    generator = torch.Generator().manual_seed(derive_seed(seed, "split"))
    order = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
    train = max(1, round(TRAIN_SHARE * len(order)))
    validation = train + round(VALIDATION_SHARE * len(order))
    chosen = {"train": order[:train], "validation": order[train:validation], "test": order[validation:]}
    return {part: {name: classes[name] for name in sorted(own)} for part, own in chosen.items() if own}


def _one_kind(classes: Files, folder: Path) -> bool:
    files = [file for own in classes.values() for file in own]
    return one_kind(((str(file), is_colour(file.read_bytes(), str(file))) for file in files), str(folder))


def _read(name: str, classes: Files, size: int, colour: bool) -> ImageSet:
    return image_set(
        name,
        {
            label: [decode(file.read_bytes(), size, colour, str(file)) for file in files]
            for label, files in classes.items()
        },
    )
