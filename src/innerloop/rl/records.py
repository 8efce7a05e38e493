"""What an evaluation found, as one JSON file, and the figures that follow from it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop.core.errors import InputError
from innerloop.core.files import write_whole
from innerloop.core.stats import Interval, PairedTest, holm, mean_interval, sign_flip_test
from innerloop.rl.artifacts import Training
from innerloop.rl.metrics import (
    AdaptationSpeed,
    TransferMetric,
    adaptation_accuracy,
    adaptation_speed,
    speed_up,
    transfer_metric,
)

RECORD_FILE = "evaluation.json"
FORMAT = 1
HINDSIGHT = "best fixed, in hindsight"
"""The baseline that knows the episodes beforehand."""
RANDOM, SCRATCH = "random", "scratch"


@dataclass(frozen=True)
class Measured:
    """One method on all clusters.

    Args:
        name: of the method.
        training: what its training took; none for a baseline.
        returns: mean return by cluster, seed of adaptation and number of episodes adapted on; a baseline has
            one seed and one number.
        violations: share of the requests that violated the objective, likewise.
        parameter_distance: how far adaptation moved the parameters, relative to their length.
    """

    name: str
    training: Training | None
    returns: list[list[list[float]]]
    violations: list[list[list[float]]]
    parameter_distance: float

    @property
    def adapts(self) -> bool:
        """Whether it is a policy that learns on the cluster."""
        return self.training is not None

    def by_cluster(self, place: int) -> NDArray[np.float64]:
        """Each cluster's return, the mean over seeds, after the episodes at this place of the list."""
        values = np.asarray(self.returns).mean(1)
        column: NDArray[np.float64] = values[:, place if self.adapts else 0]
        return column

    def violations_by_cluster(self, place: int) -> NDArray[np.float64]:
        """Each cluster's share of violations, likewise."""
        values = np.asarray(self.violations).mean(1)
        column: NDArray[np.float64] = values[:, place if self.adapts else 0]
        return column


@dataclass(frozen=True)
class Figures:
    """What follows for one policy that adapts.

    Args:
        gain: by which adaptation raised the return, paired by cluster.
        speed: of adaptation, of the mean curve.
        transfer: against training from scratch on the cluster.
        accuracy: between random (0) and the best fixed number in hindsight (1), at the end; none for families
            without that baseline, or where random is as good.
        speed_up: how many times as many episodes training from scratch takes to come as far; none if it never
            does.
    """

    gain: Interval
    speed: AdaptationSpeed
    transfer: TransferMetric
    accuracy: float | None
    speed_up: float | None


@dataclass(frozen=True)
class Comparison:
    """Two methods at their last measurement, cluster by cluster.

    Args:
        first: the one.
        second: the other.
        difference: mean of the first's returns less the second's, with its interval.
        test: of no difference.
        p_value: corrected by Holm for all comparisons of the evaluation.
    """

    first: str
    second: str
    difference: Interval
    test: PairedTest
    p_value: float


@dataclass(frozen=True)
class Evaluation:
    """All methods on the same held-out clusters.

    Args:
        family: of tasks.
        split: of its members.
        clusters: how many.
        seeds: of adaptation on each.
        episodes: after how many episodes of adaptation it was measured.
        judged_on: episodes of each measurement.
        methods: policies first, then baselines.
        command: what made the record.
    """

    family: str
    split: str
    clusters: int
    seeds: int
    episodes: tuple[int, ...]
    judged_on: int
    methods: tuple[Measured, ...]
    command: str

    def method(self, name: str) -> Measured:
        """The method of a name.

        Raises:
            InputError: there is none.
        """
        for measured in self.methods:
            if measured.name == name:
                return measured
        raise InputError(f"the evaluation holds no method '{name}'; it holds: {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of all methods."""
        return tuple(measured.name for measured in self.methods)

    def curve(self, name: str) -> list[Interval]:
        """The mean return over clusters with its 95 % interval, after each number of episodes."""
        measured = self.method(name)
        return [mean_interval(measured.by_cluster(place).tolist()) for place in range(len(self.episodes))]

    def violations(self, name: str) -> list[Interval]:
        """The mean share of violations, likewise."""
        measured = self.method(name)
        places = range(len(self.episodes))
        return [mean_interval(measured.violations_by_cluster(place).tolist()) for place in places]

    def figures(self, name: str) -> Figures:
        """What follows for a policy that adapts."""
        curve = [interval.mean for interval in self.curve(name)]
        scratch = [interval.mean for interval in self.curve(SCRATCH)]
        accuracy = None
        if HINDSIGHT in self.names:
            random, best = (self.curve(other)[-1].mean for other in (RANDOM, HINDSIGHT))
            accuracy = adaptation_accuracy(curve[-1], random, best) if best > random else None
        measured = self.method(name)
        gained = measured.by_cluster(len(self.episodes) - 1) - measured.by_cluster(0)
        return Figures(
            mean_interval(gained.tolist()),
            adaptation_speed(self.episodes, curve),
            transfer_metric(self.episodes, curve, scratch),
            accuracy,
            speed_up(self.episodes, curve, scratch),
        )

    def comparisons(self) -> list[Comparison]:
        """Every meta-learned policy against every other method, after all episodes."""
        pairs = [
            (mine.name, other.name)
            for mine in self.methods
            if mine.training is not None and mine.training.way == "meta"
            for other in self.methods
            if other.training is None or other.training.way != "meta"
        ]
        last = len(self.episodes) - 1
        tests, intervals = [], []
        for mine, other in pairs:
            difference = self.method(mine).by_cluster(last) - self.method(other).by_cluster(last)
            tests.append(sign_flip_test(difference.tolist()))
            intervals.append(mean_interval(difference.tolist()))
        corrected = holm([test.p_value for test in tests])
        return [
            Comparison(mine, other, interval, test, p)
            for (mine, other), interval, test, p in zip(pairs, intervals, tests, corrected, strict=True)
        ]


def measured_from(values: Mapping[str, Any]) -> Measured:
    """A method from what ``asdict`` made of it, read back from JSON."""
    training = values["training"]
    return Measured(**{**values, "training": Training(**training) if training else None})


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path:
    """Writes the record, whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = folder / RECORD_FILE
    write_whole(path, json.dumps({"format": FORMAT, **asdict(evaluation)}, indent=1) + "\n")
    return path


def read_evaluation(path: Path) -> Evaluation:
    """Reads a record.

    Args:
        path: the file, or the folder it is in.

    Raises:
        InputError: there is none, or it is damaged.
    """
    file = path / RECORD_FILE if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError("another release wrote it")
        methods = [measured_from(entry) for entry in values.pop("methods")]
        return Evaluation(**{**values, "episodes": tuple(values["episodes"])}, methods=tuple(methods))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"the record {file} cannot be read ({error}); evaluate again") from error
