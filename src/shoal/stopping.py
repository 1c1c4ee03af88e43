"""Ending a run early or pausing it, at the end of a chunk: Ctrl-C, SIGTERM, another thread, the time it may take."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

# Seconds between looks of a run that stands still for a signal, whose handler may take no lock.
LOOK_SECONDS = 0.1


class Pause:
    """Standing still between two chunks, as long as another thread wants it.

    Attributes:
        wanted: whether to stand still at the end of the chunk.
        seconds: that it has stood still, the present time not counted.
    """

    def __init__(self) -> None:
        self.wanted = self._resting = self._over = False
        self.seconds = 0.0
        self._turn = threading.Condition()

    @property
    def is_on(self) -> bool:
        """Whether the run stands still, and is to go on doing so."""
        return self.wanted and self._resting

    def begin(self, timeout: float | None) -> bool:
        """Have the run stand still, and wait until it does or has ended.

        Args:
            timeout: seconds to wait; None to wait as long as it takes.

        Returns:
            Whether there is nothing left to wait for.
        """
        with self._turn:
            self.wanted = True
            return self._turn.wait_for(lambda: self._resting or self._over or not self.wanted, timeout)

    def end(self) -> None:
        """Have it go on."""
        with self._turn:
            self.wanted = False
            self._turn.notify_all()

    def over(self) -> None:
        """The run has ended: nobody need wait for it any more."""
        with self._turn:
            self._over = True
            self._turn.notify_all()

    def rest(self, leave: Callable[[], bool]) -> None:
        """Stand still as long as that is wanted and `leave` does not say otherwise."""
        if not self.wanted:
            return
        began = time.perf_counter()
        with self._turn:
            while self.wanted and not leave():
                if not self._resting:
                    self._resting = True
                    self._turn.notify_all()
                self._turn.wait(LOOK_SECONDS)
            self._resting = False
        self.seconds += time.perf_counter() - began


class Stop:
    """Whether a run is to end, looked at between chunks.

    Attributes:
        signal: the first signal that came, or None.
        something: whether there are draws to give back.
        pause: of the run; its time does not count.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        """Begin to count the time.

        Args:
            max_seconds: that the run may take in this process, pauses not counted; None where it may take any.
        """
        self.signal: signal.Signals | None = None
        self.something = False
        self.pause = Pause()
        self._max_seconds, self._began = max_seconds, time.monotonic()

    @property
    def out_of_time(self) -> bool:
        """Whether the time is up."""
        taken = time.monotonic() - self._began - self.pause.seconds
        return self._max_seconds is not None and taken >= self._max_seconds

    @property
    def asked(self) -> bool:
        """Whether to end at the end of this chunk."""
        return self.signal is not None or self.out_of_time

    def ask(self) -> None:
        """End the run as Ctrl-C does, and a pause with it."""
        self.signal = self.signal or signal.SIGINT
        self.pause.end()

    def clock(self) -> float:
        """Seconds since some time, pauses not counted."""
        return time.perf_counter() - self.pause.seconds

    def after_rest(self) -> bool:
        """Whether to end at the end of this chunk, told when the pause is over that another thread may want."""
        self.pause.rest(lambda: self.signal is not None)
        return self.asked

    def check(self) -> None:
        """End a warmup, which has no result to give back, when the pause is over that another thread may want.

        Raises:
            KeyboardInterrupt: a signal came.
            TimeoutError: the time is up.
        """
        self.after_rest()
        if self.signal is not None:
            raise KeyboardInterrupt
        if self.out_of_time:
            raise TimeoutError(
                f"max_seconds={self._max_seconds:g} passed before the first draw. With out= the same "
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
