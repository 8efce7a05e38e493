"""The spellings that users have in their files from verl and from older meta-learning scripts.

A layer is rewritten to this package's own keys before it is merged, so that a later layer wins however either
spells them. Keys that ask for nothing here are taken out, each with a note that says so.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from innerloop.core.errors import InputError
from innerloop.settings.constraints import show
from innerloop.settings.layers import Layer, Stack

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "meta.meta_lr": "meta.outer_lr",
        "meta.outer_stepsize": "meta.reptile_epsilon",
        "meta.batch_size": "meta.inner_batch_size",
        "data.max_token_len_per_gpu": "data.micro_batch_tokens",
        "data.multiturn.messages_key": "data.messages_key",
        "optim.optimizer": "optim.optimizer_type",
        "optim.warmup_steps_ratio": "optim.lr_warmup_steps_ratio",
        "optim.lr_scheduler_type": "optim.lr_scheduler",
        "trainer.total_training_steps": "trainer.total_steps",
        "trainer.checkpoint.save_contents": "checkpoint.save_contents",
        "trainer.checkpoint.load_contents": "checkpoint.load_contents",
    }
)

RENAMED_IN_TASKS: Mapping[str, str] = MappingProxyType(
    {
        "train_files": "support_files",
        "data_files": "support_files",
        "val_files": "query_files",
        "train_max_samples": "support_max_samples",
        "max_samples": "support_max_samples",
        "val_max_samples": "query_max_samples",
    }
)

WITHOUT_EFFECT: Mapping[str, str] = MappingProxyType(
    {
        "data.val_files": "name held-out tasks in meta.eval_tasks",
        "data.val_max_samples": "meta.eval_tasks_per_round bounds the work of an evaluation",
        "data.train_batch_size": "meta.meta_batch_size and meta.query_batch_size set the size of a step",
        "data.micro_batch_size": "data.micro_batch_tokens bounds the memory of a batch",
        "data.micro_batch_size_per_gpu": "data.micro_batch_tokens bounds the memory of a batch",
        "data.prompt_dict_keys": "name the column in data.prompt_key",
        "data.response_dict_keys": "name the column in data.response_key",
        "data.chat_template": "data.use_chat_template keeps or drops the tokenizer's own",
        "data.custom_cls": "rows are read in the formats of 'innerloop data'",
        "data.multiturn": "rows with a messages column are read as conversations",
        "data.num_workers": "rows are tokenized once, before training",
        "model.use_shm": "the model is read where it lies",
        "model.external_lib": "no code outside the model's own is loaded",
        "model.use_liger": "the model's own layers are used",
        "model.strategy": "sharding is by FSDP2",
        "model.use_remove_padding": "data.pad_mode=no_padding packs the rows",
        "model.fsdp_config.offload_params": "model.fsdp_config.cpu_offload does it",
        "model.fsdp_config.sync_module_states": "every process reads the same model",
        "model.fsdp_config.wrap_policy.min_num_params": "layers are wrapped by their class",
        "meta.decay_outer_stepsize": "optim.lr_scheduler=linear lets the step fall to 0",
        "meta.stepsize_decay_rate": "optim.lr_scheduler=linear lets the step fall to 0",
        "optim.optimizer_impl": "optim.optimizer_type chooses the optimizer",
        "optim.lr_warmup_steps": "optim.lr_warmup_steps_ratio sets the warm-up",
        "optim.min_lr_ratio": "the cosine schedule falls to 0",
        "optim.num_cycles": "the cosine schedule makes half a turn",
        "trainer.total_epochs": "trainer.total_steps sets the length of a run",
        "trainer.nnodes": "torchrun sets the number of processes",
        "trainer.n_gpus_per_node": "torchrun sets the number of processes",
        "trainer.val_before_train": "trainer.test_freq sets when tasks are evaluated",
        "trainer.checkpoint": "what is saved and loaded stands in the section 'checkpoint'",
        "trainer.balance_batch": "tasks are shared out evenly among the processes",
        "ulysses_sequence_parallel_size": "a sequence is kept on one device",
        "use_remove_padding": "data.pad_mode=no_padding packs the rows",
        "defaults": "layers are the package's defaults, the named settings and the file itself",
        "hydra": "settings are merged without Hydra",
    }
)

UNDERSTOOD: tuple[str, ...] = (
    *RENAMED,
    *(f"meta.tasks.{name}" for name in RENAMED_IN_TASKS),
    "meta.use_fomaml",
    "data.train_files",
    "data.train_max_samples",
)
"""Older keys worth offering when a key is misspelt."""

_INTERPOLATION = re.compile(r"\$\{\s*([\w.]+)\s*\}")


@dataclass(frozen=True)
class Translated:
    """A layer in this package's spelling, and what its user should be told: a note for each key."""

    layer: Layer
    notes: Mapping[str, str]


def translate(layer: Layer) -> Translated:
    """Rewrites a layer's older spellings.

    Raises:
        InputError: two spellings of one thing are given and differ.
    """
    values, places, notes = _renamed_references(copy.deepcopy(layer.values)), dict(layer.places), {}
    for old, new in RENAMED.items():
        if (value := _take(values, old)) is not None:
            _give(values, new, value, old, layer)
            places[new] = f"{layer.place(old)}, as {old}"
    if (first_order := _take(values, "meta.use_fomaml")) is not None:
        if not isinstance(first_order, bool):
            words = f"must be true or false, not {show(first_order)}"
            raise InputError(f"meta.use_fomaml {words} ({layer.place('meta.use_fomaml')})")
        _give(values, "meta.algorithm", "fomaml" if first_order else "maml", "meta.use_fomaml", layer)
        places["meta.algorithm"] = f"{layer.place('meta.use_fomaml')}, as meta.use_fomaml"
    tasks = _section(values, "meta").get("tasks")
    for i, task in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(task, dict):
            _rename_in_task(task, f"meta.tasks[{i}]", layer, places)
    for key, instead in WITHOUT_EFFECT.items():
        asked = _take(values, key)
        if _asks(asked) and not (key == "defaults" and asked == ["_self_"]):
            notes[key] = (
                f"{key} is read for compatibility and has no effect here: {instead} ({layer.place(key)})"
            )
    return Translated(replace(layer, values=values, places=places), notes)


def adopt_training_files(stack: Stack) -> Mapping[str, str]:
    """Reads verl's ``data.train_files`` as the one task of plain SFT, if nothing else says what to train on.

    Args:
        stack: all layers; the keys are taken out of it, and what they come to is pushed.

    Returns:
        A note for each key that was read otherwise than it was written.
    """
    place = stack.place("data.train_files")
    files, limit = _take(stack.values, "data.train_files"), _take(stack.values, "data.train_max_samples")
    if files is None:
        return {}
    meta = stack.values["meta"]
    chosen = stack.is_given("meta.algorithm")
    if meta["tasks"] or (chosen and meta["algorithm"] != "sft"):
        note = f"data.train_files has no effect here: meta.tasks say what to train on ({place})"
        return {"data.train_files": note}
    task = {"name": "train", "support_files": files, "support_max_samples": -1 if limit is None else limit}
    adopted = {"meta": {"algorithm": "sft", "tasks": [task]}}
    stack.push(Layer(f"{place}, as data.train_files", adopted, {}))
    if chosen:
        return {}
    note = f"data.train_files without meta.tasks is read as plain SFT on these files ({place})"
    return {"data.train_files": note}


def _rename_in_task(task: dict[str, Any], key: str, layer: Layer, places: dict[str, str]) -> None:
    for old, new in RENAMED_IN_TASKS.items():
        value = task.pop(old, None)
        if value is None:
            continue
        if new in task and task[new] != value:
            raise _conflict(f"{key}.{old}", f"{key}.{new}", layer)
        task[new] = value
        places[f"{key}.{new}"] = f"{layer.place(f'{key}.{old}')}, as {old}"


def _renamed_references(value: Any) -> Any:
    """The same containers, their ``${older.key}`` pointing to where that key's value goes."""
    if isinstance(value, dict):
        return {key: _renamed_references(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_renamed_references(entry) for entry in value]
    if isinstance(value, str):
        return _INTERPOLATION.sub(lambda found: f"${{{RENAMED.get(found[1], found[1])}}}", value)
    return value


def _asks(value: Any) -> bool:
    """Whether a value asks for anything: null, false, and sections of nothing else, do not."""
    if isinstance(value, dict):
        return any(_asks(entry) for entry in value.values())
    return value is not None and value is not False


def _section(values: dict[str, Any], key: str) -> dict[str, Any]:
    """The section at a dotted key, or an empty one where there is none."""
    section: Any = values
    for name in key.split(".") if key else ():
        section = section.get(name)
        if not isinstance(section, dict):
            return {}
    return section  # type: ignore[no-any-return]  # narrowed to dict at every turn


def _take(values: dict[str, Any], key: str) -> Any:
    """Takes a key out and returns its value, None where it is absent or null."""
    section, _, name = key.rpartition(".")
    return _section(values, section).pop(name, None)


def _give(values: dict[str, Any], key: str, value: Any, older: str, layer: Layer) -> None:
    *sections, name = key.split(".")
    section = values
    for inner in sections:
        if section.get(inner) is None:
            section[inner] = {}
        if not isinstance(section[inner], dict):
            return  # the malformed section is refused, by name, when the layer is merged
        section = section[inner]
    if section.get(name) is not None and section[name] != value:
        raise _conflict(older, key, layer)
    section[name] = value


def _conflict(older: str, key: str, layer: Layer) -> InputError:
    where = ", ".join(dict.fromkeys((layer.place(older), layer.place(key))))
    return InputError(f"'{older}' and '{key}' say the same thing differently; keep one of them ({where})")
