"""What a test of a trained learner found, as one JSON file: what tables and plots are made of."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.core.files import write_whole
from innerloop.fewshot.artifacts import Training

RECORD_FILE = "evaluation.json"
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """One cell of a comparison.

    Args:
        method: its name in the registry.
        data: what it was tested on, split and protocol named.
        ways: classes an episode.
        shots: support images a class.
        queries: query images a class.
        episodes: how many were tested.
        inductive: mean accuracy, each query on its own.
        inductive_half: half the width of its 95 % interval.
        transductive: mean accuracy, an episode's queries together.
        transductive_half: half the width of its 95 % interval.
        training: what training took.
        train_seed: of training.
        test_seed: of the test episodes.
        command: what made the record.
        within_alphabet: whether all classes of an episode were of one alphabet, see ``AlphabetStream``.
        instances: for methods that learn while they read, the accuracy on the first, second, ... image of a
            class and half the width of its 95 % interval.
    """

    method: str
    data: str
    ways: int
    shots: int
    queries: int
    episodes: int
    inductive: float
    inductive_half: float
    transductive: float
    transductive_half: float
    training: Training
    train_seed: int
    test_seed: int
    command: str
    within_alphabet: bool = False
    instances: tuple[tuple[float, float], ...] = ()

    @property
    def cell(self) -> str:
        """The kind of episode, in words."""
        return f"{self.ways}-way {self.shots}-shot{' within an alphabet' if self.within_alphabet else ''}"


def record_path(folder: Path, ways: int, shots: int, within_alphabet: bool) -> Path:
    """Where the record of a cell is, below the folder of a test."""
    return folder / f"{ways}way_{shots}shot{'_within_alphabet' if within_alphabet else ''}" / RECORD_FILE


def write_record(folder: Path, record: Record) -> Path:
    """Writes a record below the folder of a test, whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = record_path(folder, record.ways, record.shots, record.within_alphabet)
    write_whole(path, json.dumps({"format": FORMAT, **asdict(record)}, indent=1) + "\n")
    return path


def read_records(folder: Path) -> list[Record]:
    """All records below a folder, by path.

    Raises:
        InputError: there are none, or one is damaged.
    """
    records = []
    for path in sorted(folder.rglob(RECORD_FILE)):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError("another release wrote it")
            training = Training(**values.pop("training"))
            instances = tuple((mean, half) for mean, half in values.pop("instances", ()))
            records.append(Record(**values, training=training, instances=instances))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"the record {path} is damaged ({error}); evaluate again") from error
    if not records:
        raise InputError(f"{folder} holds no {RECORD_FILE}; make some with 'innerloop fewshot evaluate'")
    return records
