"""Training of a few-shot learner from settings, put together for the core's trainer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean

import torch

from innerloop.core.errors import InputError
from innerloop.core.parallel import World, take_device
from innerloop.core.sampler import SamplerState, derive_seed
from innerloop.core.task import Task
from innerloop.core.tracking import METRICS_FILE
from innerloop.core.trainer import MetaTrainer, TrainingResult
from innerloop.fewshot.accuracy import BLOCK, measure
from innerloop.fewshot.artifacts import Training, build_learner, parameter_count, save_artifact
from innerloop.fewshot.config import Config, TestEpisodes, to_dict
from innerloop.fewshot.data.images import ImageSet
from innerloop.fewshot.data.load import load_splits
from innerloop.fewshot.episodes import EpisodeShape, EpisodeStream
from innerloop.fewshot.learners import FewShotLearner
from innerloop.tracking import trackers_of_run


class _Sampler:
    """The core's view of the training episodes: one block of them a step."""

    def __init__(self, stream: EpisodeStream, learner: FewShotLearner, device: torch.device) -> None:
        self._stream, self._learner, self._device = stream, learner, device

    def sample(self) -> list[Task]:
        """The tasks of the next step."""
        name = f"episode {self._stream.position}"
        return list(self._learner.tasks(self._stream.take().to(self._device), name))

    def state_dict(self) -> SamplerState:
        """How many blocks were drawn."""
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up a saved position."""
        self._stream.load_state_dict(state)


def train(config: Config, world: World | None = None) -> TrainingResult:
    """Runs the training that settings describe, or goes on with it where it stopped.

    Args:
        config: the settings.
        world: the processes that share out the episodes of a step, each of which calls this.

    Raises:
        InputError: a setting or the data is wrong; nothing is written then.
        NonFiniteError: a loss became NaN or infinite; the last whole step is saved.
        Interrupted: a signal came; the last whole step is saved.
    """
    world = world or World()
    with world.together():
        trainer = _trainer(config, world)
    return TrainingResult(trainer.fit(), trainer.run.folder / METRICS_FILE)


def _trainer(config: Config, world: World) -> MetaTrainer:
    device = take_device(config.trainer.device)
    torch.manual_seed(config.trainer.seed)
    splits = load_splits(config.data)
    channels = splits.train.images.shape[1]
    learner, problem = build_learner(config, channels, device)
    wide = config.train
    if learner.fixed_ways and config.test.ways != (problem.ways,):
        tested = ", ".join(map(str, config.test.ways))
        raise InputError(
            f"train.ways is {problem.ways} and test.ways {tested}, but {config.method.name} has an output "
            "for each class; set both alike"
        )
    shape = EpisodeShape(wide.ways, wide.shots, wide.queries)
    stream = EpisodeStream(splits.train, shape, wide.per_step, derive_seed(config.trainer.seed, "train"))
    run = config.trainer
    evaluate = None
    if splits.validation is not None and run.test_freq > 0:
        evaluate = _measuring(learner, splits.validation, config.test, device)
        if not world.is_main:
            evaluate = dict  # the main process measures, and the others wait for it
    folder = run.folder

    def export(checkpoint: Path) -> None:
        training = Training(
            trainer.step, trainer.step * wide.per_step, trainer.seconds, parameter_count(learner)
        )
        if world.is_main:
            save_artifact(checkpoint, learner, config, channels, training)

    learner.module.train()
    trainer = MetaTrainer(
        learner.learner,
        learner.strategy,
        _Sampler(stream, learner, device),
        config.optim.outer(config.trainer.total_steps),
        run.settings("images", max(run.test_freq, 0)),
        trackers=lambda start: trackers_of_run(run, folder, run.total_steps, start, to_dict(config)),
        export=export,
        evaluate=evaluate,
        world=world,
    )
    return trainer


def _measuring(
    learner: FewShotLearner, images: ImageSet, test: TestEpisodes, device: torch.device
) -> Callable[[], Mapping[str, float]]:
    """What measures accuracy on validation classes; refuses at once what it could not do later."""
    shape = EpisodeShape(test.ways[0], test.shots, test.queries)
    shape.check(images)

    def evaluate() -> Mapping[str, float]:
        stream = EpisodeStream(images, shape, BLOCK, test.seed)
        found = measure(learner, stream, test.validation_count, device)
        return {
            "eval/accuracy": fmean(found.inductive),
            "eval/accuracy_transductive": fmean(found.transductive),
        }

    return evaluate
