"""From settings to the three sets of images."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from innerloop.core.errors import InputError
from innerloop.fewshot.data.folder import load_folder
from innerloop.fewshot.data.omniglot import lake_split, load_omniglot, random_split, vinyals_split
from innerloop.fewshot.data.splits import Splits
from innerloop.fewshot.data.toy import toy_splits
from innerloop.settings.constraints import Range
from innerloop.settings.kinds import LocalPath, Seed

DATA_VARIABLE = "INNERLOOP_DATA"


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and how their classes are split."""

    source: Literal["omniglot", "folder", "toy"]
    path: LocalPath | None
    split: Literal["random", "vinyals", "lake"]
    split_seed: Seed
    size: Annotated[int, Range(at_least=4)]
    channels: Literal[1, 3] | None
    turned: bool

    @property
    def inverted(self) -> bool:
        """Whether networks see a file's pixels inverted: Omniglot's ink is dark in files, bright to them."""
        return self.source == "omniglot"


def load_splits(data: DataConfig) -> Splits:
    """The images that settings name.

    Raises:
        InputError: they are not there, or not as they should be.
    """
    match data.source:
        case "toy":
            return toy_splits(data.size, data.split_seed)
        case "folder":
            if data.path is None:
                raise InputError("data.path is missing; name the folder of the images")
            return load_folder(Path(data.path), data.size, data.channels, data.split_seed)
        case "omniglot":
            folder = _omniglot_folder(data)
            whole = load_omniglot(folder, data.size, data.turned)
            match data.split:
                case "random":
                    return random_split(whole, data.split_seed)
                case "vinyals":
                    return vinyals_split(whole, folder)
                case "lake":
                    return lake_split(whole, data.split_seed)


def _omniglot_folder(data: DataConfig) -> Path:
    if data.path is not None:
        return Path(data.path)
    if DATA_VARIABLE not in os.environ:
        raise InputError(
            "data.path is missing; name the folder that holds Omniglot's images_background.zip and "
            f"images_evaluation.zip, or set {DATA_VARIABLE} to the folder above a folder 'omniglot'"
        )
    return Path(os.environ[DATA_VARIABLE]) / "omniglot"
