"""Records of a data set on the Hugging Face hub, in the form in which ``records`` gives those of a file."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from huggingface_hub.utils import logging as hub_logging

from innerloop.core.errors import InputError
from innerloop.llm.data.records import Record


def hub_name(repository: str, subset: str | None, split: str) -> Path:
    """What a report calls the place of a hub row."""
    return Path(repository, *([subset] if subset else []), split)


def hub_records(repository: str, subset: str | None, split: str) -> Iterator[Record]:
    """Loads one split; class labels become their names and pictures stay undecoded.

    Args:
        repository: owner and name on the hub.
        subset: the configuration, or None for the only one.
        split: its name.

    Raises:
        InputError: if it cannot be loaded, for whatever reason.
    """
    try:
        with _quiet():
            table = datasets.load_dataset(repository, subset, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"cannot load '{hub_name(repository, subset, split)}' from the Hugging Face hub "
            f"({' '.join(str(error).split())[:200]}); give a local copy with --source-dir"
        ) from error
    labels = {}
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
        if isinstance(feature, datasets.ClassLabel):
            labels[name] = feature.names
    for row, fields in enumerate(table, start=1):
        named = {name: names[fields[name]] for name, names in labels.items() if fields[name] is not None}
        yield Record(row, {**fields, **named})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the hub client's retries off the screen: what matters of them is in the error."""
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
