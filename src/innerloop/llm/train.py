"""Meta-training of a language model from a configuration, put together for the core's trainer."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from innerloop.core.inner_loop import InnerLoop
from innerloop.core.losses import average_metrics, task_metrics
from innerloop.core.monitor import adapt_and_measure
from innerloop.core.parallel import World, take_device
from innerloop.core.tracking import METRICS_FILE
from innerloop.core.trainer import MetaTrainer, Resume, RunSettings, TrainingResult
from innerloop.llm.algorithms import (
    build_inner_loop,
    build_learner,
    build_strategy,
    model_spec,
    outer_settings,
    set_modes,
)
from innerloop.llm.artifact_info import ArtifactInfo, InnerRuleInfo, LearningRate
from innerloop.llm.artifacts import save_artifact
from innerloop.llm.compiled import compile_layers
from innerloop.llm.config import Config, MetaConfig, to_dict
from innerloop.llm.data.prepared import has_manifest, manifest_hash
from innerloop.llm.episodes import batcher_of, held_out_tasks, training_sampler
from innerloop.llm.model import LoadedModel, load_model
from innerloop.llm.sharding import gathered, shard
from innerloop.llm.versions import library_versions
from innerloop.tracking import trackers_of_run

logger = logging.getLogger(__name__)


def train(config: Config, world: World | None = None) -> TrainingResult:
    """Runs the training a configuration describes, or goes on with it where it stopped.

    Args:
        config: the settings.
        world: the processes that train together, each of which calls this; by default this one alone.

    Raises:
        InputError: a setting, the data or the model is wrong; nothing is written then.
        NonFiniteError: a loss became NaN or infinite; the last whole step is saved.
        Interrupted: a signal came; the last whole step is saved.
    """
    world = world or World()
    with world.together():
        trainer = _trainer(config, world)
    return TrainingResult(trainer.fit(), trainer.run.folder / METRICS_FILE)


def _trainer(config: Config, world: World) -> MetaTrainer:
    torch.manual_seed(config.trainer.seed)
    device = take_device(config.trainer.device, config.trainer.strict_device)
    sharded = config.model.use_fsdp
    loaded = load_model(replace(model_spec(config), device=str(device), left_on_host=sharded))
    set_modes(config, loaded.model)
    if config.model.compile:
        compile_layers(loaded.model, device)
    sharding = shard(loaded.model, config.model.fsdp_config, world, device) if sharded else None
    if sharding is not None:
        world = sharding.world
    learner = build_learner(config, loaded.model, sharding)
    inner = build_inner_loop(config.meta, list(learner.theta))
    batcher = batcher_of(config, loaded.tokenizer, device, loaded.model)
    sampler = training_sampler(config, batcher)
    held_out = held_out_tasks(config, batcher)
    run = config.trainer
    folder = Path(run.default_local_dir)

    def export(checkpoint: Path) -> None:
        info = _info(config, loaded, inner, trainer.step)
        weights = gathered(loaded.model, world) if sharded and not config.model.lora_rank else None
        if world.is_main:
            save_artifact(checkpoint, loaded.model, loaded.tokenizer, info, weights)

    def evaluate() -> Mapping[str, float]:
        loaded.model.eval()
        measured = adapt_and_measure(learner, inner, held_out, world)
        set_modes(config, loaded.model)
        return task_metrics(measured, "eval/") | average_metrics(measured, "eval/")

    trainer = MetaTrainer(
        learner,
        build_strategy(config.meta, inner),
        sampler,
        outer_settings(config),
        _run_settings(config, folder),
        trackers=lambda start: trackers_of_run(run, folder, run.total_steps, start, to_dict(config)),
        export=export if "model" in config.checkpoint.save_contents or config.model.lora_rank else _nothing,
        evaluate=evaluate if held_out else None,
        world=world,
    )
    return trainer


def inner_rule_info(meta: MetaConfig, inner: InnerLoop) -> InnerRuleInfo:
    """The inner loop as an artifact records it."""
    learning_rate: LearningRate = meta.inner_lr
    if inner.rates.learned:
        learning_rate = {name: tuple(rates.tolist()) for name, rates in inner.rates.values.items()}
    return InnerRuleInfo(
        meta.inner_rule, learning_rate, inner.steps, meta.inner_batch_size, meta.inner_max_grad_norm
    )


def _info(config: Config, loaded: LoadedModel, inner: InnerLoop, step: int) -> ArtifactInfo:
    data = None if config.data.path is None else Path(config.data.path)
    return ArtifactInfo(
        algorithm=config.meta.algorithm,
        adapts=config.model.adapts,
        base_model=loaded.base_model,
        base_path=loaded.base_path,
        inner=inner_rule_info(config.meta, inner),
        data_manifest_hash=manifest_hash(data) if data is not None and has_manifest(data) else None,
        seed=config.trainer.seed,
        step=step,
        config=to_dict(config),
        versions=library_versions(),
    )


def _run_settings(config: Config, folder: Path) -> RunSettings:
    trainer = config.trainer
    resume: Resume = "disable" if trainer.resume_mode == "disable" else "auto"
    if trainer.resume_mode == "resume_path":
        resume = Path(str(trainer.resume_from_path))
    return RunSettings(
        folder=folder,
        save_every=max(trainer.save_freq, 0),
        evaluate_every=max(trainer.test_freq, 0),
        monitor_every=trainer.monitor_freq,
        keep=-1 if trainer.max_ckpt_to_keep is None else trainer.max_ckpt_to_keep,
        resume=resume,
        saved=frozenset(config.checkpoint.save_contents),
        restored=frozenset(config.checkpoint.load_contents),
    )


def _nothing(_checkpoint: Path) -> None:
    """Exports nothing: the configuration keeps the trainer's state alone."""
