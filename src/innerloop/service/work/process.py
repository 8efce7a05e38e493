"""The process of a job as its worker sees it: started, kept alive by beats, asked to stop, made to stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from innerloop.service.work.child import INTERRUPTED
from innerloop.service.work.folder import JobFolder
from innerloop.service.work.lifeline import BEAT

SECRETS = ("INNERLOOP_TOKEN", "INNERLOOP_STORE", "MONGODB_URL", "WANDB_API_KEY")
"""Variables that a job has no need of, so that nothing it prints can hold them."""


class JobProcess:
    """One attempt at a job.

    Args:
        folder: of the job; its order is given.
        lease: seconds.
        grace: seconds between being asked to stop and being made to.
    """

    def __init__(self, folder: JobFolder, lease: float, grace: float) -> None:
        self._grace = grace
        self._asked_at: float | None = None
        folder.path.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "innerloop.service.work.child",
            str(folder.path),
            "--lease",
            f"{lease:g}",
        ]
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        environment["PYTHONUNBUFFERED"] = "1"
        with folder.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # A Ctrl-C at the terminal is the worker's to handle.
                start_new_session=True,
                cwd=_somewhere(),
            )

    def beat(self) -> None:
        """Tells the process that the job is still its own."""
        line = self._process.stdin
        assert line is not None  # it was asked for
        try:
            line.write(BEAT)
            line.flush()
        except BrokenPipeError:
            return  # it has ended, which status() will tell

    def ask_to_stop(self) -> None:
        """Asks it to save and stop; when asked again after the grace, it is made to."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._process.send_signal(signal.SIGTERM)
        elif time.monotonic() - self._asked_at > self._grace:
            self.kill()

    def kill(self) -> None:
        """Makes it stop at once."""
        self._process.kill()
        self._process.wait()

    def status(self) -> int | None:
        """The exit status, negative for the signal that ended it; none while it runs."""
        return self._process.poll()

    @property
    def interrupted(self) -> bool:
        """Whether it ended since it was asked to, with everything saved or nothing done yet."""
        return self.status() == INTERRUPTED or (self._asked_at is not None and self.status() is not None)

    def close(self) -> None:
        """Ends it, however it stands, and lets go of the line."""
        if self.status() is None:
            self.kill()
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                return  # a beat was still on its way to a process that has ended


def _somewhere() -> Path:
    """A folder that stays: that in which the worker was started may go while the job runs."""
    return Path("/") if os.name == "posix" else Path.home()
