"""Draws are written by a thread of their own, while the next chunk is computed."""

import contextlib
import queue
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from shoal.results.archive import Archive
from shoal.results.draws import MemoryDraws
from shoal.results.folded_draws import MemoryFolds, ZarrFolds
from shoal.results.zarr_draws import ZarrDraws

# Chunks that may wait to be written, beside the one that is. A disk that is slower than sampling holds it up, and
# memory does not grow.
MOST_WAITING = 1


class BackgroundDraws:
    """Appends chunks to a store in the order in which they come."""

    def __init__(
        self,
        draws: MemoryDraws | MemoryFolds | ZarrDraws,
        changing: contextlib.AbstractContextManager[Any] | None = None,
        may_wait: bool = True,
    ) -> None:
        """Begin with nothing to do.

        Args:
            draws: the store; nothing else may write to it until all is settled.
            changing: held while a chunk is written.
            may_wait: whether a chunk may; otherwise it comes when the last is written.
        """
        self._draws, self._changing, self._may_wait = draws, changing or contextlib.nullcontext(), may_wait
        self._queue: queue.Queue[tuple[Any, Any, Archive | None] | None] = queue.Queue(MOST_WAITING)
        self._failure: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._write, name="shoal-writer", daemon=True)
        self._thread.start()

    @property
    def committed(self) -> int:
        """The number of draws that count: what has been written, not what waits."""
        return self._draws.committed

    def append(self, values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray], state: Archive | None) -> None:
        """Have a chunk written; waits where too many are.

        Args:
            values: draws by variable, each `[chain, n, *shape]`; they must not change any more, nor be parts of much
                larger arrays, which would be held as long.
            stats: sample statistics, each `[chain, n]`.
            state: what the run goes on from after it; None where it never has to.

        Raises:
            Exception: what went wrong with an earlier chunk. Those after it are not written.
        """
        self._check()
        if not self._may_wait:
            self._queue.join()
            self._check()
        self._queue.put((values, stats, state))

    def drain(self) -> None:
        """Wait until all is written that has come so far, or has failed."""
        self._queue.join()
        if isinstance(self._draws, ZarrFolds) and self._failure is None:
            self._draws.checkpoint()

    def settle(self) -> None:
        """Wait until all is written, and let go of the store.

        Raises:
            KeyboardInterrupt: it came meanwhile; what waited is not written. If the thread is still at work then
                (`is_writing`), it came twice, and nobody else may touch the store.
            Exception: what went wrong.
        """
        try:
            if self._thread.is_alive():
                self._queue.put(None)
                self._thread.join()
        except KeyboardInterrupt:
            self._abandoned = True
            # Whoever waits for something to do finds that there is nothing.
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(None)
            self._thread.join()
            raise
        self._check()

    @property
    def is_writing(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        while True:
            chunk = self._queue.get()
            try:
                if chunk is None or self._abandoned:
                    return
                if self._failure is None:
                    with self._changing:
                        self._draws.append(*chunk)
            except BaseException as failure:
                self._failure = failure
            finally:
                chunk = None  # free while the next is waited for
                self._queue.task_done()
