"""From the name of a model to a checked folder on this machine.

A name is an alias, a ``.gguf`` file, a folder (a plain model, a PEFT adapter, an artifact, a run of several
checkpoints) or a hub id. Everything ends as one folder, so that loading has one way to go; pickled weights
end here. Loading itself is in ``model.py``.
"""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from innerloop.core.checkpoint import CheckpointFolder
from innerloop.core.errors import InputError
from innerloop.llm import smollm
from innerloop.llm.artifact_info import INFO_FILE, ArtifactInfo, read_info
from innerloop.llm.gguf import cached_conversion

ALIASES = (smollm.ALIAS,)
MODEL_CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")


@dataclass(frozen=True)
class Source:
    """A model found.

    Args:
        name: the name it was asked for by.
        folder: where its config and weights are.
        reference: what plain ``from_pretrained`` takes for it: the hub id, or the absolute folder.
        info: what innerloop wrote about it; none for a model from elsewhere.
    """

    name: str
    folder: Path
    reference: str
    info: ArtifactInfo | None

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds a PEFT adapter, which needs its base, and no whole model."""
        return (self.folder / ADAPTER_CONFIG).is_file()


def find_model(name: str, trust_remote_code: bool = False) -> Source:
    """Finds a model by name and checks that its files are there.

    Args:
        name: an alias, a ``.gguf`` file, a folder or a hub id.
        trust_remote_code: whether a hub model's own Python files may be fetched with it.

    Raises:
        InputError: if there is no such model, or its folder is incomplete or holds only pickled weights.
    """
    if name in ALIASES:
        folder = smollm.folder()
        return Source(name, folder, str(folder), None)
    if not name.strip():
        raise InputError("the model has no name; give a folder, a .gguf file, a hub id or an alias")
    path = Path(name).expanduser()
    if path.is_dir():
        return _find_in_folder(name, path.absolute())
    if path.is_file():
        return _find_in_file(name, path.absolute())
    if not _HUB_ID.fullmatch(name) or path.suffix == ".gguf":
        raise InputError(f"model '{name}': there is no such folder or file")
    return _find_on_hub(name, trust_remote_code)


def find_base(adapter: Source, trust_remote_code: bool = False) -> Source:
    """Finds the base model that an adapter was trained on: by alias, else by folder, else by hub id.

    An alias comes first because it holds on every machine, where a recorded folder may have moved.

    Raises:
        InputError: if it is not to be had, naming where the adapter looked.
    """
    names = sorted(
        dict.fromkeys(_base_names(adapter)), key=lambda name: (name not in ALIASES, not Path(name).is_dir())
    )
    if not names:
        raise InputError(
            f"{adapter.folder / ADAPTER_CONFIG} names no base model; add base_model_name_or_path"
        )
    failures = []
    for name in names:
        try:
            base = find_model(name, trust_remote_code)
        except InputError as error:
            failures.append(str(error))
            continue
        if base.is_adapter:
            raise InputError(f"the adapter {adapter.folder} sits on '{name}', which is an adapter itself")
        return base
    raise InputError(f"the base model of the adapter {adapter.folder} was not found: {'; '.join(failures)}")


def read_adapter_config(folder: Path) -> dict[str, object]:
    """An adapter's ``adapter_config.json``.

    Raises:
        InputError: if it is no JSON object or not of the LoRA kind.
    """
    config = _read_json(folder / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"{folder} is a PEFT adapter of type {config.get('peft_type')!r}; only LoRA is supported"
        )
    return config


def _base_names(adapter: Source) -> Iterator[str]:
    if adapter.info is not None:
        yield from (adapter.info.base_model, adapter.info.base_path)
    named = read_adapter_config(adapter.folder).get("base_model_name_or_path")
    if isinstance(named, str) and named:
        yield named


def _find_in_folder(name: str, folder: Path) -> Source:
    if not any((folder / file).exists() for file in (INFO_FILE, MODEL_CONFIG, ADAPTER_CONFIG)):
        newest = CheckpointFolder(folder).latest()
        if newest is None:
            raise InputError(
                f"{folder} is no model: it holds neither {MODEL_CONFIG} nor {ADAPTER_CONFIG} "
                "nor a step_N folder"
            )
        folder = newest
    info = read_info(folder) if (folder / INFO_FILE).exists() else None
    source = Source(name, folder, str(folder), info)
    if source.is_adapter or (info is not None and info.adapts == "lora"):
        _check_adapter(folder)
    else:
        _check_model(folder)
    return source


def _find_in_file(name: str, file: Path) -> Source:
    if file.suffix == ".gguf":
        folder = cached_conversion(file)
        return Source(name, folder, str(folder), None)
    if file.suffix in _PICKLED:
        raise InputError(f"{file}: {_pickle_advice()}")
    raise InputError(f"{file} is no model; name its folder, a .gguf file, a hub id or {' or '.join(ALIASES)}")


def _find_on_hub(name: str, trust_remote_code: bool) -> Source:
    code = ("*.py",) if trust_remote_code else ()
    try:
        snapshot = huggingface_hub.snapshot_download(
            name, allow_patterns=[*_HUB_FILES, *code], ignore_patterns=["*/*", "consolidated*"]
        )
    except (OSError, ValueError) as error:  # every error of the hub's client is one of the two
        near = difflib.get_close_matches(name.lower(), ALIASES, n=1)
        hint = (
            f"did you mean '{near[0]}'?" if near else "'innerloop models list' shows what is on this machine"
        )
        raise InputError(
            f"model '{name}' is no folder here, and the hub has no such model or cannot be reached "
            f"({type(error).__name__}); {hint}"
        ) from error
    found = _find_in_folder(name, Path(snapshot))
    return Source(name, found.folder, name, found.info)


def _check_model(folder: Path) -> None:
    if not (folder / MODEL_CONFIG).is_file():
        raise InputError(f"{folder} is half a model: {MODEL_CONFIG} is missing")
    _read_json(folder / MODEL_CONFIG)
    if (folder / _INDEX).is_file():
        shards = _read_json(folder / _INDEX).get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) else {_WEIGHTS}
        missing = sorted(str(shard) for shard in names if not (folder / str(shard)).is_file())
        if missing:
            raise InputError(f"{folder} is half a model: {missing[0]} is missing; copy or download it again")
    elif not (folder / _WEIGHTS).is_file():
        raise InputError(f"{folder} is half a model: {_missing_weights(folder, _WEIGHTS)}")


def _check_adapter(folder: Path) -> None:
    if not (folder / ADAPTER_CONFIG).is_file():
        raise InputError(f"{folder} is half an adapter: {ADAPTER_CONFIG} is missing; take another checkpoint")
    read_adapter_config(folder)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"{folder} is half an adapter: {_missing_weights(folder, ADAPTER_WEIGHTS)}")


def _missing_weights(folder: Path, wanted: str) -> str:
    if any(path.suffix in _PICKLED for path in folder.iterdir()):
        return f"it has no {wanted}, only pickled weights, and {_pickle_advice()}"
    return f"{wanted} is missing; copy or download it again"


def _pickle_advice() -> str:
    return (
        "pickled weights are never loaded, since a pickle can run any code; "
        "save the model as safetensors where you trust it"
    )


def _read_json(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); copy or download it again") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} is not a JSON object; copy or download it again")
    return document
