"""A run of PPO, from scratch or by transfer: rounds, checkpoints, resume, metrics."""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

from innerloop.core import params as vector
from innerloop.core.checkpoint import CheckpointFolder, RunState, optimizer_tensors, restore_optimizer
from innerloop.core.errors import InputError, Interrupted, NonFiniteError
from innerloop.core.sampler import derive_seed
from innerloop.core.signals import StopRequest
from innerloop.core.trainer import TrainingResult
from innerloop.rl.artifacts import Training, Way, fresh_policy, load_artifact, save_artifact
from innerloop.rl.config import Config, to_dict
from innerloop.rl.metrics import parameter_distance
from innerloop.rl.policy import ClusterPolicy, freeze
from innerloop.rl.ppo import PPOTrainer
from innerloop.rl.transfer import FreezingPlan, transferred_policy
from innerloop.tracking import trackers_of_run


def train(config: Config) -> TrainingResult:
    """Trains a policy by PPO on the family's training members, or goes on where it stopped.

    Raises:
        InputError: a setting is wrong, or the folder cannot be written.
        NonFiniteError: a loss became NaN or infinite; the last whole round is saved.
        Interrupted: a signal came; the last whole round is saved.
    """
    return _Run(config, fresh_policy(config), "ppo", None, lambda _: ()).fit()


def transfer(config: Config, source: Path) -> TrainingResult:
    """Trains a source policy on the settings' family, some of its layers frozen.

    Raises:
        InputError: as :func:`train`; a source that does not fit; a frozen layer that there is not.
        NonFiniteError: as :func:`train`.
        Interrupted: a signal came; the last whole round is saved.
    """
    plan = FreezingPlan(config.transfer)
    policy = transferred_policy(load_artifact(source), config)
    return _Run(config, policy, "transfer", str(source), plan.frozen).fit()


class _Run:
    def __init__(
        self,
        config: Config,
        policy: ClusterPolicy,
        way: Way,
        source: str | None,
        frozen: Callable[[int], tuple[str, ...]],
    ) -> None:
        self._config, self._policy, self._way, self._source, self._frozen = (
            config,
            policy,
            way,
            source,
            frozen,
        )
        run = config.trainer
        self._folder = run.folder
        self._checkpoints = CheckpointFolder(run.folder, run.keep)
        self._start = {name: p.detach().clone() for name, p in policy.named_parameters()}
        freeze(policy, frozen(0))
        members = config.family.split("train")
        self._trainer = PPOTrainer(
            policy, members, config.control, config.ppo, run.total_steps, derive_seed(run.seed, "train")
        )
        self._seconds = 0.0
        self._saved = -1

    def fit(self) -> TrainingResult:
        """Runs to the last round."""
        run, trainer = self._config.trainer, self._trainer
        self._resume()
        tracker = trackers_of_run(run, self._folder, run.total_steps, trainer.done, to_dict(self._config))
        try:
            with StopRequest() as stop:
                while trainer.done < run.total_steps:
                    try:
                        stop.check()
                    except Interrupted as ending:
                        ending.args = (f"{ending}; round {trainer.done} is saved in {self._save()}",)
                        raise
                    began = time.perf_counter()
                    figures = self._round()
                    elapsed = time.perf_counter() - began
                    self._seconds += elapsed
                    figures |= self._moved()
                    tracker.log(trainer.done, figures | {"perf/seconds": elapsed})
                    if run.save_freq > 0 and trainer.done % run.save_freq == 0:
                        self._save()
                return TrainingResult(self._save(), self._folder / "metrics.jsonl")
        finally:
            tracker.close()

    def _round(self) -> dict[str, float]:
        """Plays and learns one round, and takes back one that went wrong."""
        policy, trainer = self._policy, self._trainer
        self._thaw(trainer.done)
        optimizers = (trainer.optimizer, trainer.cost_optimizer)
        weights, moments = copy.deepcopy((policy.state_dict(), [o.state_dict() for o in optimizers]))
        figures = trainer.round()
        wrong = [name for name, value in figures.items() if not math.isfinite(value)]
        if wrong or not vector.all_finite(dict(policy.named_parameters())):
            policy.load_state_dict(weights)
            for optimizer, kept in zip(optimizers, moments, strict=True):
                optimizer.load_state_dict(kept)
            trainer.done -= 1
            what = wrong[0] if wrong else "a parameter"
            ending = NonFiniteError(what, self._config.family.name, trainer.done + 1)
            ending.args = (f"{ending}; round {trainer.done} is saved in {self._save()}",)
            raise ending
        return figures

    def _moved(self) -> dict[str, float]:
        """How far a transferred policy has come from its source."""
        if self._way != "transfer":
            return {}
        now = {name: p.detach() for name, p in self._policy.named_parameters()}
        distances = parameter_distance(self._start, now)
        return {f"transfer/parameter_distance_{group}": value for group, value in distances.items()}

    def _thaw(self, done: int) -> None:
        freeze(self._policy, self._frozen(done))
        self._trainer.refresh()

    def _save(self) -> Path:
        path = self._checkpoints.path(self._trainer.done)
        if self._saved != self._trainer.done:
            path = self._checkpoints.save(self._trainer.done, self._write)
            self._saved = self._trainer.done
        return path

    def _write(self, folder: Path) -> None:
        trainer = self._trainer
        taken = trainer.done * trainer.steps * self._config.ppo.clusters
        training = Training(self._way, trainer.done, taken, self._seconds, self._source)
        save_artifact(folder, self._policy, {}, self._config, training)
        state = RunState(
            values={
                "step": trainer.done,
                "seconds": self._seconds,
                "way": self._way,
                "frozen": self._frozen_in_rounds(trainer.done),
            }
        )
        state.put("policy", self._policy.state_dict())
        state.put("start", self._start)
        state.put("optimizer", optimizer_tensors(trainer.optimizer))
        state.put("cost_optimizer", optimizer_tensors(trainer.cost_optimizer))
        state.write(folder)

    def _resume(self) -> None:
        if self._folder.is_dir():
            self._checkpoints.tidy()
        found = self._checkpoints.latest()
        if found is None:
            return
        if self._config.trainer.resume_mode == "disable":
            raise InputError(
                f"{self._folder} already holds {found.name} of another run; choose another "
                "trainer.default_local_dir, or set trainer.resume_mode=auto to go on from it"
            )
        state = RunState.read(found)
        weights = state.section("policy")
        if state.values.get("way") != self._way or {n: t.shape for n, t in weights.items()} != {
            n: t.shape for n, t in self._policy.state_dict().items()
        }:
            raise InputError(
                f"{found} is of another kind of run or policy; resume with the settings it was trained with"
            )
        done = int(state.values["step"])
        if state.values.get("frozen") != self._frozen_in_rounds(done):
            raise InputError(
                f"{found} froze other layers; resume with the transfer section it was trained with"
            )
        self._policy.load_state_dict(weights)
        self._start |= state.section("start")
        # The optimizer takes up thawed parameters in the order they thawed in.
        for passed in range(done):
            self._thaw(passed)
        restore_optimizer(self._trainer.optimizer, state.section("optimizer"))
        restore_optimizer(self._trainer.cost_optimizer, state.section("cost_optimizer"))
        self._trainer.done, self._seconds, self._saved = done, float(state.values["seconds"]), done

    def _frozen_in_rounds(self, done: int) -> list[list[str]]:
        """What was frozen in each of the first rounds."""
        return [list(self._frozen(passed)) for passed in range(done)]
