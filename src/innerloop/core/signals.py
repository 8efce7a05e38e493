"""SIGTERM and SIGINT as a request that the run honours at the next safe moment."""

import signal
import threading
from types import FrameType, TracebackType

from innerloop.core.errors import Interrupted


class StopRequest:
    """While open, the first SIGTERM or SIGINT is noted instead of acted on; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "StopRequest":
        # Handlers can be set in the main thread only; elsewhere (a service's worker) nothing is caught.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def asked(self) -> Interrupted | None:
        """What to end the run with if a stop was asked for."""
        return None if self.signal is None else Interrupted(f"{signal.Signals(self.signal).name} received")

    def check(self) -> None:
        """Raises :class:`Interrupted` if a stop was asked for."""
        if (asked := self.asked()) is not None:
            raise asked
