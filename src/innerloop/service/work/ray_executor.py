"""Jobs on a Ray cluster: a Ray task for each job that waits, so that the cluster grows with the queue.

A task claims one job from the store and supervises it to its end, as any worker does; the dispatcher here
only counts the jobs that wait and the tasks there are. What Ray believes of a task decides nothing: one that
is lost with its node leaves a lease that runs out, the job waits again, and another task is submitted. The
nodes have innerloop installed, share the folder of jobs, and reach the store.
"""

import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from innerloop.core.errors import InputError, missing_extra
from innerloop.service.jobs.job import Lease
from innerloop.service.jobs.states import HELD, State
from innerloop.service.jobs.store import JobStore, StoreUnavailable
from innerloop.service.stores.opening import open_store
from innerloop.service.work.process import SECRETS
from innerloop.service.work.settings import WorkerSettings
from innerloop.service.work.stopping import StopFlag
from innerloop.service.work.worker import Worker

try:
    import ray
except ImportError as error:
    raise missing_extra("ray", "ray") from error

logger = logging.getLogger(__name__)

PASSED_ON = ("INNERLOOP_", "WANDB_", "HF_", "KUBECONFIG")
"""Beginnings of names of variables that the tasks get from here."""


@dataclass(frozen=True)
class RayPlan:
    """How jobs use a cluster.

    Args:
        address: of the cluster; none takes the one that ``RAY_ADDRESS`` names or that runs on this machine,
            and starts one here where there is none.
        most: tasks at once.
        cpus: that Ray sets aside for each.
        gpus: that Ray sets aside for each.
    """

    address: str | None = None
    most: int = 16
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: one is out of range.
        """
        if self.most < 1:
            raise InputError(f"{self.most} Ray tasks at once run nothing; give 1 or more")
        if self.cpus < 0 or self.gpus < 0:
            raise InputError("the CPUs and GPUs of a Ray task are 0 or more")


@dataclass(frozen=True)
class StoreAddress:
    """Where a store is, for other machines.

    Args:
        url: of the store.
        database: MongoDB's, where the address names none.
    """

    url: str = field(repr=False)
    database: str | None = None


class Dispatcher:
    """See the module's text.

    Args:
        store: of jobs.
        address: of the same store.
        settings: of the workers that the tasks are; each adds its number to the name.
        plan: how jobs use the cluster.
    """

    def __init__(
        self, store: JobStore, address: StoreAddress, settings: WorkerSettings, plan: RayPlan
    ) -> None:
        self._store, self._address, self._settings, self._plan = store, address, settings, plan
        self._stop = StopFlag()
        self._tasks: dict[Any, str] = {}
        self._submitted = 0

    def run(self) -> None:
        """Submits tasks until SIGTERM or SIGINT; the jobs in hand are given back then, saved.

        Raises:
            InputError: the cluster cannot be reached.
        """
        self._connect()
        # Not before: Ray sets handlers of its own.
        self._stop.set_on_signals()
        plan = self._plan
        task = ray.remote(num_cpus=plan.cpus, num_gpus=plan.gpus, max_retries=0)(run_one_job)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(PASSED_ON) and (name not in SECRETS or name.startswith("WANDB_"))
        }
        logger.info("%s submits up to %d tasks to Ray", self._settings.name, self._plan.most)
        try:
            while not self._stop.is_set():
                self._forget_ended()
                for _ in range(self._wanted()):
                    self._submitted += 1
                    worker = replace(self._settings, name=f"{self._settings.name}/{self._submitted}")
                    self._tasks[task.remote(self._address, worker, environment)] = worker.name
                self._stop.wait(self._settings.poll)
            self._end_tasks()
        finally:
            ray.shutdown()

    def _connect(self) -> None:
        # Nothing is told to anybody unless the machine's owner says so.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(
                address=self._plan.address,
                include_dashboard=None if self._plan.address else False,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
        except Exception as failure:  # Ray raises bare ones, too
            told = " ".join(str(failure).split())
            raise InputError(f"the Ray cluster cannot be reached: {told}") from failure

    def _wanted(self) -> int:
        """How many tasks to submit now."""
        room = self._plan.most - len(self._tasks)
        if room < 1:
            return 0
        try:
            waiting = self._store.page(None, [State.QUEUED], limit=1).total
            held = self._store.page(None, HELD, limit=1000).jobs
        except StoreUnavailable as failure:
            logger.warning("the store is not reached, trying again: %s", failure)
            return 0
        leases = [job.lease for job in held if job.lease is not None]
        waiting += sum(_over(lease) for lease in leases)
        busy = {lease.worker for lease in leases}
        idle = sum(name not in busy for name in self._tasks.values())
        return max(0, min(waiting - idle, room))

    def _forget_ended(self) -> None:
        if not self._tasks:
            return
        ended, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        for task in ended:
            name = self._tasks.pop(task)
            try:
                ray.get(task)
            except Exception as failure:  # noqa: BLE001 - it was raised on another machine
                told = str(failure).strip().rpartition("\n")[2]
                logger.warning("Ray task %s ended: %s: %s", name, type(failure).__name__, told)

    def _end_tasks(self) -> None:
        """Asks the tasks to give their jobs back, and waits while they save."""
        for task in self._tasks:
            ray.cancel(task)
        end = time.monotonic() + self._settings.grace
        while time.monotonic() < end and self._working():
            time.sleep(self._settings.pause)

    def _working(self) -> bool:
        """Whether a job is still held by a task; Ray counts a task as ended when it was asked to end."""
        names = set(self._tasks.values())
        try:
            held = self._store.page(None, HELD, limit=1000).jobs
        except StoreUnavailable:
            return True
        return any(job.lease is not None and job.lease.worker in names for job in held)


def run_one_job(address: StoreAddress, settings: WorkerSettings, environment: Mapping[str, str]) -> bool:
    """What a Ray task does: runs one job that waits; whether there was one.

    Args:
        address: of the store.
        settings: of this worker.
        environment: variables for the job.
    """
    os.environ.update(environment)
    store = open_store(address.url, address.database)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        worker = Worker(store, settings)
        # Ray cancels a task by what looks like a Ctrl-C.
        worker.stop_on_signals()
        return worker.run_one()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        store.close()


def _over(lease: Lease) -> bool:
    return lease.until < datetime.now(UTC)
