"""Metrics in Weights & Biases. Whatever goes wrong there costs its charts, never the training."""

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from innerloop.core.errors import missing_extra

try:
    import wandb
except ImportError as error:
    raise missing_extra("wandb", "wandb") from error

logger = logging.getLogger(__name__)

RUN_ID_FILE = "wandb_run_id"
SECONDS_TO_ANSWER = 60.0


class WandbTracker:
    """One W&B run for one training run, continued when the training is resumed.

    The usual ``WANDB_*`` variables apply: ``WANDB_MODE=offline`` records into the folder for ``wandb sync``.
    If W&B cannot be reached or fails, one warning says so and the run goes on without it.

    Args:
        folder: the run's folder; ``wandb/`` and the run's id are kept in it.
        project: the project's name.
        experiment: the run's name.
        config: the resolved settings.
        start_step: the step the run starts after; past 0 the W&B run of that folder is continued.
    """

    def __init__(
        self, folder: Path, project: str, experiment: str, config: Mapping[str, object], start_step: int = 0
    ) -> None:
        self._run: wandb.Run | None = None

        def start() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=project,
                name=experiment,
                dir=folder,
                # W&B takes JSON; paths and the like become text.
                config=json.loads(json.dumps(config, default=str)),
                id=_run_id(folder, start_step),
                resume="allow",
                # Several trainings may follow each other in one process, each with a run of its own.
                reinit="create_new",
                settings=wandb.Settings(
                    login_timeout=SECONDS_TO_ANSWER,
                    init_timeout=SECONDS_TO_ANSWER,
                    finish_timeout=SECONDS_TO_ANSWER,
                    finish_timeout_raises=True,
                    # W&B would put itself between the progress bar and the terminal.
                    console="off",
                ),
            )

        self._attempt("start", start)

    @property
    def run_id(self) -> str | None:
        """The id of the W&B run; none where W&B failed."""
        return None if self._run is None else str(self._run.id)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends one step's metrics."""
        if (run := self._run) is not None:
            self._attempt("log to", lambda: run.log(dict(metrics), step=step))

    def close(self) -> None:
        """Finishes the run, waiting a minute at most for what is still to be sent."""
        if (run := self._run) is not None:
            self._attempt("finish", run.finish)
            self._run = None

    def _attempt(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as failure:  # noqa: BLE001 - network, login, quota, its own faults: none may stop a run
            self._run = None
            logger.warning(
                "could not %s the W&B run (%s: %s); training goes on without it, all metrics are in "
                "metrics.jsonl",
                what,
                type(failure).__name__,
                " ".join(str(failure).split()),
            )


def _run_id(folder: Path, start_step: int) -> str:
    """The id of the folder's W&B run when continuing it, else a new one, kept for next time."""
    path = folder / RUN_ID_FILE
    if start_step > 0 and path.exists():
        return path.read_text(encoding="utf-8").strip()
    run_id = secrets.token_hex(4)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(run_id, encoding="utf-8")
    temporary.replace(path)
    return run_id
