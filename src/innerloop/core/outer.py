"""The outer optimization: θ's master copy, its optimizer, and one step along a meta-gradient."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from innerloop.core.checkpoint import RunState, optimizer_tensors, restore_optimizer
from innerloop.core.errors import InputError
from innerloop.core.inner import LearningRates
from innerloop.core.params import Params, whole
from innerloop.core.schedule import OptimizerName, ScheduleName, build_optimizer, rate_multiplier


@dataclass(frozen=True)
class OuterSettings:
    """The outer optimization.

    Args:
        learning_rate: of the outer optimizer; for Reptile under SGD this is ε.
        total_steps: meta-steps in the run.
        optimizer: which one.
        weight_decay: on θ.
        betas: of Adam and AdamW.
        clip_norm: shorten the meta-gradient to this norm; ``None`` leaves it.
        schedule: of the learning rate.
        warmup_ratio: share of the run over which the rate rises.
    """

    learning_rate: float
    total_steps: int
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = None
    schedule: ScheduleName = "constant"
    warmup_ratio: float = 0.0


class Outer:
    """θ and learned rates under the outer optimizer.

    Every process of a run takes the same step, each on the shards it holds if θ is sharded.

    Args:
        settings: which optimizer, and how it goes.
        theta: the module's adapted parameters.
        rates: the inner rates; learned ones are optimized too.
    """

    def __init__(
        self, settings: OuterSettings, theta: Mapping[str, nn.Parameter], rates: LearningRates
    ) -> None:
        self.settings, self._theta, self._rates = settings, theta, rates
        # Half-precision parameters are too coarse to gather small outer steps: θ's master copy is float32.
        self.masters: dict[str, nn.Parameter] = {
            name: p if p.dtype in (torch.float32, torch.float64) else nn.Parameter(p.detach().float())
            for name, p in theta.items()
        }
        self._optimizer = build_optimizer(
            settings.optimizer,
            self.masters.values(),
            rates.values.values(),
            settings.learning_rate,
            settings.weight_decay,
            settings.betas,
        )

    def step(self, number: int, gradient: Params, rate_gradient: Params, norm: Tensor) -> float:
        """Step ``number`` (from 0) along a gradient of this norm; returns the learning rate used."""
        chosen = self.settings
        for name, master in self.masters.items():
            master.grad = gradient[name].to(master)
        for name, rates in self._rates.values.items():
            rates.grad = rate_gradient[name].to(rates)
        if chosen.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.masters.values(), chosen.clip_norm, norm)
        rate = chosen.learning_rate * rate_multiplier(
            chosen.schedule, number, chosen.total_steps, chosen.warmup_ratio
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.publish()
        return rate

    def finer_copies(self) -> dict[str, nn.Parameter]:
        """The master copies of those parameters that are rounded from one."""
        return {name: master for name, master in self.masters.items() if master is not self._theta[name]}

    def publish(self) -> None:
        """Puts the master copy of θ into the module."""
        put(self.masters, self._theta)

    def save_optimizer(self, state: RunState) -> None:
        """Adds the optimizer's state to a run's."""
        state.put("optimizer", optimizer_tensors(self._optimizer))

    def restore_optimizer(self, state: RunState) -> None:
        """Takes up the optimizer's state.

        Raises:
            InputError: if it is another optimizer's.
        """
        if state.values["optimizer"] != self.settings.optimizer:
            raise InputError(
                f"the checkpoint was trained with {state.values['optimizer']}, not with "
                f"{self.settings.optimizer}; set optim.optimizer_type back, or leave optimizer out of "
                "checkpoint.load_contents"
            )
        restore_optimizer(self._optimizer, state.section("optimizer"))


def gradient_norm(gradient: Params) -> Tensor:
    """The norm of a gradient, over all shards if it is sharded, shape ``()``."""
    return whole(nn.utils.get_total_norm(gradient.values()))


def put(values: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    """Copies named values into tensors."""
    with torch.no_grad():
        for name, tensor in into.items():
            if values[name] is not tensor:
                tensor.copy_(values[name])
