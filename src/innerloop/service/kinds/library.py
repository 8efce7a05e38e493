"""Where the models and data that a request names are, on the machine that runs the job."""

from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.service.kinds.examples import EMBEDDED_MODEL
from innerloop.service.kinds.kind import Place

MODELS, DATA = "models", "data"


def model_by_name(place: Place, name: str) -> str:
    """A library's folder, or the embedded model's name, as ``model.partial_pretrain`` takes it.

    Nothing is looked up on a hub: what runs here is what the operator put here.

    Raises:
        InputError: there is no such model.
    """
    folder = _folder(place, MODELS, name)
    if folder is not None:
        return str(folder)
    if name == EMBEDDED_MODEL:
        return name
    known = ", ".join([EMBEDDED_MODEL, *_names(place, MODELS)])
    raise InputError(f"model: there is no model '{name}'; there are: {known}")


def data_by_name(place: Place, name: str) -> Path:
    """A library's folder of prepared tasks.

    Raises:
        InputError: there is none of this name.
    """
    folder = _folder(place, DATA, name)
    if folder is None:
        known = ", ".join(_names(place, DATA)) or "none"
        raise InputError(f"data: there is no folder '{name}' of prepared tasks; there are: {known}")
    return folder


def model_of_source(place: Place, field: str) -> Path:
    """The folder of the model of a job that the request named.

    Raises:
        InputError: that job has none, or none any more.
    """
    source = place.sources.get(field)
    if source is None or source.model is None or not source.model.is_dir():
        raise InputError(f"{field}: that job has no trained model to begin with")
    return source.model


def _folder(place: Place, part: str, name: str) -> Path | None:
    # A request's names are checked: none is a path.
    folder = None if place.library is None else (place.library / part / name).absolute()
    return folder if folder is not None and folder.is_dir() else None


def _names(place: Place, part: str) -> list[str]:
    folder = None if place.library is None else place.library / part
    if folder is None or not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
