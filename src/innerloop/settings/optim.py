"""The section ``optim``, which every domain has."""

from dataclasses import dataclass

from innerloop.core.schedule import OptimizerName, ScheduleName
from innerloop.core.trainer import OuterSettings
from innerloop.settings.kinds import Betas, Fraction, NonNegative, Positive


@dataclass(frozen=True)
class OptimConfig:
    """The outer optimizer. Once loaded, ``lr`` is the rate in force."""

    optimizer_type: OptimizerName
    lr: Positive
    weight_decay: NonNegative
    betas: Betas
    clip_grad: Positive | None
    lr_scheduler: ScheduleName
    lr_warmup_steps_ratio: Fraction

    def outer(self, total_steps: int) -> OuterSettings:
        """The same as the core takes it, for a run of so many steps."""
        return OuterSettings(
            learning_rate=self.lr,
            total_steps=total_steps,
            optimizer=self.optimizer_type,
            weight_decay=self.weight_decay,
            betas=self.betas,
            clip_norm=self.clip_grad,
            schedule=self.lr_scheduler,
            warmup_ratio=self.lr_warmup_steps_ratio,
        )
