"""Which models are on this machine: the embedded one, converted GGUF files, the hub's; getting the first."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import CacheNotFound
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from innerloop.cache import cache_folder
from innerloop.core.errors import InputError
from innerloop.llm import smollm
from innerloop.llm.gguf import CONVERSION
from innerloop.llm.sources import ALIASES


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    Args:
        name: what to write for it in ``model.partial_pretrain`` or ``--model-path``.
        kind: ``embedded``, ``converted GGUF`` or ``hub``.
        state: ``ready``, or what it takes to make it so.
        size: bytes on disk; none where nothing is there yet.
        folder: where it is; none where nothing is there yet.
    """

    name: str
    kind: str
    state: str
    size: int | None
    folder: Path | None


def get_model(name: str) -> Path:
    """Makes an embedded model ready, downloading it where it is not here, and returns its folder.

    Raises:
        InputError: if the name is no embedded model's, or the download fails.
    """
    if name in ALIASES:
        return smollm.get()
    near = difflib.get_close_matches(name.lower(), ALIASES, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"choose {' or '.join(ALIASES)}"
    raise InputError(f"'{name}' is no embedded model; {hint} Models of the hub are fetched when first used")


def list_models() -> list[ModelEntry]:
    """The embedded model, whatever its state, then every other model found in a cache."""
    return [_embedded(), *_converted(), *_from_hub()]


def model_table(models: Sequence[ModelEntry]) -> Table:
    """The list as a table for a terminal."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("model", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("state")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("folder", overflow="fold")
    for model in models:
        size = "" if model.size is None else decimal(model.size)
        cells = (model.name, model.kind, model.state, size, str(model.folder or ""))
        table.add_row(*map(Text, cells))  # as text, because markup would eat square brackets
    return table


def _embedded() -> ModelEntry:
    if smollm.is_cached():
        folder = smollm.cached_path()
        return ModelEntry(smollm.ALIAS, "embedded", "ready", _size(folder), folder)
    if smollm.installed_gguf() is not None:
        state = "installed, converted at first use"
    else:
        state = f"not here; innerloop models get {smollm.ALIAS}"
    return ModelEntry(smollm.ALIAS, "embedded", state, None, None)


def _converted() -> Iterator[ModelEntry]:
    place = cache_folder() / CONVERSION
    if not place.is_dir():
        return
    for folder in sorted(place.iterdir()):
        if folder.is_dir() and folder.name != smollm.ALIAS and not folder.name.startswith("."):
            yield ModelEntry(str(folder), "converted GGUF", "ready", _size(folder), folder)


def _from_hub() -> Iterator[ModelEntry]:
    try:
        cache = huggingface_hub.scan_cache_dir()
    except CacheNotFound:
        return
    for repository in sorted(cache.repos, key=lambda repository: repository.repo_id):
        if repository.repo_type == "model":
            yield ModelEntry(
                repository.repo_id, "hub", "ready", repository.size_on_disk, repository.repo_path
            )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
