"""Omniglot (Lake 2015): 1623 hand-written characters of 50 alphabets, 20 drawings each.

Read from the official archives or from the folders they unpack to. Ink is 1 and paper 0, the drawings are
resized to a small square; decoding takes some seconds, so what was decoded is kept in the cache.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch
from safetensors.torch import load_file, save_file

from innerloop.cache import build_once, cache_folder
from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.fewshot.data.decoding import decode
from innerloop.fewshot.data.images import ImageSet
from innerloop.fewshot.data.splits import Splits

PARTS = ("images_background", "images_evaluation")
TRAINING_CHARACTERS = 1200
VALIDATION_CHARACTERS = 100
"""Of the 1200, kept from training to choose settings on."""
DRAWINGS = 20


def load_omniglot(folder: Path, size: int = 28, turned: bool = True) -> ImageSet:
    """All characters, background set first, each named ``background/ALPHABET/characterNN``.

    Args:
        folder: holds ``images_background`` and ``images_evaluation``, as folders or as ``.zip``.
        size: height and width in pixels.
        turned: see :class:`ImageSet`.

    Raises:
        InputError: a part is missing, damaged, or lacks drawings.
    """
    sources = [_source(folder, part) for part in PARTS]
    stamp = "|".join(f"{path.resolve()}:{path.stat().st_mtime_ns}:{path.stat().st_size}" for path in sources)
    key = hashlib.sha256(stamp.encode()).hexdigest()[:12]

    def build(target: Path) -> None:
        decoded = _decode(sources, size)
        save_file({"images": decoded.images, "first": decoded.first}, target / "images.safetensors")
        (target / "classes.json").write_text(json.dumps(decoded.classes))

    kept = build_once(cache_folder() / "images" / f"omniglot-{size}-{key}", build)
    tensors = load_file(kept / "images.safetensors")
    names = tuple(json.loads((kept / "classes.json").read_text()))
    return ImageSet("Omniglot", tensors["images"], tensors["first"], names, turned)


def random_split(whole: ImageSet, seed: int) -> Splits:
    """1200 characters for training and 423 for testing, drawn over both sets (Santoro 2016, Finn 2017).

    Turned characters are classes of their own in training alone.

    Args:
        whole: all characters.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "omniglot"))
    order = torch.randperm(len(whole.classes), generator=generator).tolist()
    training = order[: TRAINING_CHARACTERS - VALIDATION_CHARACTERS]
    upright = replace(whole, turned=False)
    return Splits(
        train=whole.subset("train", training),
        validation=upright.subset(
            "validation", order[TRAINING_CHARACTERS - VALIDATION_CHARACTERS : TRAINING_CHARACTERS]
        ),
        test=upright.subset("test", order[TRAINING_CHARACTERS:]),
    )


def lake_split(whole: ImageSet, seed: int) -> Splits:
    """The background set for training, the evaluation set for testing: alphabets stay whole (Lake 2015).

    Turned characters are classes of their own in training alone.

    Args:
        whole: all characters.
        seed: of the draw of the background characters that are kept to choose settings on.
    """
    background = [number for number, name in enumerate(whole.classes) if name.startswith("background/")]
    evaluation = sorted(set(range(len(whole.classes))) - set(background))
    generator = torch.Generator().manual_seed(derive_seed(seed, "omniglot"))
    order = [background[place] for place in torch.randperm(len(background), generator=generator).tolist()]
    upright = replace(whole, turned=False)
    return Splits(
        train=whole.subset("train", order[VALIDATION_CHARACTERS:]),
        validation=upright.subset("validation", order[:VALIDATION_CHARACTERS]),
        test=upright.subset("test", evaluation),
    )


def vinyals_split(whole: ImageSet, folder: Path) -> Splits:
    """The 1028 / 172 / 423 characters of Vinyals 2016, read from ``splits/vinyals_{train,val,test}.json``.

    Raises:
        InputError: a file is missing, damaged, or names a character that is not there.
    """
    index = {name: position for position, name in enumerate(whole.classes)}

    def chosen(part: str) -> ImageSet:
        path = folder / "splits" / f"vinyals_{part}.json"
        try:
            sets = json.loads(path.read_text(encoding="utf-8"))
            names = [
                f"{half}/{alphabet}/{character}"
                for half, alphabets in sets.items()
                for alphabet, characters in alphabets.items()
                for character in characters
            ]
        except FileNotFoundError as error:
            raise InputError(f"the split file {path} is missing; or set data.split=random") from error
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise InputError(f"the split file {path} is damaged: {error}") from error
        for name in names:
            if name not in index:
                raise InputError(f"{path} names the character '{name}', which {folder} does not hold")
        return whole.subset(part, [index[name] for name in names])

    return Splits(train=chosen("train"), validation=chosen("val"), test=chosen("test"))


def _source(folder: Path, part: str) -> Path:
    for path in (folder / part, folder / f"{part}.zip"):
        if path.exists():
            return path
    raise InputError(f"{folder} holds neither {part}/ nor {part}.zip; name the folder of Omniglot's archives")


def _decode(sources: list[Path], size: int) -> ImageSet:
    images, names = [], []
    for source in sources:
        characters: dict[str, dict[str, bytes]] = {}
        for path, data in _drawings(source):
            characters.setdefault(f"{path.parts[-3]}/{path.parts[-2]}", {})[path.name] = data
        if not characters:
            raise InputError(f"{source} holds no drawing of Omniglot (ALPHABET/characterNN/NNNN_MM.png)")
        half = source.name.removeprefix("images_").removesuffix(".zip")
        for name, drawings in sorted(characters.items()):
            if len(drawings) != DRAWINGS:
                raise InputError(
                    f"{source}: {name} has {len(drawings)} drawings, not {DRAWINGS}; fetch it again"
                )
            names.append(f"{half}/{name}")
            images += [
                255 - decode(data, size, colour=False, place=f"{source}: {name}/{drawing}")
                for drawing, data in sorted(drawings.items())
            ]
    first = torch.arange(len(names) + 1) * DRAWINGS
    return ImageSet("Omniglot", torch.stack(images), first, tuple(names))


def _drawings(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    if source.is_dir():
        for file in source.glob("*/*/*.png"):
            yield PurePosixPath(file.relative_to(source.parent).as_posix()), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(source) as archive:
            for entry in archive.namelist():
                path = PurePosixPath(entry)
                if path.suffix == ".png" and len(path.parts) >= 3 and not path.name.startswith("."):
                    yield path, archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise InputError(f"{source} is not a whole zip archive ({error}); fetch it again") from error
