"""The figures of a run's metrics file, as results hold them."""

import math
from pathlib import Path

from innerloop.core.tracking import read_metrics


def last_metrics(file: Path) -> dict[str, float | None]:
    """The metrics of a run's last step; what is no finite number is none."""
    row = read_metrics(file)[-1]
    return {name: finite(value) for name, value in row.items() if name != "step"}


def finite(value: float) -> float | None:
    """The number, or none for what JSON has no word for."""
    return value if math.isfinite(value) else None
