"""The tasks a configuration names, read from disk and ready to be drawn from."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from innerloop.core.errors import InputError
from innerloop.core.sampler import EpisodeSampler, IndexStream, derive_seed
from innerloop.core.task import Task
from innerloop.llm.attention import keeps_rows_apart, shares_beginnings
from innerloop.llm.config import Config, TaskEntry
from innerloop.llm.data.prepared import has_manifest, load_manifest, load_task, task_names
from innerloop.llm.data.rows import Row, RowKeys, read_rows
from innerloop.llm.prefix import FrozenPrefix
from innerloop.llm.tasks import Batcher, EpisodeShape, RowSource


def batcher_of(
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    model: PreTrainedModel | PeftModel | None = None,
) -> Batcher:
    """How this configuration makes batches of rows.

    Args:
        config: the settings.
        tokenizer: of the model.
        device: where batches go.
        model: the one they are for, in the mode it will be used in: packed where that costs it nothing, and
            with what its frozen lower layers make of each row. Without one, neither.
    """
    data, prefix = config.data, None
    packed = data.pad_mode == "no_padding"
    if model is not None:
        packed |= data.pad_mode == "auto" and keeps_rows_apart(model)
        if not config.model.use_fsdp:  # ranks that keep other rows would wait for one another's shards
            prefix = FrozenPrefix.of(model, config.model.frozen_prefix_mib << 20)
    return Batcher(
        tokenizer=tokenizer,
        device=device,
        max_length=data.max_length,
        truncation=data.truncation,
        packed=packed,
        sharing=model is not None and shares_beginnings(model),
        micro_tokens=data.micro_batch_tokens if data.use_dynamic_bsz else None,
        append_eos=data.append_eos,
        prefix=prefix,
    )


def training_sampler(config: Config, batcher: Batcher) -> EpisodeSampler:
    """Draws meta-batches from the tasks of ``meta.tasks``, or from every training task of ``data.path``."""
    entries = config.meta.tasks or tuple(TaskEntry(name) for name in _training_tasks(config))
    sources = [_source(config, entry, batcher) for entry in entries]
    return EpisodeSampler(sources, config.meta.meta_batch_size, config.data.seed)


def held_out_tasks(config: Config, batcher: Batcher) -> list[Task]:
    """One episode of each task of ``meta.eval_tasks``, the same ones at every call."""
    names = config.meta.eval_tasks
    if config.meta.eval_tasks_per_round is not None:
        stream = IndexStream(len(names), derive_seed(config.trainer.seed, "held-out tasks"))
        count = min(config.meta.eval_tasks_per_round, len(names))
        names = tuple(names[index] for index in sorted(stream.take(count)))
    return [_source(config, TaskEntry(name), batcher).draw() for name in names]


def row_keys(config: Config) -> RowKeys:
    """The column names this configuration reads."""
    data = config.data
    return RowKeys(prompt=data.prompt_key, response=data.response_key, messages=data.messages_key)


def _training_tasks(config: Config) -> Sequence[str]:
    if config.data.path is None:
        raise InputError("no task to train on: set meta.tasks, or data.path to a folder of prepared tasks")
    folder = Path(config.data.path)
    if has_manifest(folder):
        return load_manifest(folder).names("train")
    return [name for name in task_names(folder) if name not in config.meta.eval_tasks]


def _source(config: Config, entry: TaskEntry, batcher: Batcher) -> RowSource:
    meta = config.meta
    support, query = _rows(config, entry)
    return RowSource(
        entry.name,
        _first(support, entry.support_max_samples),
        # Reptile and SFT may have no query files; the support rows then serve for both.
        _first(query or support, entry.query_max_samples),
        EpisodeShape(meta.num_inner_steps, meta.inner_batch_size, meta.query_batch_size),
        batcher,
        config.data.seed,
        config.data.shuffle,
    )


def _rows(config: Config, entry: TaskEntry) -> tuple[list[Row], list[Row]]:
    keys = row_keys(config)
    if not entry.is_prepared:
        support = [row for file in entry.support_files for row in read_rows(Path(file), keys)]
        query = [row for file in entry.query_files for row in read_rows(Path(file), keys)]
        return support, query
    folder = Path(str(config.data.path))
    if has_manifest(folder) and entry.name not in config.meta.eval_tasks:
        role = load_manifest(folder).task(entry.name).role
        if role != "train":
            raise InputError(
                f"meta.tasks: '{entry.name}' is a {role.replace('_', '-')} task of {folder}; training on it "
                "would spoil the evaluation, so take it out of meta.tasks"
            )
    task = load_task(folder, entry.name, keys, needs=("support", "query"))
    return list(task.support), list(task.query)


def _first(rows: list[Row], limit: int) -> list[Row]:
    return rows if limit == -1 else rows[:limit]
