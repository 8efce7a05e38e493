"""Metrics as TensorBoard event files, in ``tensorboard/`` beside the run's other files."""

import json
from collections.abc import Mapping
from pathlib import Path

from innerloop.core.errors import missing_extra

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise missing_extra("tensorboard", "tensorboard") from error

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Writes every metric as a scalar.

    Args:
        folder: the run's folder; the events go to a folder of their own in it.
        config: the resolved settings, shown as text.
        start_step: the step the run starts after. TensorBoard leaves out what an earlier, lost attempt wrote
            for the steps that follow it.
    """

    def __init__(self, folder: Path, config: Mapping[str, object], start_step: int = 0) -> None:
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=start_step + 1)
        settings = json.dumps(config, indent=2, default=str)
        self._writer.add_text("config", f"```json\n{settings}\n```", start_step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds one step's scalars."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is still buffered."""
        self._writer.close()
