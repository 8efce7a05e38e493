"""A worker: takes one job after the other from the store until it is asked to stop."""

import logging

from innerloop.service.jobs.store import Claim, JobStore, StoreUnavailable
from innerloop.service.work.settings import WorkerSettings
from innerloop.service.work.stopping import StopFlag
from innerloop.service.work.supervisor import Supervisor

logger = logging.getLogger(__name__)


class Worker:
    """See the module's text.

    Args:
        store: of jobs.
        settings: the worker's.
    """

    def __init__(self, store: JobStore, settings: WorkerSettings) -> None:
        self._store, self._settings = store, settings
        self._stop = StopFlag()
        self._supervisor = Supervisor(store, settings, self._stop.is_set)

    def run(self) -> None:
        """Works until :meth:`stop`; a job in hand is then given back, saved."""
        logger.info("worker %s is ready", self._settings.name)
        while not self._stop.is_set():
            if not self.run_one():
                self._stop.wait(self._settings.poll)
        logger.info("worker %s stops", self._settings.name)

    def run_one(self) -> bool:
        """Runs the job that waited longest; whether there was one."""
        claim = self._claim()
        if claim is None:
            return False
        logger.info("worker %s takes job %s", self._settings.name, claim.id)
        self._supervisor.run(claim)
        return True

    def stop(self) -> None:
        """Ends :meth:`run` as soon as the job in hand is saved."""
        self._stop.set()

    def stop_on_signals(self) -> None:
        """Lets SIGTERM and SIGINT ask to stop."""
        self._stop.set_on_signals()

    def _claim(self) -> Claim | None:
        settings = self._settings
        try:
            return self._store.claim(settings.name, settings.lease, settings.most_losses)
        except StoreUnavailable as failure:
            logger.warning("the store is not reached, trying again: %s", failure)
            return None
