"""The test of a trained learner: reads it, measures it on held-out classes, records what was found."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from innerloop.core.devices import pick_device
from innerloop.core.errors import InputError
from innerloop.core.stats import Interval
from innerloop.fewshot.accuracy import BLOCK, Stream, measure, measure_instances
from innerloop.fewshot.alphabets import AlphabetStream
from innerloop.fewshot.artifacts import Artifact, load_artifact
from innerloop.fewshot.data.images import ImageSet
from innerloop.fewshot.data.load import DataConfig, load_splits
from innerloop.fewshot.data.splits import SplitName
from innerloop.fewshot.episodes import EpisodeShape, EpisodeStream
from innerloop.fewshot.learners import LearnsWhileReading
from innerloop.fewshot.records import Record, write_record


@dataclass(frozen=True)
class EvaluationSettings:
    """What is tested and how; none stands for what the learner was configured with.

    Args:
        model_path: a run's folder or a checkpoint.
        output_dir: where the records go; none: a folder named after the split in the model's folder.
        split: which classes.
        ways: classes an episode.
        shots: support images a class.
        queries: query images a class.
        episodes: how many.
        seed: of the episodes.
        within_alphabet: Lake's trials, see :class:`AlphabetStream`, whatever was configured.
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
    within_alphabet: bool = False
    command: str = ""


def evaluate(settings: EvaluationSettings, progress: Callable[[int, int], None]) -> dict[Path, Record]:
    """Tests and records, one cell after another where several ways were configured.

    Args:
        settings: what and how.
        progress: told how many episodes of how many are done, all cells together.

    Returns:
        The records, by the files they were written to.

    Raises:
        InputError: the model, the data or a setting is wrong; nothing is written then.
    """
    asked = (settings.ways, settings.shots, settings.queries, settings.episodes)
    for name, value in zip(("ways", "shots", "queries", "episodes"), asked, strict=True):
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, not {value}")
    artifact = load_artifact(settings.model_path, pick_device("auto"))
    config, usual = artifact.config, artifact.config.test
    shots, queries = _or(settings.shots, usual.shots), _or(settings.queries, usual.queries)
    shapes = [
        EpisodeShape(ways, shots, queries)
        for ways in (usual.ways if settings.ways is None else (settings.ways,))
    ]
    images = load_splits(config.data).get(settings.split)
    episodes, seed = _or(settings.episodes, usual.count), _or(settings.seed, usual.seed)
    within = settings.within_alphabet or usual.within_alphabet
    # All are made before the first is tested, so that a cell that cannot be drawn is refused at once.
    streams = {shape: _stream(artifact, images, shape, seed, within) for shape in shapes}
    folder = settings.output_dir or settings.model_path / settings.split
    learner, device = artifact.learner, pick_device("auto")
    records = {}
    for number, (shape, stream) in enumerate(streams.items()):
        report = partial(_report, progress, number * episodes, len(streams) * episodes)
        found = measure(learner, stream, episodes, device, report)
        instances: tuple[Interval, ...] = ()
        if isinstance(learner, LearnsWhileReading) and not within:
            instances = measure_instances(learner, images, shape.ways, episodes, seed, device)
        inductive, transductive = found.intervals()
        record = Record(
            method=config.method.name,
            data=describe(config.data, settings.split),
            within_alphabet=within,
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
            instances=tuple((interval.mean, interval.half_width) for interval in instances),
        )
        records[write_record(folder, record)] = record
    return records


def _report(progress: Callable[[int, int], None], before: int, total: int, done: int, _of_cell: int) -> None:
    progress(before + done, total)


def _stream(
    artifact: Artifact, images: ImageSet, shape: EpisodeShape, seed: int, within_alphabet: bool
) -> Stream:
    outputs = artifact.problem.ways
    if artifact.learner.fixed_ways and shape.ways != outputs:
        raise InputError(
            f"this {artifact.config.method.name} has {outputs} outputs and cannot be tested "
            f"{shape.ways}-way; train one with test.ways={shape.ways} train.ways={shape.ways}"
        )
    if not within_alphabet:
        return EpisodeStream(images, shape, BLOCK, seed)
    if artifact.config.data.source != "omniglot":
        raise InputError("trials within an alphabet need data.source=omniglot")
    if (shape.shots, shape.queries) != (1, 1):
        raise InputError(
            "trials within an alphabet have one support and one query image a class; "
            "set --shots 1 --queries 1"
        )
    return AlphabetStream(images, shape.ways, BLOCK, seed)


def describe(data: DataConfig, split: SplitName) -> str:
    """What was tested on, in words."""
    match data.source:
        case "omniglot":
            drawn = "Vinyals split" if data.split == "vinyals" else f"{data.split} split {data.split_seed}"
            return f"Omniglot, {drawn}, {split} characters"
        case "toy":
            return f"the toy set, {split} classes"
        case "folder":
            return f"{data.path}, {split} classes"


def _or(given: int | None, usual: int) -> int:
    return usual if given is None else given
