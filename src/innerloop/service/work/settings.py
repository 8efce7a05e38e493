"""How a worker goes about its jobs."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkerSettings:
    """See the module's text.

    Args:
        name: of the worker, in leases and logs.
        home: the folder of jobs; all workers of a store share it.
        library: the folder that holds the models and the data sets which requests may name.
        lease: seconds that a job stays a worker's without a word from it.
        interval: seconds between two reports, see ``pause``.
        poll: seconds between two looks at an empty queue.
        grace: seconds that a process gets to save in when it shall stop.
        attempts: processes for a job that crash, one after the other, until it has failed.
        most_losses: workers in a row that may be lost over a job before it has failed.
    """

    name: str
    home: Path
    library: Path | None = None
    lease: float = 30.0
    interval: float = 1.0
    poll: float = 1.0
    grace: float = 60.0
    attempts: int = 3
    most_losses: int = 10

    @property
    def pause(self) -> float:
        """Seconds between two reports: several of them in a lease, however short that is."""
        return min(self.interval, self.lease / 6)

    @property
    def jobs(self) -> Path:
        """The folder of the jobs' own folders."""
        return self.home / "jobs"
