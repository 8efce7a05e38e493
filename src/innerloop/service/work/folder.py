"""A job's folder: what the worker orders, what the process answers, and what both may say meanwhile.

All workers that share a store share the folder of jobs too, so whoever takes a job finds its checkpoints.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from innerloop.core.errors import InputError
from innerloop.core.files import write_whole
from innerloop.core.tracking import METRICS_FILE
from innerloop.service.jobs.job import Kind, Settings
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Outcome
from innerloop.service.kinds.kind import Place, SourceJob


@dataclass(frozen=True)
class Order:
    """What a process is to do.

    Args:
        kind: of the job.
        settings: what was asked for.
        sources: jobs that it starts from.
        library: see :class:`~innerloop.service.kinds.kind.Place`.
    """

    kind: Kind
    settings: Settings
    sources: dict[str, SourceJob]
    library: Path | None


@dataclass(frozen=True)
class Mirrored:
    """What W&B has of a job.

    Args:
        run_id: of its run there.
        step: the last that was logged there.
    """

    run_id: str
    step: int


@dataclass(frozen=True)
class JobFolder:
    """The places in a job's folder.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def log(self) -> Path:
        """What the process prints, of all attempts."""
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        """Held by the process that works in the folder."""
        return self.path / ".lock"

    @property
    def run(self) -> Path:
        """The run's checkpoints and metrics, as :class:`~innerloop.service.kinds.kind.Place` has them."""
        return Place(self.path).run

    @property
    def metrics(self) -> Path:
        """The run's metrics."""
        return self.run / METRICS_FILE

    @property
    def wandb(self) -> Path:
        """Where W&B's files of the job are."""
        return self.path / "wandb"

    @property
    def wandb_log(self) -> Path:
        """What W&B's process prints."""
        return self.path / "wandb.log"

    @property
    def _mirrored(self) -> Path:
        return self.wandb / "mirrored.json"

    @property
    def _order(self) -> Path:
        return self.path / "order.json"

    @property
    def _outcome(self) -> Path:
        return self.path / "outcome.json"

    def give(self, order: Order) -> None:
        """Writes the order of the next attempt, and forgets the outcome of the last.

        Raises:
            InputError: the folder cannot be written.
        """
        text = {
            "kind": order.kind,
            "settings": order.settings,
            "sources": {
                field: {"settings": source.settings, "model": source.model and str(source.model)}
                for field, source in order.sources.items()
            },
            "library": order.library and str(order.library),
        }
        write_whole(self._order, json.dumps(text))
        self.forget_outcome()

    def order(self) -> Order:
        """The order as it was given."""
        text = json.loads(self._order.read_text(encoding="utf-8"))
        return Order(
            Kind(text["kind"]),
            text["settings"],
            {
                field: SourceJob(source["settings"], source["model"] and Path(source["model"]))
                for field, source in text["sources"].items()
            },
            text["library"] and Path(text["library"]),
        )

    def place(self, order: Order) -> Place:
        """The folder as a run sees it."""
        return Place(self.path, order.sources, order.library)

    def open_log(self) -> BinaryIO:
        """The log, to be written on from the beginning of a line.

        What an attempt that was killed has left of one counts as a line.

        Raises:
            OSError: it cannot be opened.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        log = self.log.open("ab+", buffering=0)
        if log.seek(0, os.SEEK_END):
            log.seek(-1, os.SEEK_END)
            if log.read(1) != b"\n":
                log.write(b"\n")
        return log

    def answer(self, outcome: Outcome) -> None:
        """Writes how the run ended.

        Raises:
            InputError: the folder cannot be written.
        """
        text = {
            "state": outcome.state,
            "error_message": outcome.error_message,
            "results": outcome.results,
            "model_path": outcome.model_path,
        }
        write_whole(self._outcome, json.dumps(text, allow_nan=False))

    def outcome(self) -> Outcome | None:
        """How the run ended; none where it did not say."""
        try:
            text = json.loads(self._outcome.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Outcome(State(text["state"]), text["error_message"], text["results"], text["model_path"])

    def forget_outcome(self) -> None:
        """Removes what an attempt before this one said."""
        self._outcome.unlink(missing_ok=True)

    def checkpoint(self) -> str | None:
        """The run's folder, which stands for its newest checkpoint, once there is one."""
        return str(self.run) if (self.run / "latest").exists() else None

    def mirror(self, mirrored: Mirrored) -> None:
        """Writes what W&B has now.

        Raises:
            InputError: the folder cannot be written.
        """
        write_whole(self._mirrored, json.dumps(asdict(mirrored)))

    def mirrored(self) -> Mirrored | None:
        """What W&B has; none where there is no run yet."""
        try:
            return Mirrored(**json.loads(self._mirrored.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # whatever is wrong with it, the job is not
            return None

    def forget_run(self) -> None:
        """Removes checkpoints and metrics; the log stays."""
        if self.run.exists():
            shutil.rmtree(self.run)


@dataclass(frozen=True)
class JobFolders:
    """The folder of all jobs.

    Args:
        root: the folder.
    """

    root: Path

    def of(self, identifier: str) -> JobFolder:
        """A job's folder.

        Raises:
            InputError: no identifier of a job, so no name of a folder.
        """
        if not identifier.isalnum():
            raise InputError(f"'{identifier}' is no identifier of a job")
        return JobFolder(self.root / identifier)

    def drop(self, identifier: str) -> None:
        """Removes a job's folder with all that is in it, if there is one."""
        path = self.of(identifier).path
        if path.exists():
            shutil.rmtree(path)
