"""Ending a run early, at the end of a chunk: Ctrl-C, SIGTERM, and the time that it may take."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any


class Stop:
    """Whether a run is to end, looked at between chunks.

    Attributes:
        signal: the first signal that came, or None.
        something: whether there are draws to give back.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        """Begin to count the time.

        Args:
            max_seconds: that the run may take in this process; None where it may take any.
        """
        self.signal: signal.Signals | None = None
        self.something = False
        self._max_seconds, self._began = max_seconds, time.monotonic()

    @property
    def out_of_time(self) -> bool:
        """Whether the time is up."""
        return self._max_seconds is not None and time.monotonic() - self._began >= self._max_seconds

    @property
    def asked(self) -> bool:
        """Whether to end at the end of this chunk."""
        return self.signal is not None or self.out_of_time

    def check(self) -> None:
        """End a warmup, which has no result to give back.

        Raises:
            KeyboardInterrupt: a signal came.
            TimeoutError: the time is up.
        """
        if self.signal is not None:
            raise KeyboardInterrupt
        if self.out_of_time:
            raise TimeoutError(
                f"max_seconds={self._max_seconds:g} passed in the warmup, before the first draw. With out= the same "
                "call goes on from there; otherwise allow more time."
            )


@contextlib.contextmanager
def stoppable(stop: Stop, keeps: bool) -> Iterator[None]:
    """The first Ctrl-C ends the run at the end of a chunk, a second one at once, and one with nothing to keep yet, too.

    So does SIGTERM where the run is kept on disk. When everything is, it takes its course: by default the process ends.
    Signals that the process ignores, as one in the background does, are left alone.

    Args:
        stop: is told.
        keeps: whether the run is kept on disk.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminated = []

    def on_signal(number: int, frame: Any) -> None:
        if number == signal.SIGTERM:
            terminated.append(number)
        if stop.signal is not None or not (keeps or stop.something):
            raise KeyboardInterrupt
        stop.signal = signal.Signals(number)

    handled = (signal.SIGINT, signal.SIGTERM) if keeps else (signal.SIGINT,)
    before = {number: signal.getsignal(number) for number in handled}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if terminated:
            signal.raise_signal(signal.SIGTERM)
            if before[signal.SIGTERM] is signal.SIG_DFL:
                # Still here: the first process of a container is not ended by default.
                raise SystemExit(128 + signal.SIGTERM)
