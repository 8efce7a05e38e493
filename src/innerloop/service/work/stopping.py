"""The wish that something which works for hours shall stop."""

import signal
import threading
from types import FrameType


class StopFlag:
    """Set once, by a signal or another thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """From now on it is to stop."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether it is to stop."""
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Waits so long, or until it is to stop."""
        self._event.wait(seconds)

    def set_on_signals(self) -> None:
        """Lets SIGTERM and SIGINT set it."""

        def note(_number: int, _frame: FrameType | None) -> None:
            self.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)
