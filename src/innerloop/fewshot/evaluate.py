"""The test of a trained learner: reads it, measures it on held-out classes, records what was found."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from innerloop.core.devices import pick_device
from innerloop.core.errors import InputError
from innerloop.fewshot.accuracy import measure
from innerloop.fewshot.artifacts import load_artifact
from innerloop.fewshot.data.load import DataConfig, load_splits
from innerloop.fewshot.data.splits import SplitName
from innerloop.fewshot.episodes import EpisodeShape
from innerloop.fewshot.records import Record, write_record


@dataclass(frozen=True)
class EvaluationSettings:
    """What is tested and how; none stands for what the learner was configured with.

    Args:
        model_path: a run's folder or a checkpoint.
        output_dir: where the record goes; none: a folder named after the split in the model's folder.
        split: which classes.
        ways: classes an episode.
        shots: support images a class.
        queries: query images a class.
        episodes: how many.
        seed: of the episodes.
        command: noted in the record.
    """

    model_path: Path
    output_dir: Path | None = None
    split: SplitName = "test"
    ways: int | None = None
    shots: int | None = None
    queries: int | None = None
    episodes: int | None = None
    seed: int | None = None
    command: str = ""


def evaluate(settings: EvaluationSettings, progress: Callable[[int, int], None]) -> tuple[Path, Record]:
    """Tests and records.

    Raises:
        InputError: the model, the data or a setting is wrong; nothing is written then.
    """
    asked = (settings.ways, settings.shots, settings.queries, settings.episodes)
    for name, value in zip(("ways", "shots", "queries", "episodes"), asked, strict=True):
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, not {value}")
    artifact = load_artifact(settings.model_path, pick_device("auto"))
    config, usual = artifact.config, artifact.config.test
    ways = _or(settings.ways, usual.ways)
    if artifact.learner.fixed_ways and ways != artifact.problem.ways:
        raise InputError(
            f"this {config.method.name} has {artifact.problem.ways} outputs and cannot be tested {ways}-way; "
            f"train one with test.ways={ways} train.ways={ways}"
        )
    shape = EpisodeShape(ways, _or(settings.shots, usual.shots), _or(settings.queries, usual.queries))
    seed = _or(settings.seed, usual.seed)
    found = measure(
        artifact.learner,
        load_splits(config.data).get(settings.split),
        shape,
        _or(settings.episodes, usual.count),
        seed,
        pick_device("auto"),
        progress,
    )
    inductive, transductive = found.intervals()
    record = Record(
        method=config.method.name,
        data=describe(config.data, settings.split),
        ways=shape.ways,
        shots=shape.shots,
        queries=shape.queries,
        episodes=inductive.count,
        inductive=inductive.mean,
        inductive_half=inductive.half_width,
        transductive=transductive.mean,
        transductive_half=transductive.half_width,
        training=artifact.training,
        train_seed=config.trainer.seed,
        test_seed=seed,
        command=settings.command,
    )
    return write_record(settings.output_dir or settings.model_path / settings.split, record), record


def describe(data: DataConfig, split: SplitName) -> str:
    """What was tested on, in words."""
    match data.source:
        case "omniglot":
            drawn = "Vinyals split" if data.split == "vinyals" else f"random split {data.split_seed}"
            return f"Omniglot, {drawn}, {split} characters"
        case "toy":
            return f"the toy set, {split} classes"
        case "folder":
            return f"{data.path}, {split} classes"


def _or(given: int | None, usual: int) -> int:
    return usual if given is None else given
