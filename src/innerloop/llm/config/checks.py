"""What two settings may not be together, and which settings a run of this kind never looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from innerloop.core.errors import InputError
from innerloop.llm.config.schema import Config, ExperimentConfig, MetaConfig, TaskEntry

Place = Callable[[str], str]
_WITHOUT_QUERY = ("reptile", "sft")


def check(config: Config, place: Place) -> None:
    """Refuses settings that contradict each other.

    Args:
        config: typed settings, each in its own range.
        place: tells where a key's value stood.

    Raises:
        InputError: names the keys, where they stood, and which to change.
    """
    for key, problem in _problems(config):
        raise InputError(f"{key} {problem} ({place(key)})")


def _problems(config: Config) -> Iterator[tuple[str, str]]:
    yield from _model(config)
    yield from _data(config)
    yield from _learning(config.meta)
    yield from _tasks(config)
    yield from _run(config)
    if config.experiment is not None:
        yield from _experiment(config.experiment)


def _model(config: Config) -> Iterator[tuple[str, str]]:
    model, meta = config.model, config.meta
    if model.lora_rank == 0 and model.lora_layers is not None:
        yield (
            "model.lora_layers",
            "chooses layers for LoRA, but model.lora_rank is 0; set a rank, or leave it null",
        )
    if model.use_fsdp and meta.learner in ("functional", "vmap"):
        yield (
            "meta.learner",
            f"{meta.learner} cannot run a sharded model (model.use_fsdp); use auto or in_place",
        )
    if model.use_fsdp and meta.hvp in ("reverse", "forward"):
        yield "meta.hvp", f"{meta.hvp} cannot run on a sharded model (model.use_fsdp); use auto or central"
    if model.use_fsdp and meta.differentiation == "unroll":
        yield "meta.differentiation", "unroll cannot run on a sharded model (model.use_fsdp); use adjoint"
    if model.use_fsdp and meta.tasks_per_chunk > 1:
        words = "runs tasks side by side, which a sharded model (model.use_fsdp) cannot; set it to 1"
        yield "meta.tasks_per_chunk", words
    if model.compile:
        yield from _compiled(meta)
    if model.lora_rank == 0 and "lora" in config.checkpoint.save_contents:
        yield "checkpoint.save_contents", "asks for 'lora', but model.lora_rank is 0; ask for 'model'"


def _compiled(meta: MetaConfig) -> Iterator[tuple[str, str]]:
    if meta.learner == "vmap" or meta.tasks_per_chunk > 1:
        yield (
            "model.compile",
            "cannot run tasks side by side; set meta.tasks_per_chunk=1 and meta.learner=auto",
        )
    takes_two = meta.algorithm in ("maml", "implicit_maml")
    if takes_two and (meta.hvp != "central" or meta.differentiation == "unroll"):
        words = f"has no derivative of a derivative, which meta.algorithm={meta.algorithm} takes"
        yield "model.compile", f"{words}; set meta.hvp=central and meta.differentiation=adjoint"


def _data(config: Config) -> Iterator[tuple[str, str]]:
    data = config.data
    if data.use_dynamic_bsz and data.micro_batch_tokens is None:
        yield "data.use_dynamic_bsz", "needs data.micro_batch_tokens, the most tokens of one micro-batch"
    if data.micro_batch_tokens is not None and not data.use_dynamic_bsz:
        yield "data.micro_batch_tokens", "is read with data.use_dynamic_bsz=true only; set both or neither"
    if data.prompt_key == data.response_key:
        yield "data.response_key", f"names the same column as data.prompt_key, '{data.prompt_key}'"


def _learning(meta: MetaConfig) -> Iterator[tuple[str, str]]:
    if meta.learn_inner_lr and meta.algorithm not in ("maml", "fomaml"):
        yield "meta.learn_inner_lr", f"needs meta.algorithm maml or fomaml, not {meta.algorithm}"
    if meta.reptile_epsilon is not None and meta.algorithm != "reptile":
        yield "meta.reptile_epsilon", f"is read by meta.algorithm=reptile only, not by {meta.algorithm}"
    if meta.differentiation == "unroll" and meta.learner not in ("auto", "functional"):
        yield "meta.differentiation", f"unroll needs meta.learner functional (or auto), not {meta.learner}"
    if meta.hvp == "forward" and meta.learner == "in_place":
        yield "meta.hvp", "forward needs meta.learner functional or vmap (or auto), not in_place"


def _tasks(config: Config) -> Iterator[tuple[str, str]]:
    meta, seen = config.meta, set[str]()
    for i, task in enumerate(meta.tasks):
        key = f"meta.tasks[{i}]"
        if task.name in seen:
            yield f"{key}.name", f"'{task.name}' is the name of an earlier task too; names must differ"
        seen.add(task.name)
        yield from _task(config, task, key)
    for i, name in enumerate(meta.eval_tasks):
        if name in seen:
            words = "is among meta.tasks; a task that is trained on cannot be held out"
            yield f"meta.eval_tasks[{i}]", f"'{name}' {words}"
    if meta.eval_tasks and config.data.path is None:
        yield "meta.eval_tasks", "names prepared tasks; set data.path to the folder that holds them"


def _task(config: Config, task: TaskEntry, key: str) -> Iterator[tuple[str, str]]:
    if task.is_prepared:
        if config.data.path is None:
            words = "has no files; give support_files and query_files, or set data.path to the prepared tasks"
            yield key, f"'{task.name}' {words}"
    elif not task.support_files:
        yield key, f"'{task.name}' has query_files but no support_files"
    elif not task.query_files and config.meta.algorithm not in _WITHOUT_QUERY:
        yield key, f"'{task.name}' has no query_files, which meta.algorithm={config.meta.algorithm} needs"


def _run(config: Config) -> Iterator[tuple[str, str]]:
    trainer, checkpoint = config.trainer, config.checkpoint
    if trainer.resume_mode == "resume_path" and trainer.resume_from_path is None:
        yield (
            "trainer.resume_mode",
            "resume_path needs trainer.resume_from_path, the checkpoint to go on from",
        )
    if trainer.resume_from_path is not None and trainer.resume_mode != "resume_path":
        words = f"is read with trainer.resume_mode=resume_path only, not with {trainer.resume_mode}"
        yield "trainer.resume_from_path", words
    for part in checkpoint.load_contents:
        if part not in checkpoint.save_contents:
            yield (
                "checkpoint.load_contents",
                f"asks for '{part}', which checkpoint.save_contents does not keep",
            )


def _experiment(experiment: ExperimentConfig) -> Iterator[tuple[str, str]]:
    names = [method.name for method in experiment.methods]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield (
                f"experiment.methods[{i}].name",
                f"'{name}' is the name of an earlier method too; names must differ",
            )
    for i, name in enumerate(experiment.evaluate.tasks):
        if name in experiment.evaluate.validation_tasks:
            words = "is among validation_tasks; what is chosen on a task cannot be judged on it"
            yield f"experiment.evaluate.tasks[{i}]", f"'{name}' {words}"


@dataclass(frozen=True)
class _ReadWhen:
    """A setting that only some runs look at; ``reader`` says which ones do."""

    key: str
    reader: str
    is_read: Callable[[Config], bool]


def _never(_: Config) -> bool:
    return False


def _by_implicit(config: Config) -> bool:
    return config.meta.algorithm == "implicit_maml"


_SOMETIMES_READ = (
    _ReadWhen("meta.implicit.lambda", "only meta.algorithm=implicit_maml", _by_implicit),
    _ReadWhen("meta.implicit.cg_steps", "only meta.algorithm=implicit_maml", _by_implicit),
    _ReadWhen("meta.implicit.cg_damping", "only meta.algorithm=implicit_maml", _by_implicit),
    _ReadWhen(
        "meta.hvp",
        "only meta.algorithm=maml or implicit_maml",
        lambda config: config.meta.algorithm in ("maml", "implicit_maml"),
    ),
    _ReadWhen(
        "meta.differentiation", "only meta.algorithm=maml", lambda config: config.meta.algorithm == "maml"
    ),
    *(
        _ReadWhen(
            f"model.fsdp_config.{key}", "only model.use_fsdp=true", lambda config: config.model.use_fsdp
        )
        for key in ("model_dtype", "cpu_offload", "fsdp_size", "wrap_policy.transformer_layer_cls_to_wrap")
    ),
    _ReadWhen(
        "meta.inner_betas", "only meta.inner_rule=adam", lambda config: config.meta.inner_rule == "adam"
    ),
    _ReadWhen(
        "meta.inner_moments", "only meta.inner_rule=adam", lambda config: config.meta.inner_rule == "adam"
    ),
    _ReadWhen(
        "meta.tasks_per_chunk",
        "only meta.learner=vmap (or auto)",
        lambda config: config.meta.learner in ("auto", "vmap"),
    ),
    _ReadWhen(
        "meta.eval_tasks_per_round",
        "only a run with meta.eval_tasks",
        lambda config: bool(config.meta.eval_tasks),
    ),
)

_NEVER_READ = {
    "data.use_shm": "files are read where they lie",
    "data.balance_dp_token": "the loss is the mean over all tokens of the batch on every process",
    "trainer.default_hdfs_dir": "checkpoints are written to trainer.default_local_dir",
}


def unread(config: Config, place: Place, is_changed: Callable[[str], bool]) -> dict[str, str]:
    """A note for each setting that was changed and that this run never looks at.

    Args:
        config: the checked settings.
        place: tells where a key's value stood.
        is_changed: tells whether a key was given and differs from its default.
    """
    notes = {
        setting.key: f"{setting.key} has no effect here: {setting.reader} reads it ({place(setting.key)})"
        for setting in _SOMETIMES_READ
        if is_changed(setting.key) and not setting.is_read(config)
    }
    for key, instead in _NEVER_READ.items():
        if is_changed(key):
            notes[key] = f"{key} is read for compatibility and has no effect here: {instead} ({place(key)})"
    outer_lr = config.meta.outer_lr
    if is_changed("optim.lr") and outer_lr not in (None, config.optim.lr):
        where = place("optim.lr")
        notes["optim.lr"] = f"optim.lr has no effect here: meta.outer_lr={outer_lr:g} overrides it ({where})"
    return notes
