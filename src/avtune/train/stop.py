"""SIGTERM and SIGINT as a wish to stop, granted between two updates."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from avtune.errors import AvtuneError


class Stopped(AvtuneError):
    """The run was asked to stop (SIGTERM, SIGINT) and has saved its state."""


class StopRequest:
    """While entered, the first SIGTERM or SIGINT only sets ``asked``; a second one acts as it did before.

    Outside the main thread, where Python hands out no signals, it does nothing.

    Attributes:
        asked: Whether this process was asked to stop.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()
        # A signal to a whole group of processes ends the loader's workers too. PyTorch would report their death by
        # an error wherever this process happens to be, in the midst of an update too.
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
