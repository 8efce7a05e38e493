"""An episode as a picture: load, replicas and latency over time."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from innerloop.rl.simulator.snapshot import Array, Snapshot

ROWS = (
    ("requests a second", "request_rate"),
    ("replicas", "desired"),
    ("serving", "ready"),
    ("latency, s", "latency"),
)


class Course:
    """What was seen of one cluster, step by step."""

    def __init__(self) -> None:
        self._seen: list[Snapshot] = []

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, snapshot: Snapshot) -> None:
        """One more step of a cluster; E = 1."""
        self._seen.append(snapshot)

    def series(self, name: str) -> Array:
        """A field of the snapshots over the steps, ``steps x D``."""
        return np.array([getattr(snapshot, name)[0] for snapshot in self._seen])

    def threshold(self) -> float:
        """Seconds of latency that the objective allows."""
        return float(self._seen[-1].threshold[0])


def draw(course: Course) -> NDArray[np.uint8]:
    """The picture, ``height x width x 3``; an empty one before the first step."""
    figure = Figure(figsize=(7.2, 7.2), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(ROWS), sharex=True)
    for axis, (label, field) in zip(axes, ROWS, strict=True):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if not len(course):
            continue
        for number, line in enumerate(course.series(field).T):
            axis.plot(np.arange(1, len(line) + 1), line, label=f"application {number + 1}", linewidth=1.8)
        axis.set_ylim(bottom=0)
    if len(course):
        axes[-1].axhline(course.threshold(), color="0.4", linestyle="--", linewidth=1, label="objective")
        axes[0].legend(loc="upper right", frameon=False)
    axes[-1].set_xlabel("control step")
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's own
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
