"""The outer loop: tasks -> meta-gradient -> outer optimizer -> tracker, with checkpoints and exact resume."""

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from innerloop.core import params as vector
from innerloop.core.checkpoint import CheckpointFolder, RunState, optimizer_tensors, restore_optimizer
from innerloop.core.errors import InputError, Interrupted, NonFiniteError
from innerloop.core.inner import State
from innerloop.core.learner.base import Learner
from innerloop.core.losses import TaskLosses
from innerloop.core.metagrad import MetaGradient, Strategy
from innerloop.core.monitor import losses_of
from innerloop.core.params import Params
from innerloop.core.sampler import SamplerState, TaskSampler
from innerloop.core.schedule import OptimizerName, ScheduleName, build_optimizer, rate_multiplier
from innerloop.core.signals import StopRequest
from innerloop.core.task import Task
from innerloop.core.tracking import Tracker

Resume = Literal["auto", "disable"] | Path
STATE_PARTS = frozenset({"optimizer", "extra"})


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


@dataclass(frozen=True)
class RunSettings:
    """Where a run lives and when it saves.

    Args:
        folder: its checkpoints' folder.
        save_every: steps between checkpoints; the last step is always saved.
        evaluate_every: steps between evaluations on held-out tasks; 0 for never.
        keep: checkpoints to keep; -1 for all.
        resume: ``auto`` goes on from the newest checkpoint if there is one; ``disable`` refuses a folder
            that holds one; a path names the checkpoint to go on from.
        unit: what the ledger counts ("tokens").
        saved: what a checkpoint's state holds: ``optimizer``; ``extra`` (step, sampler, ledger, random state,
            carried moments). θ and learned rates always are. Without all of them a resumed run differs from
            the uninterrupted one.
        restored: what of it a resumed run takes up; without ``extra`` it starts again from step 0.
    """

    folder: Path
    save_every: int = 50
    evaluate_every: int = 0
    keep: int = -1
    resume: Resume = "auto"
    unit: str = "tokens"
    saved: frozenset[str] = STATE_PARTS
    restored: frozenset[str] = STATE_PARTS


@dataclass(frozen=True)
class TrainingResult:
    """Where a finished run is.

    Args:
        checkpoint: the last checkpoint, an artifact.
        metrics: the metrics file.
    """

    checkpoint: Path
    metrics: Path


@dataclass(frozen=True)
class _Marker:
    """What must be taken back if a step is given up halfway."""

    sampler: SamplerState
    ledger: Mapping[str, int]
    random: Tensor
    buffers: Params


class MetaTrainer:
    """Meta-trains θ, in the learner's module, with any strategy.

    Args:
        learner: the model.
        strategy: the meta-gradient.
        sampler: gives each meta-batch.
        outer: the outer optimization.
        run: folder, checkpoints, resume.
        trackers: makes the trackers, told the step the run starts after.
        export: fills a checkpoint folder with what users load (a model or an adapter).
        evaluate: measures held-out tasks; gives metrics to track.
    """

    def __init__(
        self,
        learner: Learner,
        strategy: Strategy,
        sampler: TaskSampler,
        outer: OuterSettings,
        run: RunSettings,
        trackers: Callable[[int], Tracker],
        export: Callable[[Path], None] = lambda _folder: None,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self.learner, self.strategy, self.sampler = learner, strategy, sampler
        self.outer, self.run = outer, run
        self.checkpoints = CheckpointFolder(run.folder, run.keep)
        self.step = 0
        self.seconds = 0.0
        self._saved: Path | None = None
        self._make_tracker, self._export, self._evaluate = trackers, export, evaluate
        self._rates = strategy.inner.rates
        # Half-precision parameters are too coarse to gather small outer steps: θ's master copy is float32.
        self._masters: dict[str, nn.Parameter] = {
            name: p if p.dtype in (torch.float32, torch.float64) else nn.Parameter(p.detach().float())
            for name, p in learner.theta.items()
        }
        self._optimizer = build_optimizer(
            outer.optimizer,
            self._masters.values(),
            self._rates.values.values(),
            outer.learning_rate,
            outer.weight_decay,
            outer.betas,
        )

    def fit(self) -> Path:
        """Runs to the last step and returns the last checkpoint.

        Raises:
            NonFiniteError: a loss or gradient is not finite; θ as it was before the step is saved.
            Interrupted: SIGTERM or SIGINT came; the last whole step is saved.
        """
        self._resume()
        tracker = self._make_tracker(self.step)
        try:
            with StopRequest() as stop:
                while self.step < self.outer.total_steps:
                    self._guarded_step(tracker, stop)
                return self._save_if_new()
        finally:
            tracker.close()

    def _guarded_step(self, tracker: Tracker, stop: StopRequest) -> None:
        marker = _Marker(
            self.sampler.state_dict(),
            self.learner.ledger.state_dict(),
            torch.get_rng_state(),
            vector.cloned(self.learner.buffers),
        )
        try:
            metrics = self._meta_step(stop)
        except (NonFiniteError, Interrupted) as ending:
            self.sampler.load_state_dict(marker.sampler)
            self.learner.ledger.load_state_dict(marker.ledger)
            torch.set_rng_state(marker.random)
            _put(marker.buffers, self.learner.buffers)
            saved = self._save_if_new()
            ending.args = (f"{ending}; step {self.step} is saved in {saved}",)
            raise
        if self._evaluate is not None and _due(self.step, self.run.evaluate_every, self.outer.total_steps):
            metrics |= self._evaluate()
        tracker.log(self.step, metrics)
        if _due(self.step, self.run.save_every, self.outer.total_steps):
            self._save_if_new()

    def _meta_step(self, stop: StopRequest) -> dict[str, float]:
        began, units_before = time.perf_counter(), self.learner.ledger.units
        tasks = self.sampler.sample()
        total: Params = {}
        rate_total: Params = {}
        losses: list[TaskLosses] = []
        extras: dict[str, list[Tensor]] = {}
        states: list[State] = []
        for start in range(0, len(tasks), self.learner.tasks_at_once):
            stop.check()
            chunk = tasks[start : start + self.learner.tasks_at_once]
            result = self.strategy(self.learner, self.learner.bundle(chunk))
            losses += losses_of(chunk, result)
            self._refuse_non_finite(chunk, losses[-len(chunk) :], result)
            gradient = {name: g.to(self._masters[name].dtype) for name, g in result.gradient.items()}
            total = vector.add(total, gradient) if total else gradient
            rate_total = vector.add(rate_total, result.rate_gradient) if rate_total else result.rate_gradient
            for name, values in result.extras.items():
                extras.setdefault(name, []).append(values)
            states += result.states
        total = vector.scaled(total, 1 / len(tasks))
        norm = nn.utils.get_total_norm(total.values())
        if not bool(torch.isfinite(norm)):
            names = ", ".join(task.name for task in tasks)
            raise NonFiniteError("norm of the meta-gradient", names, self.step + 1)
        rate = self._outer_step(total, vector.scaled(rate_total, 1 / len(tasks)), norm)
        if states:
            self.strategy.inner.rule.carry(states)
        self.step += 1
        elapsed = time.perf_counter() - began
        self.seconds += elapsed
        return {
            **self.strategy.metrics(losses),
            "meta/grad_norm": float(norm),
            "meta/lr": rate,
            **{f"meta/{name}": float(torch.cat(values).mean()) for name, values in extras.items()},
            f"perf/{self.run.unit}": self.learner.ledger.units - units_before,
            "perf/seconds": elapsed,
            "perf/peak_memory_bytes": peak_memory(),
        }

    def _refuse_non_finite(
        self, tasks: Sequence[Task], losses: Sequence[TaskLosses], result: MetaGradient
    ) -> None:
        for entry in losses:
            for what, value in (
                ("query loss before adaptation", entry.query_loss_before),
                ("support loss", entry.support_loss),
                ("query loss", entry.query_loss),
            ):
                if not math.isfinite(value):
                    # Without an inner loop the three are one.
                    name = what if self.strategy.inner.steps else "loss"
                    raise NonFiniteError(name, entry.task, self.step + 1)
        if not (vector.all_finite(result.gradient) and vector.all_finite(result.rate_gradient)):
            raise NonFiniteError("meta-gradient", ", ".join(task.name for task in tasks), self.step + 1)

    def _outer_step(self, gradient: Params, rate_gradient: Params, norm: Tensor) -> float:
        """One step of the outer optimizer along a gradient of this norm; returns the learning rate used."""
        for name, master in self._masters.items():
            master.grad = gradient[name].to(master)
        for name, rates in self._rates.values.items():
            rates.grad = rate_gradient[name].to(rates)
        if self.outer.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._masters.values(), self.outer.clip_norm, norm)
        factor = rate_multiplier(
            self.outer.schedule, self.step, self.outer.total_steps, self.outer.warmup_ratio
        )
        for group in self._optimizer.param_groups:
            group["lr"] = factor * self.outer.learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._publish()
        return factor * self.outer.learning_rate

    def _publish(self) -> None:
        """Puts the master copy of θ into the module."""
        _put(self._masters, self.learner.theta)

    def _save_if_new(self) -> Path:
        # What the folder holds under this name may be of another run; only our own save or load counts.
        path = self.checkpoints.path(self.step)
        if self._saved != path:
            self._saved = self.checkpoints.save(self.step, self._write)
        return path

    def _write(self, folder: Path) -> None:
        self._export(folder)
        state = RunState(
            values={
                "step": self.step,
                "seconds": self.seconds,
                "ledger": self.learner.ledger.state_dict(),
                "sampler": self.sampler.state_dict(),
                "holds": sorted(self.run.saved & STATE_PARTS),
                "optimizer": self.outer.optimizer,
            }
        )
        state.put("theta", self._masters)
        state.put("rates", self._rates.values)
        state.put("buffers", self.learner.buffers)
        if "optimizer" in self.run.saved:
            state.put("optimizer", optimizer_tensors(self._optimizer))
        if "extra" in self.run.saved:
            state.put("rule", self.strategy.inner.rule.state_dict())
            state.put("random", {"cpu": torch.get_rng_state()})
        state.write(folder)

    def _resume(self) -> None:
        if self.run.folder.is_dir():
            self.checkpoints.tidy()
        found = self.checkpoints.latest()
        if self.run.resume == "disable":
            if found is not None:
                raise InputError(
                    f"{self.run.folder} already holds {found.name} of another run; choose another "
                    "trainer.default_local_dir, or set trainer.resume_mode=auto to go on from it"
                )
            return
        checkpoint = self.run.resume if isinstance(self.run.resume, Path) else found
        if checkpoint is not None:
            self._restore(RunState.read(checkpoint), checkpoint)

    def _restore(self, state: RunState, checkpoint: Path) -> None:
        for name, current in (
            ("theta", self._masters),
            ("rates", self._rates.values),
            ("buffers", self.learner.buffers),
        ):
            saved = state.section(name)
            if {key: t.shape for key, t in saved.items()} != {key: t.shape for key, t in current.items()}:
                raise InputError(
                    f"{checkpoint} was trained with other adapted parameters than this configuration has; "
                    "resume with the model and LoRA settings it was trained with"
                )
            _put(saved, current)
        try:
            self._restore_parts(state)
        except KeyError as missing:
            raise InputError(
                f"cannot resume from {checkpoint}: its state lacks {missing}; name another checkpoint with "
                "trainer.resume_from_path"
            ) from missing
        if checkpoint.resolve() == self.checkpoints.path(self.step).resolve():
            self._saved = self.checkpoints.path(self.step)
        self._publish()

    def _restore_parts(self, state: RunState) -> None:
        if left_out := (self.run.restored & STATE_PARTS).difference(state.values["holds"]):
            raise InputError(
                f"the checkpoint was saved without {' and '.join(sorted(left_out))}; "
                "leave that out of checkpoint.load_contents too"
            )
        if "optimizer" in self.run.restored:
            if state.values["optimizer"] != self.outer.optimizer:
                raise InputError(
                    f"the checkpoint was trained with {state.values['optimizer']}, not with "
                    f"{self.outer.optimizer}; set optim.optimizer_type back, or leave optimizer out of "
                    "checkpoint.load_contents"
                )
            restore_optimizer(self._optimizer, state.section("optimizer"))
        if "extra" in self.run.restored:
            self._restore_extra(state)

    def _restore_extra(self, state: RunState) -> None:
        if state.values["sampler"].keys() != self.sampler.state_dict().keys():
            raise InputError(
                "the checkpoint was trained on other tasks than this configuration names; resume with the "
                "tasks it was trained on, or choose another trainer.default_local_dir"
            )
        self.sampler.load_state_dict(state.values["sampler"])
        self.learner.ledger.load_state_dict(state.values["ledger"])
        self.strategy.inner.rule.load_state_dict(state.section("rule"))
        torch.set_rng_state(state.section("random")["cpu"])
        self.step, self.seconds = int(state.values["step"]), float(state.values["seconds"])


def peak_memory() -> int:
    """The most memory the process has held so far, in bytes: on the GPU if one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage begins at the size of the process that started this one; the high-water mark does not.
        mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(mark.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _put(values: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in into.items():
            if values[name] is not tensor:
                tensor.copy_(values[name])


def _due(step: int, every: int, last: int) -> bool:
    return every > 0 and (step % every == 0 or step == last)
