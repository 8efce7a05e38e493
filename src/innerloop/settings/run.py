"""The section ``trainer`` of a domain: where a run lives, how long it is, what it writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from innerloop.core.trainer import RunSettings
from innerloop.settings.constraints import OneOrMany
from innerloop.settings.kinds import Count, LocalPath, Seed, Text


@dataclass(frozen=True)
class RunConfig:
    """One run. A domain adds fields of its own in a subclass."""

    seed: Seed
    total_steps: Count
    save_freq: Count | Literal[-1]
    monitor_freq: Count
    project_name: Text
    experiment_name: Text
    logger: Annotated[tuple[Literal["console", "tensorboard", "wandb"], ...], OneOrMany()]
    default_local_dir: LocalPath
    resume_mode: Literal["auto", "disable"]
    max_ckpt_to_keep: Count | None

    @property
    def folder(self) -> Path:
        """Of the run's checkpoints and metrics."""
        return Path(self.default_local_dir)

    @property
    def keep(self) -> int:
        """How many checkpoints to keep, as the core takes it."""
        return -1 if self.max_ckpt_to_keep is None else self.max_ckpt_to_keep

    def settings(self, unit: str, evaluate_every: int = 0) -> RunSettings:
        """The same as the core's trainer takes it.

        Args:
            unit: what the ledger counts.
            evaluate_every: steps between evaluations; 0 for never.
        """
        return RunSettings(
            folder=self.folder,
            save_every=max(self.save_freq, 0),
            evaluate_every=evaluate_every,
            monitor_every=self.monitor_freq,
            keep=self.keep,
            resume=self.resume_mode,
            unit=unit,
        )
