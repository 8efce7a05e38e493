"""Published accuracies on Omniglot, to stand beside ours.

Splits differ: Vinyals 2016 and Snell 2017 turn test characters into further classes, Finn 2017 and most
others test on upright ones of a random split.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from innerloop.fewshot.records import Record

Cell = tuple[int, int]
"""Ways and shots."""


@dataclass(frozen=True)
class Published:
    """One method's figures, in per cent.

    Args:
        source: the paper the figures stand in.
        accuracy: by ways and shots.
        transductive: whether batch norm saw an episode's queries together.
    """

    source: str
    accuracy: Mapping[Cell, float]
    transductive: bool = False


def _cells(*figures: float | None) -> Mapping[Cell, float]:
    """5-way 1-shot, 5-way 5-shot, 20-way 1-shot, 20-way 5-shot; none where the paper has no figure."""
    cells = ((5, 1), (5, 5), (20, 1), (20, 5))
    return {cell: figure for cell, figure in zip(cells, figures, strict=True) if figure is not None}


INSTANCES: Mapping[str, tuple[str, Mapping[int, float]]] = {
    "mann": ("Santoro 2016", {2: 82.8, 5: 94.9}),
}
"""The source, and accuracies in per cent on the k-th image of a class in a sequence of Omniglot's."""

WITHIN_ALPHABET: Mapping[str, Published] = {"siamese": Published("Koch 2015", {(20, 1): 92.0})}
"""On Lake's 400 trials."""

OMNIGLOT: Mapping[str, Published] = {
    "siamese": Published("Vinyals 2016", _cells(96.7, 98.4, 88.0, 96.5)),
    "matching": Published("Vinyals 2016", _cells(98.1, 98.9, 93.8, 98.5)),
    "prototypical": Published("Snell 2017", _cells(98.8, 99.7, 96.0, 98.9)),
    "relation": Published("Sung 2018", _cells(99.6, 99.8, 97.6, 99.1), transductive=True),
    "maml": Published("Finn 2017", _cells(98.7, 99.9, 95.8, 98.9), transductive=True),
    "fomaml": Published("Nichol 2018", _cells(98.3, 99.2, 89.4, 97.9), transductive=True),
    "reptile": Published("Nichol 2018", _cells(97.7, 99.5, 89.4, 97.1), transductive=True),
    "implicit_maml": Published("Rajeswaran 2019", _cells(99.5, 99.7, 96.2, 99.1), transductive=True),
    "metanet": Published("Munkhdalai 2017", _cells(99.0, None, 97.0, None)),
}


@dataclass(frozen=True)
class Figure:
    """A published accuracy.

    Args:
        accuracy: in per cent.
        source: the paper it stands in.
        transductive: whether batch norm saw an episode's queries together.
    """

    accuracy: float
    source: str
    transductive: bool


def published_figure(record: Record) -> Figure | None:
    """What was published for a record's method and cell; none for other data than Omniglot."""
    if not record.data.startswith("Omniglot"):
        return None
    known = (WITHIN_ALPHABET if record.within_alphabet else OMNIGLOT).get(record.method)
    accuracy = None if known is None else known.accuracy.get((record.ways, record.shots))
    return None if known is None or accuracy is None else Figure(accuracy, known.source, known.transductive)
