"""A model ready to be adapted to new tasks the way it was trained to be."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import Learner
from innerloop.llm.algorithms import build_inner_loop, build_learner, model_spec, take_up_rates
from innerloop.llm.artifact_info import ArtifactInfo
from innerloop.llm.config import Config, config_from_dict, load_config
from innerloop.llm.episodes import batcher_of
from innerloop.llm.model import LoadedModel, load_source, load_tokenizer
from innerloop.llm.sources import find_model
from innerloop.llm.tasks import Batcher

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Adaptable:
    """A loaded model with all that adapting it takes.

    Args:
        loaded: model and tokenizer, in evaluation mode.
        config: the settings it was trained with, or those given for a model from elsewhere.
        info: what its artifact says of it; none for a model from elsewhere.
        learner: runs it.
        batcher: makes its batches.
        folder: where it was loaded from.
    """

    loaded: LoadedModel
    config: Config
    info: ArtifactInfo | None
    learner: Learner
    batcher: Batcher
    folder: Path

    def inner_loop(self, learning_rate: float | None = None, steps: int | None = None) -> InnerLoop:
        """The model's own inner loop, or the same with another rate or number of steps.

        Args:
            learning_rate: replaces the trained rate; learned rates are then set aside.
            steps: replaces the trained number. Learned rates past the last step repeat the last.
        """
        meta = self.config.meta
        if learning_rate is not None:
            meta = replace(meta, inner_lr=learning_rate, learn_inner_lr=False)
        inner = build_inner_loop(meta, list(self.learner.theta))
        saved = None if self.info is None or self.info.inner is None else self.info.inner.learning_rate
        if inner.rates.learned and saved is not None and not isinstance(saved, float):
            take_up_rates(inner.rates, saved)
        return inner if steps is None else replace(inner, steps=steps)


def load_adaptable(
    path: str,
    settings: Config | None = None,
    device: Device | None = None,
    tokenizer_path: str | None = None,
) -> Adaptable:
    """Loads an artifact, or any model that ``model.partial_pretrain`` may name.

    Args:
        path: a run's folder, a checkpoint, a model folder, an adapter folder, a hub id or an alias.
        settings: how to adapt a model that carries no ``innerloop.json``; the package defaults if none. An
            artifact brings its own.
        device: in place of the settings' own.
        tokenizer_path: a tokenizer in place of the model's own.

    Raises:
        InputError: if there is no such model, or half of it is missing or damaged.
    """
    source = find_model(path, settings.model.trust_remote_code if settings is not None else False)
    if source.info is not None:
        config = config_from_dict(dict(source.info.config), f"{source.folder}/innerloop.json")
    else:
        config = settings or load_config()
    if device is not None:
        config = replace(config, trainer=replace(config.trainer, device=device))
    # Adapting takes first derivatives of one task at a time, so the fastest attention there is will do.
    meta = replace(config.meta, learner="auto", tasks_per_chunk=1, hvp="auto", differentiation="adjoint")
    config = replace(config, meta=meta)
    spec = model_spec(replace(config, meta=replace(meta, algorithm="fomaml")))
    if source.is_adapter or source.info is not None:
        spec = replace(spec, lora=None)
    loaded = load_source(source, spec, "train")
    if tokenizer_path is not None:
        loaded = replace(loaded, tokenizer=load_tokenizer(tokenizer_path, spec))
    return Adaptable(
        loaded=loaded,
        config=config,
        info=source.info,
        learner=build_learner(config, loaded.model),
        batcher=batcher_of(config, loaded.tokenizer, loaded.device, loaded.model),
        folder=source.folder,
    )
