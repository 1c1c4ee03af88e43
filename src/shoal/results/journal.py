"""Chunks of draws, each with the state of the run after it, in files of their own until the store has them.

A Zarr store has many files, which cannot change together. So a chunk is first written to one file here, and counts
from the moment when this file has its name; only then do the arrays get it. A kill in between leaves arrays that lack
it, and whoever reads them next finds it here.
"""

import contextlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shoal.results.archive import UNFINISHED, Archive, DamagedFileError, read_archive, write_archive

FOLDER = "checkpoints"
# Beside the chunks: how the run begins, and the lock of the process that writes it.
BEGINNING, LOCK = "beginning.npz", "lock"
# Of the files whose draws the store has: the last one is what a run goes on from, and one may be damaged.
KEPT = 2
# One whose last sweep was cut ends in "-cut": it is of no use to a run that is to be longer.
_NAME = re.compile(r"[a-z]+-(\d{10})-(\d{10})(-cut)?\.npz")
_VALUE, _STAT, _STATE = "value:", "stat:", "state:"


class Part(NamedTuple):
    """A chunk of draws.

    Attributes:
        begin: the number of its first draw.
        end: that of the draw after its last.
        values: by variable, `[chain, draw, *shape]`; none where draws are folded and not kept.
        stats: by statistic, `[chain, draw]`.
    """

    begin: int
    end: int
    values: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]


class Journal:
    """The files of a run.

    Args:
        run: the directory of the run.
        name: with which the names of the files begin.
    """

    def __init__(self, run: Path, name: str = "draws") -> None:
        self.folder, self._name = run / FOLDER, name

    def write(self, part: Part, state: Archive) -> None:
        """Write a chunk and what is to be gone on from after it; they count when this returns."""
        arrays = {_VALUE + name: array for name, array in part.values.items()}
        arrays |= {_STAT + name: array for name, array in part.stats.items()}
        arrays |= {_STATE + name: array for name, array in state.arrays.items()}
        cut = "" if state.facts["whole"] else "-cut"
        write_archive(self.folder / f"{self._name}-{part.begin:010d}-{part.end:010d}{cut}.npz", arrays, state.facts)

    def read(self, path: Path) -> tuple[Part, Archive]:
        """One of the files.

        Raises:
            FileNotFoundError: it is not there.
            DamagedFileError: it is not what was written.
        """
        arrays, facts = read_archive(path)
        kinds = [
            {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
            for kind in (_VALUE, _STAT, _STATE)
        ]
        return Part(*_span(path), kinds[0], kinds[1]), Archive(kinds[2], facts)

    def files(self) -> list[Path]:
        """In the order of their last draws."""
        found = self.folder.glob(f"{self._name}-*.npz") if self.folder.is_dir() else ()
        return sorted((path for path in found if _NAME.fullmatch(path.name)), key=lambda path: _span(path)[::-1])

    def after(self, count: int) -> list[Part]:
        """The chunks that follow on so many draws, as far as they are there and whole."""
        parts: list[Part] = []
        for path in self.files():
            begin, end = _span(path)
            if begin <= count < end:
                try:
                    part, _ = self.read(path)
                except (FileNotFoundError, DamagedFileError):
                    break
                parts.append(_since(part, count))
                count = end
        return parts

    def prune(self, count: int) -> None:
        """Delete files of which the store has all draws, but for the last ones.

        Args:
            count: of draws that the store has.
        """
        files = self.files()
        whole = [path for path in files if not path.stem.endswith("-cut")]
        kept = {*files[-KEPT:], *whole[-KEPT:]}
        self.forget([path for path in files if path not in kept and _span(path)[1] <= count])

    def reach(self, count: int) -> int:
        """How many draws there are with the chunks that follow on so many; none is read."""
        for path in self.files():
            begin, end = _span(path)
            if begin <= count < end:
                count = end
        return count

    def beyond(self, count: int) -> list[Path]:
        """The files that go further than so many draws."""
        return [path for path in self.files() if _span(path)[1] > count]

    @staticmethod
    def names_beyond(names: Iterable[str], count: int) -> list[str]:
        """Of names of files, those of chunks that go further than so many draws."""
        paths = (Path(name) for name in names)
        return [str(path) for path in paths if _NAME.fullmatch(path.name) and _span(path)[1] > count]

    def forget(self, paths: list[Path]) -> None:
        """Delete files."""
        for path in paths:
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete what a kill left half written."""
        for part in self.folder.glob(f"*.npz{UNFINISHED}"):
            with contextlib.suppress(OSError):
                part.unlink()


def between(begin: int, end: int, parts: Sequence[Part], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Draws of a variable, of chunks that follow on each other."""
    cut = [
        array[:, max(begin - part.begin, 0) : end - part.begin]
        for part, array in zip(parts, arrays, strict=True)
        if part.begin < end and begin < part.end
    ]
    return cut[0] if len(cut) == 1 else np.concatenate(cut, axis=1)


def _span(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2])


def _since(part: Part, count: int) -> Part:
    rest = slice(count - part.begin, None)
    return Part(
        count,
        part.end,
        {name: array[:, rest] for name, array in part.values.items()},
        {name: array[:, rest] for name, array in part.stats.items()},
    )
