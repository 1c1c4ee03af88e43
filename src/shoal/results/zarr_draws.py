"""Draws on disk: a Zarr store that fills up while sampling.

The arrays are made once, for the number of draws that was asked for, and filled from the journal (`journal.py`) every
few seconds; what is not written reads as missing: NaN, or the `_FillValue` that integers and booleans declare. The
attribute `draws_committed` is written after the draws that it counts; draws beyond are in the journal.

Names with "/" would make groups of groups. Their arrays have a plain name, and their own in the attribute `name`.
"""

import datetime
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.allocator import give_back
from shoal.results.archive import Archive
from shoal.results.coordinates import Labels, own_name, unlabelled, write_coordinates, write_labels
from shoal.results.damage import find_damage
from shoal.results.draws import ROOM, Header, check_chunk, first_room
from shoal.results.journal import Journal, Part, between
from shoal.results.json_text import to_json
from shoal.results.made import SAMPLING, Kind, attributes_of, set_aside, unwarned, zarr_package
from shoal.results.missing import declare_complete, declare_incomplete, storage
from shoal.results.names import names_of_axes, plain_axes, plain_names
from shoal.results.stored_draws import StoredDraws

if TYPE_CHECKING:
    from shoal.results.result import Result

FORMAT_VERSION = 2
DRAWN = ("chain", "draw")
# What is said anew of a run that goes on.
ANEW = ("num_samples", "finished", "settings", "versions", "warmup")
# How the names of files end that Zarr has not written to the end.
HALF_WRITTEN = ".partial"
# Large enough that a long run makes few files, small enough that writing a part of one costs little.
FILE_BYTES = 4_000_000
# Seconds between times when the arrays get what the journal has: a part of a file is as dear to write as all of it.
STORED_EVERY = 3.0
# With many variables it takes long: then this many times as long passes until the next time, ...
PATIENCE = 20.0
# ... unless so many bytes wait.
MOST_WAITING = 2**25


class ZarrDraws:
    """Writes draws to a Zarr store, chunk by chunk.

    Attributes:
        path: the directory.
        header: what is known about the run.
        committed: the number of draws that count.
        mended: why the store had to be made anew; empty where it had not.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        num_samples: int,
        header: Header,
        kind: Kind = SAMPLING,
        labels: Labels = unlabelled,
    ) -> None:
        """Make the groups, and the store where it is missing.

        Args:
            path: the directory of the run, which has no such groups yet.
            num_samples: how many draws per chain are asked for, or may be. Fewer are trimmed, more make the arrays
                longer.
            header: what is known about the run.
            kind: of the draws.
            labels: of the draws.
        """
        self._begin(path, num_samples, header, kind, labels)
        self._root = zarr_package().open_group(str(self.path), mode="a", zarr_format=3, use_consolidated=False)
        self._groups = {name: self._root.create_group(name) for name in kind.groups}
        for group in self._groups.values():
            write_coordinates(group, header, self._numbers(self._room), labels, self._plain)
        self._root.attrs.update(self._first_attributes())  # last: a store without them was never whole
        self._consolidate()

    @classmethod
    def reopened(
        cls,
        path: str | os.PathLike[str],
        num_samples: int,
        header: Header,
        kind: Kind = SAMPLING,
        labels: Labels = unlabelled,
    ) -> "ZarrDraws":
        """Go on with the store of a run that ended early or is to be longer; make it where there is none.

        The draws that count are those of the arrays and of the journal.

        Args:
            path: the directory of the run.
            num_samples: how many draws per chain are expected, these included.
            header: what is known about the run.
            kind: of the draws.
            labels: as when it was made.
        """
        path = Path(path)
        draws = object.__new__(cls)
        draws._begin(path, num_samples, header, kind, labels)
        try:
            stored, mended = attributes_of(path).get(kind.committed), ""
            if stored is not None:
                draws._reopen(int(stored))
        except (ValueError, KeyError) as error:  # what Zarr makes of files that are not what was written
            stored, mended = None, f"what describes them cannot be read: {type(error).__name__}: {error}"
        if stored is None:
            set_aside(path, kind, described=not mended)
            if not mended and draws._journal.files():
                mended = "what describes them is not there"
            draws = cls(path, num_samples, header, kind, labels)
        draws.mended = mended
        for part in draws._journal.after(draws._stored):
            draws._store([part])
        draws.committed = draws._stored
        return draws

    def _begin(
        self, path: str | os.PathLike[str], num_samples: int, header: Header, kind: Kind, labels: Labels
    ) -> None:
        self.path, self.header = Path(path).expanduser().absolute(), header
        self._kind, self._labels = kind, labels
        self.committed = self._stored = self._readable = 0
        self.mended = ""
        self._stored_at = time.monotonic()
        self._asked, self._room = num_samples, first_room(header, num_samples)
        self._pause = STORED_EVERY
        self._waiting: list[Part] = []
        self._journal = Journal(self.path, kind.journal)
        self._arrays: dict[str, dict[str, Any]] = {name: {} for name in kind.groups}
        self._order: dict[str, list[str]] = {name: [] for name in kind.groups}
        self._names = (*names_of_axes(header.dims), *header.coords, *header.dims, *header.parameters)
        self._plain = plain_names(self._names)

    def _reopen(self, stored: int) -> None:
        for left in self.path.rglob(f"*{HALF_WRITTEN}"):
            left.unlink()
        self._root = zarr_package().open_group(str(self.path), mode="r+", use_consolidated=False)
        self._groups = {name: self._root[name] for name in self._kind.groups}
        self._plain, self._stored, self._readable = {}, stored, stored
        for name, group in self._groups.items():
            with unwarned():  # of an array that a kill has left without its first file
                own = {array.attrs.get("name", plain): array for plain, array in group.arrays()}
            self._plain |= {name: array.basename for name, array in own.items()}
            self._order[name] = list(group.attrs.get("variables", []))
            # Those that a kill has left without their place among the others, too.
            drawn = [variable for variable, array in own.items() if array.metadata.dimension_names[:2] == DRAWN]
            self._arrays[name] = {variable: own[variable] for variable in dict.fromkeys((*self._order[name], *drawn))}
            for array in (*self._arrays[name].values(), *self._labels_of(group)):
                declare_incomplete(array)
        self._plain = plain_names(self._names, self._plain)
        self._resize(max(self._room, stored))
        anew = {name: value for name, value in self._first_attributes().items() if name in ANEW}
        self._root.attrs.update(anew)
        self._consolidate()

    def rewind(self, count: int) -> None:
        """Count so many draws only: those after them come again.

        Args:
            count: of draws, at most `committed`.
        """
        self.committed = self._stored = count

    def cut(self, count: int) -> None:
        """Have so many draws only: what comes after them may be others, or fewer.

        Args:
            count: of draws, at most `committed`.
        """
        self.rewind(count)
        self._root.attrs[self._kind.committed] = self._readable = count

    def clear_damage(self) -> str:
        """Delete files of draws that cannot be read, and count no draw from there on; they are to be made again.

        Returns:
            What was wrong; empty where nothing was.
        """
        arrays = {name: array for group in self._arrays.values() for name, array in group.items()}
        words, whole, files = find_damage(self.path, arrays, self._stored)
        for file in files:
            file.unlink(missing_ok=True)
        if words:
            self._root.attrs[self._kind.committed] = self._readable = whole
        return self.mended or words

    def _first_attributes(self) -> dict[str, Any]:
        if self._kind is not SAMPLING:
            return {self._kind.committed: 0}
        return {
            "format_version": FORMAT_VERSION,
            "inference_library": "shoal",
            "inference_library_version": self.header.versions.get("shoal", ""),
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
            "num_samples": self._asked,
            "draws_committed": 0,
            "finished": False,
            "parameters": to_json(self.header.parameters),
            "dims": to_json(self.header.dims),
            "settings": to_json(self.header.settings),
            "versions": to_json(self.header.versions),
            "warmup": to_json(self.header.warmup),
        }

    def _numbers(self, room: int) -> np.ndarray:
        """Of the draws that the arrays have room for."""
        return np.arange(room)

    def _array(self, group: str, name: str, chunk: np.ndarray) -> Any:
        arrays = self._arrays[group]
        if name not in arrays:
            dtype, fill, attributes = storage(chunk.dtype)
            arrays[name] = self._groups[group].create_array(
                self._plain[name],
                shape=(chunk.shape[0], self._room, *chunk.shape[2:]),
                chunks=(chunk.shape[0], self._draws_per_chunk(chunk), *(max(1, n) for n in chunk.shape[2:])),
                dtype=dtype,
                fill_value=fill,
                compressors=zarr_package().codecs.Crc32cCodec(),
                # A file that is not there is a damaged run, not draws that are all NaN.
                config={"write_empty_chunks": True},
                dimension_names=(*DRAWN, *plain_axes(name, chunk.ndim - 2, self.header.dims, self._plain)),
                attributes=attributes | own_name(name, self._plain),
            )
        return arrays[name]

    def _draws_per_chunk(self, chunk: np.ndarray) -> int:
        """Draws in one file of an array: as many as `FILE_BYTES` hold, whatever comes in one chunk of the run."""
        per_draw = chunk.itemsize * chunk.shape[0] * int(np.prod(chunk.shape[2:]))
        return int(np.clip(FILE_BYTES // max(1, per_draw), 1, max(ROOM, self._room)))

    def append(
        self,
        values: Mapping[str, np.ndarray],
        stats: Mapping[str, np.ndarray],
        state: Archive | None = None,
    ) -> None:
        """Write a chunk, then count it.

        Args:
            values: draws by variable, each `[chain, n, *shape]`.
            stats: sample statistics, each `[chain, n]`.
            state: what the run goes on from after it; None where it never has to.
        """
        count = check_chunk(self.header, values, stats)
        values = {name: np.asarray(value) for name, value in values.items()}
        # A store that was begun without a statistic goes on without it: its first draws would lack it.
        known = self._order[self._kind.groups[1]] or stats
        stats = {name: np.asarray(value) for name, value in stats.items() if name in known}
        part = Part(self.committed, self.committed + count, values, stats)
        if state is None:
            self._store([part])
            self.committed = part.end
            return
        self._journal.write(part, state)
        self.committed = part.end
        self._waiting.append(part)
        many = sum(array.nbytes for part in self._waiting for array in part.values.values()) > MOST_WAITING
        if many or time.monotonic() - self._stored_at >= self._pause:
            self.flush()

    def flush(self) -> None:
        """Write to the arrays what only the journal has."""
        began = time.monotonic()
        waiting = [part for part in self._waiting if part.end > self._stored]
        if waiting:
            self._store(waiting)
        self._waiting, self._stored_at = [], time.monotonic()
        give_back()  # what chunks and Zarr's copies of them took up, which the allocator would keep in pieces
        self._pause = max(STORED_EVERY, PATIENCE * (self._stored_at - began) if STORED_EVERY else 0.0)
        self._journal.prune(self._stored)

    def _store(self, parts: Sequence[Part]) -> None:
        """Write chunks that follow on each other to the arrays, then their number to the attributes."""
        begin, end = parts[0].begin, parts[-1].end
        if end > self._room:
            self._resize(max(end, min(2 * self._room, self._asked)))
        self._plain = plain_names((*parts[-1].values, *parts[-1].stats), self._plain)
        for name, chunks in zip(self._groups, ([p.values for p in parts], [p.stats for p in parts]), strict=True):
            self._store_group(name, parts, chunks)
            write_labels(self._groups[name], self._labels, begin, end)
        # Counted here first: the arrays are never cut to less than a reader was told to read.
        self._stored, self._readable = end, max(end, self._readable)
        self._root.attrs[self._kind.committed] = self._readable

    def _store_group(self, group: str, parts: Sequence[Part], chunks: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Write what chunks have of one group."""
        names = list(chunks[-1])
        for name in names:
            some = [chunk[name] for chunk in chunks]
            array = self._array(group, name, some[-1])
            # A file at a time: Zarr has copies of all that it is given.
            for begin, end in _files(parts[0].begin, parts[-1].end, array.chunks[1]):
                array[:, begin:end] = between(begin, end, parts, some)
        # Directories come back in any order, and the table should have the model's.
        if names != self._order[group]:
            self._arrays[group] = {name: self._arrays[group][name] for name in names}
            self._groups[group].attrs["variables"] = self._order[group] = names
            self._consolidate()

    def _consolidate(self) -> None:
        """Repeat what the groups hold at the top: whoever opens the store need not look for it among other files."""
        with unwarned():
            self._root = zarr_package().consolidate_metadata(self._root.store)

    def _resize(self, room: int) -> None:
        for name, group in self._groups.items():
            for array in self._arrays[name].values():
                array.resize((array.shape[0], room, *array.shape[2:]))
            numbers = self._numbers(room)
            for array in (group["draw"], *self._labels_of(group)):
                array.resize(numbers.shape)
            if numbers.size:
                group["draw"][...] = numbers
        self._room = room
        self._consolidate()

    def _labels_of(self, group: Any) -> list[Any]:
        return [group[name] for name in self._labels(0, 0)]

    @property
    def draws(self) -> StoredDraws:
        """The draws so far, read from disk on access."""
        return StoredDraws(self._arrays[self._kind.groups[0]], self._there, [part.values for part in self._tail])

    @property
    def sample_stats(self) -> StoredDraws:
        """The sample statistics so far, read from disk on access."""
        return StoredDraws(self._arrays[self._kind.groups[1]], self._there, [part.stats for part in self._tail])

    @property
    def _tail(self) -> list[Part]:
        """Chunks that the arrays lack."""
        return [part for part in self._waiting if part.end > self._readable]

    @property
    def _there(self) -> int:
        """Draws of the arrays that come before those chunks: also those that are being made again."""
        return self._tail[0].begin if self._tail else self._readable

    def complete(self) -> None:
        """Make the arrays as long as there are draws: no more are to come, and none is missing."""
        self._trim()
        self._consolidate()

    def _trim(self) -> None:
        self.flush()
        self._resize(max(self.committed, self._readable))
        for name, group in self._groups.items():
            for array in (*self._arrays[name].values(), *self._labels_of(group)):
                declare_complete(array)

    def finish(self, result: "Result") -> None:
        """Trim to the draws that were made and write what is known at the end.

        Args:
            result: of this run; its tuning, timing, gradients, findings and notes are written.
        """
        self._trim()
        tuning = self._root.create_group("tuning", overwrite=True)
        for name, value in result.tuning.items():
            value = np.asarray(value)
            names = tuple(f"{name}_dim_{axis}" for axis in range(value.ndim))
            array = tuning.create_array(
                name, shape=value.shape, dtype=value.dtype, dimension_names=names, compressors=None
            )
            array[...] = value
        self._consolidate()
        self._root.attrs.update(
            {
                "timing": to_json(result.timing._asdict()),
                "gradients": to_json(result.gradients._asdict()),
                "notes": to_json([note.as_dict() for note in result.notes]),
                "findings": to_json([finding.as_dict() for finding in result.findings]),
                "warmup": to_json(self.header.warmup),
                "draws_committed": self._readable,
                "interrupted": bool(result.interrupted),
                "finished": True,
            }
        )


def _files(begin: int, end: int, length: int) -> list[tuple[int, int]]:
    """The first draw of a stretch and the one after its last, for every file that has some of it."""
    edges = [begin, *range(begin - begin % length + length, end, length), end]
    return list(itertools.pairwise(edges)) if begin < end else []
