"""The outer loop: tasks -> meta-gradient -> outer optimizer -> tracker, with checkpoints and exact resume."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from innerloop.core import params as vector
from innerloop.core.checkpoint import CheckpointFolder, RunState, shape_of
from innerloop.core.errors import InnerloopError, InputError, Interrupted, NonFiniteError
from innerloop.core.learner.base import Learner
from innerloop.core.losses import TaskLosses
from innerloop.core.metagrad import MetaGradient, Strategy
from innerloop.core.monitor import losses_of
from innerloop.core.outer import Outer, OuterSettings, gradient_norm, put
from innerloop.core.parallel import Turn, World
from innerloop.core.params import Params
from innerloop.core.peak import peak_memory
from innerloop.core.pooling import Pool, together
from innerloop.core.sampler import SamplerState, TaskSampler, derive_seed
from innerloop.core.signals import StopRequest
from innerloop.core.stored import as_it_lies
from innerloop.core.task import Task
from innerloop.core.tracking import Fanout, Tracker

__all__ = ["MetaTrainer", "OuterSettings", "Resume", "RunSettings", "TrainingResult", "peak_memory"]

Resume = Literal["auto", "disable"] | Path
_APART = (
    "the processes of this run are not at the same place; start all of them with the same settings, data and "
    "checkpoint"
)
STATE_PARTS = frozenset({"optimizer", "extra"})


@dataclass(frozen=True)
class RunSettings:
    """Where a run lives and when it saves.

    Args:
        folder: its checkpoints' folder.
        save_every: steps between checkpoints; the last step is always saved.
        evaluate_every: steps between evaluations on held-out tasks; 0 for never.
        monitor_every: steps between those that also measure the losses which the meta-gradient does not need:
            on the query batch before adaptation, on the support batch after it.
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
    monitor_every: int = 1
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
        evaluate: measures held-out tasks; gives metrics to track. Every process of a run calls it, and
            ``export``, which only the main one need obey.
        world: the processes that share out each meta-batch; by default this one alone. All must be given the
            same of everything else, and seed PyTorch alike.
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
        world: World | None = None,
    ) -> None:
        self.learner, self.strategy, self.sampler = learner, strategy, sampler
        self.run, self.world = run, world or World()
        self.checkpoints = CheckpointFolder(run.folder, run.keep, self.world)
        self.step = 0
        self.seconds = 0.0
        self._saved: Path | None = None
        self._make_tracker, self._export, self._evaluate = trackers, export, evaluate
        self._rates = strategy.inner.rates
        self._outer = Outer(outer, learner.theta, strategy.inner.rates)
        learner.masters = self._outer.finer_copies()
        self._last_step = outer.total_steps
        if self.world.size > 1 and strategy.keeps_buffers and learner.buffers:
            raise InputError(
                "this method gathers running statistics over the tasks of a meta-batch, which several "
                "processes cannot do together; start one"
            )

    def fit(self) -> Path:
        """Runs to the last step and returns the last checkpoint.

        Raises:
            NonFiniteError: a loss or gradient is not finite; θ as it was before the step is saved.
            Interrupted: SIGTERM or SIGINT came; the last whole step is saved.
        """
        self._resume()
        tracker: Tracker = Fanout(())
        with self.world.together():
            if self.world.is_main:
                tracker = self._make_tracker(self.step)
        try:
            with StopRequest() as stop:
                while self.step < self._last_step:
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
            put(marker.buffers, self.learner.buffers)
            saved = self._save_if_new()
            ending.args = (f"{ending}; step {self.step} is saved in {saved}",)
            raise
        if self._evaluate is not None and _due(self.step, self.run.evaluate_every, self._last_step):
            metrics |= self._evaluate()
        with self.world.together():
            tracker.log(self.step, metrics)
        if _due(self.step, self.run.save_every, self._last_step):
            self._save_if_new()

    def _meta_step(self, stop: StopRequest) -> dict[str, float]:
        began, spent_before = time.perf_counter(), self.learner.ledger.state_dict()
        tasks = self.sampler.sample()
        self.learner.monitors = self.step % self.run.monitor_every == 0 or self.step + 1 == self._last_step
        pool = Pool(self._outer.masters, self.strategy.inner.rule)
        with self._own_randomness() as seed:
            self._adapt_to_share(tasks, pool, seed, stop)
        spent = {name: now - spent_before[name] for name, now in self.learner.ledger.state_dict().items()}
        pool.figures.spent, pool.figures.peak_memory = spent, peak_memory()
        figures = together(self.world, pool.figures)
        gradient, rate_gradient = pool.mean(self.world, len(tasks))
        norm = gradient_norm(gradient)
        if not bool(torch.isfinite(norm)):
            names = ", ".join(task.name for task in tasks)
            self.world.agree(NonFiniteError("norm of the meta-gradient", names, self.step + 1))
        rate = self._outer.step(self.step, gradient, rate_gradient, norm)
        self.learner.ledger.load_state_dict(
            {name: count + figures.spent[name] for name, count in spent_before.items()}
        )
        self.step += 1
        elapsed = time.perf_counter() - began
        self.seconds += elapsed
        return {
            **self.strategy.metrics(figures.ordered()),
            "meta/grad_norm": float(norm),
            "meta/lr": rate,
            **{f"meta/{name}": fmean(places.values()) for name, places in figures.extras.items()},
            f"perf/{self.run.unit}": figures.spent["units"],
            "perf/seconds": elapsed,
            "perf/peak_memory_bytes": figures.peak_memory,
        }

    def _adapt_to_share(self, tasks: Sequence[Task], pool: Pool, seed: int, stop: StopRequest) -> None:
        """Adapts to this process's share of the tasks; what goes wrong on one process is raised on all."""
        problem: InnerloopError | None = None
        at_once = self.learner.tasks_at_once
        with self.world.together():
            turns = self.world.turns(len(tasks))
        for chunk in (turns[start : start + at_once] for start in range(0, len(turns), at_once)):
            if self.world.in_step:
                # Nobody may stop here while the others are in the middle of a task that needs all.
                self.world.agree(problem or stop.asked())
            elif problem := stop.asked():
                break
            torch.manual_seed(derive_seed(seed, chunk[0].index))
            try:
                self._adapt_to([tasks[turn.index] for turn in chunk], chunk, pool)
            except NonFiniteError as error:
                problem = error
                if not self.world.in_step:
                    break
        self.world.agree(problem)

    def _adapt_to(self, tasks: Sequence[Task], turns: Sequence[Turn], pool: Pool) -> None:
        if not turns[0].counts:
            with self.learner.unaccounted():
                self.strategy(self.learner, self.learner.bundle(tasks))
            return
        result = self.strategy(self.learner, self.learner.bundle(tasks), pool.gradient)
        losses = losses_of(tasks, result)
        self._refuse_non_finite(tasks, losses, result)
        pool.add(turns, losses, result)

    @contextmanager
    def _own_randomness(self) -> Iterator[int]:
        """Gives the seed of a step's tasks, each of which has its own whichever process adapts to it.

        Raises:
            InputError: if the processes have come apart, so that they would train on different things.
        """
        seed = derive_seed(torch.initial_seed(), self.step)
        after = torch.get_rng_state()
        heard = self.world.gather((self.step, seed, self.sampler.state_dict()))
        if any(said != heard[0] for said in heard):
            self.world.agree(InputError(_APART))
        try:
            yield seed
        finally:
            torch.set_rng_state(after)

    def _refuse_non_finite(
        self, tasks: Sequence[Task], losses: Sequence[TaskLosses], result: MetaGradient
    ) -> None:
        for entry in losses:
            for what, value in (
                ("query loss before adaptation", entry.query_loss_before),
                ("support loss", entry.support_loss),
                ("query loss", entry.query_loss),
            ):
                if value is not None and not math.isfinite(value):
                    # Without an inner loop the three are one.
                    name = what if self.strategy.inner.steps else "loss"
                    raise NonFiniteError(name, entry.task, self.step + 1)
        if not (vector.all_finite(result.gradient) and vector.all_finite(result.rate_gradient)):
            raise NonFiniteError("meta-gradient", ", ".join(task.name for task in tasks), self.step + 1)

    def _save_if_new(self) -> Path:
        # What the folder holds under this name may be of another run; only our own save or load counts.
        path = self.checkpoints.path(self.step)
        if self._saved != path:
            self._saved = self.checkpoints.save(self.step, self._write)
        return path

    def _write(self, folder: Path) -> None:
        """Fills a checkpoint's folder; every process comes here."""
        self._export(folder)
        state = RunState(
            values={
                "step": self.step,
                "seconds": self.seconds,
                "ledger": self.learner.ledger.state_dict(),
                "sampler": self.sampler.state_dict(),
                "holds": sorted(self.run.saved & STATE_PARTS),
                "optimizer": self._outer.settings.optimizer,
            }
        )
        state.put("theta", self._outer.masters)
        state.put("rates", self._rates.values)
        state.put("buffers", self.learner.buffers)
        if "optimizer" in self.run.saved:
            self._outer.save_optimizer(state)
        if "extra" in self.run.saved:
            state.put("rule", self.strategy.inner.rule.state_dict())
            state.put("random", {"cpu": torch.get_rng_state()})
        state.write(folder, self.world)

    def _resume(self) -> None:
        found = self.world.from_main(self._newest)
        if self.run.resume == "disable":
            if found is not None:
                raise InputError(
                    f"{self.run.folder} already holds {found.name} of another run; choose another "
                    "trainer.default_local_dir, or set trainer.resume_mode=auto to go on from it"
                )
            return
        checkpoint = self.run.resume if isinstance(self.run.resume, Path) else found
        if checkpoint is not None:
            with self.world.together():
                self._restore(RunState.read(checkpoint), checkpoint)

    def _newest(self) -> Path | None:
        if self.run.folder.is_dir():
            self.checkpoints.tidy()
        return self.checkpoints.latest()

    def _restore(self, state: RunState, checkpoint: Path) -> None:
        parts: tuple[tuple[str, Mapping[str, Tensor]], ...] = (
            ("theta", self._outer.masters),
            ("rates", self._rates.values),
            ("buffers", self.learner.buffers),
        )
        for part, current in parts:
            saved = state.section(part)
            if {name: shape_of(saved, name) for name in saved} != {n: t.shape for n, t in current.items()}:
                raise InputError(
                    f"{checkpoint} was trained with other adapted parameters than this configuration has; "
                    "resume with the model and LoRA settings it was trained with"
                )
            with torch.no_grad():
                for name, tensor in current.items():
                    tensor.copy_(as_it_lies(saved, name, tensor))
        try:
            self._restore_parts(state)
        except KeyError as missing:
            raise InputError(
                f"cannot resume from {checkpoint}: its state lacks {missing}; name another checkpoint with "
                "trainer.resume_from_path"
            ) from missing
        if checkpoint.resolve() == self.checkpoints.path(self.step).resolve():
            self._saved = self.checkpoints.path(self.step)
        self._outer.publish()

    def _restore_parts(self, state: RunState) -> None:
        if left_out := (self.run.restored & STATE_PARTS).difference(state.values["holds"]):
            raise InputError(
                f"the checkpoint was saved without {' and '.join(sorted(left_out))}; "
                "leave that out of checkpoint.load_contents too"
            )
        if "optimizer" in self.run.restored:
            self._outer.restore_optimizer(state)
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
        carried = state.section("rule")
        self.strategy.inner.rule.load_state_dict(
            {name: as_it_lies(carried, name, self._like_carried(name)) for name in carried}
        )
        torch.set_rng_state(state.section("random")["cpu"])
        self.step, self.seconds = int(state.values["step"]), float(state.values["seconds"])

    def _like_carried(self, name: str) -> Tensor:
        """The parameter that a tensor of the inner rule's state, ``KIND/NAME``, belongs to, if to one."""
        return self.learner.theta.get(name.partition("/")[2], torch.empty(()))


def _due(step: int, every: int, last: int) -> bool:
    return every > 0 and (step % every == 0 or step == last)
