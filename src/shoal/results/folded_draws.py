"""Where draws go of which only moments are kept: folded by the thread that would write them."""

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.results import zarr_draws
from shoal.results.archive import Archive, DamagedFileError, read_archive, write_archive
from shoal.results.coordinates import Labels
from shoal.results.draws import Header, check_chunk
from shoal.results.folds import Folds
from shoal.results.journal import Journal, Part
from shoal.results.made import Kind
from shoal.results.moments import Moments
from shoal.results.stored_draws import StoredDraws
from shoal.results.zarr_draws import ZarrDraws

if TYPE_CHECKING:
    from shoal.results.result import Result

# What a run is asked to keep where it keeps no draws.
MOMENTS, NONE = "moments", "none"
# At the end of a run; before it, they are in the checkpoints.
FILE = "moments.npz"
_FOLDS, _COORDINATES = "folds", "coordinates"


class MemoryFolds:
    """Folds draws, and keeps them nowhere.

    Attributes:
        header: what is known about the run.
        committed: the number of draws folded so far.
    """

    def __init__(self, header: Header) -> None:
        self.header, self.committed = header, 0
        self._folds: Folds | None = None
        self._lock = threading.Lock()

    def append(self, values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray], state: Any = None) -> None:
        """Fold a chunk.

        Args:
            values: draws by variable, each `[chain, n, *shape]`.
            stats: sample statistics, each `[chain, n]`.
            state: is not kept: nothing here outlives the process.
        """
        count = check_chunk(self.header, values, stats)
        with self._lock:
            self._folds = self._folds or Folds.of(values, stats, self.header.superchain)
            self._folds.update(values, stats)
            self.committed += count

    def moments(self, coordinates: Mapping[str, np.ndarray] | None = None) -> Moments | None:
        """What is known of the draws; the folds must not change any more.

        Args:
            coordinates: as of `Moments`.
        """
        return _moments_of(self._folds, self.committed, coordinates)

    def so_far(self) -> Moments | None:
        """What is known of the draws so far, for another thread: later draws change nothing."""
        with self._lock:
            moments = _moments_of(self._folds, self.committed)
            return None if moments is None else Moments(Folds.restored(moments.folds.facts, moments.folds.arrays))

    @property
    def draws(self) -> StoredDraws:
        """None is kept; how many there were is known."""
        return StoredDraws({}, self.committed)

    sample_stats = draws

    def finish(self, result: Any) -> None:
        """Nothing to write: the result holds the folds."""


class ZarrFolds(ZarrDraws):
    """The same for a run on disk: a store without arrays of draws, and folds in the checkpoints.

    A checkpoint has all the folds. So it is not written after each chunk, but when the last one is some seconds old,
    when the run stands still, and at its end: a run that is killed makes the draws since then again, the same.
    """

    def _begin(
        self, path: str | os.PathLike[str], num_samples: int, header: Header, kind: Kind, labels: Labels
    ) -> None:
        super()._begin(path, num_samples, header, kind, labels)
        self._folds: Folds | None = None
        self._state: Archive | None = None

    def _numbers(self, room: int) -> np.ndarray:
        return np.arange(0)

    @property
    def _there(self) -> int:
        return self.committed

    def restore(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from the folds of a checkpoint, or of another run.

        Args:
            facts: of the folds.
            arrays: of the folds, by name.
        """
        self._folds = Folds.restored(facts, arrays)
        self.rewind(self._folds.count)

    def rewind(self, count: int) -> None:
        """As of `ZarrDraws`; no array has draws beyond."""
        self.committed = self._stored = self._readable = count
        self._root.attrs["draws_committed"] = count

    def append(
        self, values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray], state: Archive | None = None
    ) -> None:
        """Fold a chunk.

        Args:
            values: draws by variable, each `[chain, n, *shape]`.
            stats: sample statistics, each `[chain, n]`.
            state: what the run goes on from after it.
        """
        count = check_chunk(self.header, values, stats)
        if state is not None and not state.facts["whole"]:
            self.checkpoint()  # a run that is made longer goes on from before a sweep that was cut
        self._folds = self._folds or Folds.of(values, stats, self.header.superchain)
        self._state = None  # of the draws before these, whose folds will be gone
        self._folds.update(values, stats)
        self.committed += count
        self._state = state
        if time.monotonic() - self._stored_at >= self._pause:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write the folds and what the run goes on from, if anything has changed."""
        if self._state is None or self._stored == self.committed or self.moments() is None:
            return
        assert self._folds is not None
        began = time.monotonic()
        arrays = {f"{_FOLDS}:{name}": array for name, array in self._folds.arrays.items()}
        part = Part(0, self.committed, {}, {})
        state = Archive(self._state.arrays | arrays, self._state.facts | {_FOLDS: self._folds.facts})
        self._journal.write(part, state)
        self._store([part])
        self._journal.prune(self._stored)
        self._stored_at = time.monotonic()
        took = zarr_draws.PATIENCE * (self._stored_at - began) if zarr_draws.STORED_EVERY else 0.0
        self._pause = max(zarr_draws.STORED_EVERY, took)

    def moments(self, coordinates: Mapping[str, np.ndarray] | None = None) -> Moments | None:
        """As of `MemoryFolds`."""
        return _moments_of(self._folds, self.committed, coordinates)

    def finish(self, result: "Result") -> None:
        """Write what is known at the end.

        Args:
            result: of this run.
        """
        self.checkpoint()
        self._stored = self._readable = self.committed
        if result.moments is not None:
            write_moments(self.path, result.moments)
        super().finish(result)


def _moments_of(
    folds: Folds | None, committed: int, coordinates: Mapping[str, np.ndarray] | None = None
) -> Moments | None:
    """What is known; nothing where a failure has left a draw half folded."""
    return None if folds is None or folds.count != committed else Moments(folds, coordinates)


def write_moments(run: Path, moments: Moments) -> None:
    """Write them into the directory of a run."""
    arrays = {f"{_FOLDS}:{name}": array for name, array in moments.folds.arrays.items()}
    arrays |= {f"{_COORDINATES}:{name}": array for name, array in moments.coordinates.items()}
    write_archive(run / FILE, arrays, {_FOLDS: moments.folds.facts})


def read_moments(run: Path, ended: bool) -> Moments | None:
    """What the directory of a run has; None where there is nothing yet.

    Args:
        run: the directory.
        ended: whether the run has.

    Raises:
        DamagedFileError: it is not what was written.
        FileNotFoundError: the run has ended, and it is not there.
    """
    if ended:
        return _moments(read_archive(run / FILE))
    # Of a run that is made longer, from before its last sweep where that was cut, the end that it had is more.
    found, journal = [], Journal(run)
    with contextlib.suppress(DamagedFileError, FileNotFoundError):
        found.append(_moments(read_archive(run / FILE)))
    for path in reversed(journal.files()):
        with contextlib.suppress(DamagedFileError, FileNotFoundError):
            found.append(_moments(journal.read(path)[1]))
            break
    return max(found, key=lambda moments: moments.count, default=None)


def _moments(archive: Archive) -> Moments:
    folds, coordinates = (
        {name.removeprefix(f"{kind}:"): array for name, array in archive.arrays.items() if name.startswith(f"{kind}:")}
        for kind in (_FOLDS, _COORDINATES)
    )
    return Moments(Folds.restored(archive.facts[_FOLDS], folds), coordinates)
