"""The process of a job as its worker sees it: started, kept alive by beats, asked to stop, made to stop."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.service.work.child import INTERRUPTED
from innerloop.service.work.folder import JobFolder
from innerloop.service.work.lifeline import BEAT

PROGRAM = (sys.executable, "-m", "innerloop.service.work.child")
"""What does a job; it is told the folder and the lease."""

SECRETS = ("INNERLOOP_TOKEN", "INNERLOOP_STORE", "MONGODB_URL", "PGPASSWORD", "WANDB_API_KEY")
"""Variables that a job has no need of, so that nothing it prints can hold them."""


class JobProcess:
    """One attempt at a job.

    Args:
        folder: of the job; its order is given.
        lease: seconds.
        grace: seconds between being asked to stop and being made to.

    Raises:
        InputError: it cannot be started.
    """

    def __init__(self, folder: JobFolder, lease: float, grace: float) -> None:
        self._lease, self._grace = lease, grace
        self._asked_at: float | None = None
        command = [*PROGRAM, str(folder.path), "--lease", f"{lease:g}"]
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        environment["PYTHONUNBUFFERED"] = "1"
        try:
            with folder.open_log() as log:
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
        except OSError as error:
            raise InputError(f"the process of the job cannot be started: {error}") from error

    def beat(self) -> None:
        """Tells the process that the job is still its own."""
        line = self._process.stdin
        assert line is not None  # it was asked for
        with contextlib.suppress(BrokenPipeError):  # it has ended, which status() will tell
            line.write(BEAT)
            line.flush()

    def ask_to_stop(self) -> None:
        """Asks it to save and stop; when asked again after the grace, it is made to."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._process.send_signal(signal.SIGTERM)
        elif time.monotonic() - self._asked_at > self._grace:
            self.kill()

    def kill(self) -> None:
        """Makes it stop at once, with whatever it has started."""
        if self.status() is None:
            # It leads a session of its own.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def status(self) -> int | None:
        """The exit status, negative for the signal that ended it; none while it runs."""
        return self._process.poll()

    @property
    def interrupted(self) -> bool:
        """Whether it ended because it was asked to, by its worker or its lifeline, and can go on."""
        status = self.status()
        # Before it listens to SIGTERM it has done nothing that must be saved, and just ends.
        asked = self._asked_at is not None or status in (INTERRUPTED, -signal.SIGTERM)
        return asked and status is not None

    def close(self) -> None:
        """Ends it, however it stands, and lets go of the line; what it has done may be saved first."""
        if self.status() is None:
            self._process.terminate()
            try:
                # Nobody renews the lease meanwhile.
                self._process.wait(min(self._grace, self._lease / 2))
            except subprocess.TimeoutExpired:
                self.kill()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # a beat was still on its way
                self._process.stdin.close()


def _somewhere() -> Path:
    """A folder that stays: that in which the worker was started may go while the job runs."""
    return Path("/") if os.name == "posix" else Path.home()
