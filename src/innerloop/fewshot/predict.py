"""Classifies a user's images by a support set of theirs."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import torch

from innerloop.core.devices import pick_device
from innerloop.core.errors import InputError
from innerloop.core.files import write_whole
from innerloop.fewshot.artifacts import load_artifact
from innerloop.fewshot.data.folder import load_classes, load_flat
from innerloop.fewshot.data.images import as_numbers
from innerloop.fewshot.episodes import Episodes


@dataclass(frozen=True)
class Prediction:
    """What a learner says of one image.

    Args:
        image: the file.
        probabilities: of each class, in the order of :attr:`Predictions.classes`; they add up to 1.
    """

    image: Path
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Predictions:
    """What it says of all of them.

    Args:
        classes: names, those of the support set's folders.
        images: one entry an image, by path.
    """

    classes: tuple[str, ...]
    images: tuple[Prediction, ...]

    def best(self, prediction: Prediction) -> tuple[str, float]:
        """The likeliest class and its probability."""
        place = max(range(len(self.classes)), key=prediction.probabilities.__getitem__)
        return self.classes[place], prediction.probabilities[place]


def predict(model_path: Path, support: Path, query: Path) -> Predictions:
    """Learns the classes of the support set and classifies the query images, each on its own.

    Args:
        model_path: a run's folder or a checkpoint.
        support: a folder with a folder of images for each class.
        query: a folder of images.

    Raises:
        InputError: a folder or an image is wrong, or the learner was made for another number of classes.
    """
    device = pick_device("auto")
    artifact = load_artifact(model_path, device)
    problem = artifact.problem
    known = load_classes(support, problem.size, problem.channels)
    if len(known) < 2:
        raise InputError(
            f"{support} holds one class, '{known.classes[0]}'; give a folder for each of two or more"
        )
    if artifact.learner.fixed_ways and len(known) != problem.ways:
        raise InputError(
            f"{support} holds {len(known)} classes, but this {artifact.config.method.name} was trained for "
            f"{problem.ways}; train one with test.ways={len(known)} train.ways={len(known)}"
        )
    files, images = load_flat(query, problem.size, problem.channels)
    inverted = artifact.config.data.inverted
    shown, asked = (
        as_numbers(255 - pixels if inverted else pixels)[None] for pixels in (known.images, images)
    )
    labels = torch.repeat_interleave(torch.arange(len(known)), known.counts)
    episode = Episodes(
        shown,
        labels[None],
        asked,
        torch.zeros(1, len(files), dtype=torch.int64),
        len(known),
    ).to(device)
    probabilities = artifact.learner.scores(episode, transductive=False)[0].exp().cpu().tolist()
    return Predictions(
        known.classes,
        tuple(Prediction(file, tuple(row)) for file, row in zip(files, probabilities, strict=True)),
    )


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes a CSV file: the image, the likeliest class, and the probability of each class.

    Raises:
        InputError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", "class", *predictions.classes])
    for entry in predictions.images:
        shares = [f"{share:.6f}" for share in entry.probabilities]
        writer.writerow([entry.image, predictions.best(entry)[0], *shares])
    write_whole(path, text.getvalue())
