"""Checkpoints that are whole or not there, and hold no pickles.

A checkpoint is a folder ``step_N``. It is written under another name, forced to disk and renamed, so a kill
at any moment leaves the old ones or the old ones and the new one. ``latest`` is a link to the newest.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from innerloop.core.errors import InputError
from innerloop.core.parallel import World
from innerloop.core.stored import StoredTensors, as_it_lies, write_tensors

STATE_FOLDER = "trainer_state"
LATEST = "latest"
_PREFIX = "step_"


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: the run's folder; made if missing.
        keep: how many checkpoints to keep, the newest; -1 keeps all.
        world: the processes whose run it is. All of them save; the main one makes and moves folders.
    """

    def __init__(self, folder: Path, keep: int = -1, world: World | None = None) -> None:
        self.folder, self.keep = folder, keep
        self._world = world or World()

    def steps(self) -> list[int]:
        """The steps of the whole checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]
        return sorted(int(name.removeprefix(_PREFIX)) for name in names if _is_step(name))

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"{_PREFIX}{step}"

    def latest(self) -> Path | None:
        """The checkpoint saved last, or none.

        It is the one that the link names: a run that was taken back to an earlier step has older
        checkpoints of later steps. Where the link was lost in copying it is that of the highest step.
        """
        steps = self.steps()
        linked = self._linked_name()
        if linked in {self.path(step).name for step in steps}:
            return self.folder / linked
        return self.path(steps[-1]) if steps else None

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Makes the checkpoint of a step.

        Args:
            step: the step it is of.
            write: fills the folder it is given; every process calls it.

        Raises:
            InputError: if the disk is full or the folder read-only; older checkpoints are untouched.
        """
        target = self.path(step)
        hidden = _hidden(target, "writing")
        try:
            with self._step_of(target) as is_main:
                if is_main:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self.tidy()
                    hidden.mkdir()
            with self._step_of(target):
                write(hidden)
            with self._step_of(target) as is_main:
                if is_main:
                    _force_to_disk(hidden)
        except BaseException:
            if self._world.is_main:
                shutil.rmtree(hidden, ignore_errors=True)
            raise
        with self._step_of(target) as is_main:
            if is_main:
                self._put_in_place(target)
                _sync(self.folder)
                self._prune(step)
                self.tidy()
        return target

    @contextmanager
    def _step_of(self, target: Path) -> Iterator[bool]:
        """A part of saving that all processes end together; tells whether this is the main one."""
        with self._world.together():
            try:
                yield self._world.is_main
            except (OSError, SafetensorError) as error:
                reason = getattr(error, "strerror", None) or error
                raise InputError(
                    f"cannot write the checkpoint {target}: {reason}; free some space or choose another "
                    "trainer.default_local_dir, then run again to resume"
                ) from error

    def tidy(self) -> None:
        """Finishes or clears away what a killed run left half done."""
        linked = self._linked_name()
        if linked.startswith("."):
            self._put_in_place(self.folder / linked.removeprefix(".").rpartition(".")[0])
        for leftover in self.folder.glob(f".{_PREFIX}*"):
            shutil.rmtree(leftover)
        _hidden(self.folder / LATEST, "writing").unlink(missing_ok=True)

    def _put_in_place(self, target: Path) -> None:
        """Renames what was written to its name, and points ``latest`` at it.

        A folder cannot be exchanged for another in one stroke, so while an old checkpoint of the same step
        is replaced ``latest`` points at whichever of the two is not being renamed. After a kill the same
        strokes, from wherever they stopped, finish the work.
        """
        written, replaced = _hidden(target, "writing"), _hidden(target, "replaced")
        if written.exists():
            if target.exists():
                self._point_latest(written)
                target.rename(replaced)
            if replaced.exists():
                self._point_latest(replaced)
            written.rename(target)
        self._point_latest(target)

    def _point_latest(self, target: Path) -> None:
        link = _hidden(self.folder / LATEST, "writing")
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        link.replace(self.folder / LATEST)

    def _linked_name(self) -> str:
        link = self.folder / LATEST
        return link.readlink().name if link.is_symlink() else ""

    def _prune(self, newest: int) -> None:
        if self.keep > 0:
            # Later steps than the newest are of a run that was taken back; they go first.
            oldest_first = sorted(self.steps(), key=lambda step: (step <= newest, step))
            for step in oldest_first[: -self.keep]:
                # Renamed first, since a folder that is deleted takes a while to go.
                self.path(step).rename(_hidden(self.path(step), "pruned"))


@dataclass
class RunState:
    """Everything a run needs to go on: named tensors, and plain values that JSON can hold.

    One that was read reads its tensors when they are asked for.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def write(self, checkpoint: Path, world: World | None = None) -> None:
        """Writes ``trainer_state/`` into a checkpoint folder; every process of a run calls it."""
        world = world or World()
        folder = checkpoint / STATE_FOLDER
        write_tensors(folder, self.tensors, world)
        if world.is_main:
            (folder / "state.json").write_text(json.dumps(self.values, indent=1))

    @classmethod
    def read(cls, checkpoint: Path) -> "RunState":
        """Reads ``trainer_state/`` of a checkpoint.

        Raises:
            InputError: if it is missing or damaged.
        """
        values = cls.read_values(checkpoint)
        with _damage_named(checkpoint):
            tensors = StoredTensors(checkpoint / STATE_FOLDER)
        return cls(tensors, values)

    @staticmethod
    def read_values(checkpoint: Path) -> dict[str, Any]:
        """The plain values alone.

        Raises:
            InputError: if they are missing or damaged.
        """
        with _damage_named(checkpoint):
            values = json.loads((checkpoint / STATE_FOLDER / "state.json").read_text())
            if not isinstance(values, dict):
                raise ValueError("state.json holds no object")
        return values

    def section(self, prefix: str) -> Mapping[str, Tensor]:
        """The tensors whose names start with ``prefix/``, without it."""
        start = f"{prefix}/"
        if isinstance(self.tensors, StoredTensors):
            return self.tensors.section(start)
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}

    def put(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Adds tensors under ``prefix/``."""
        self.tensors = {**self.tensors, **{f"{prefix}/{name}": tensor for name, tensor in tensors.items()}}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as named tensors, keyed ``INDEX/NAME``; its settings are the config's business."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, entries in state.items()
        for name, value in entries.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts saved state back into an optimizer built like the saved one."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key in tensors:
        index, name = key.split("/", 1)
        parameter = parameters[int(index)]
        # What is not a number for each entry, such as the count of steps, every process has whole.
        like = parameter if shape_of(tensors, key) == parameter.shape else torch.empty(())
        state.setdefault(int(index), {})[name] = as_it_lies(tensors, key, like)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def shape_of(tensors: Mapping[str, Tensor], name: str) -> torch.Size:
    """A tensor's shape, without reading it where it is stored."""
    return tensors.shape(name) if isinstance(tensors, StoredTensors) else tensors[name].shape


@contextmanager
def _damage_named(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"cannot resume from {checkpoint}: {STATE_FOLDER} is missing or damaged ({error}); "
            "name another checkpoint with trainer.resume_from_path"
        ) from error


def _is_step(name: str) -> bool:
    return name.startswith(_PREFIX) and name.removeprefix(_PREFIX).isdigit()


def _hidden(path: Path, purpose: str) -> Path:
    return path.with_name(f".{path.name}.{purpose}")


def _force_to_disk(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
