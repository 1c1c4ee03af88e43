"""Where draws go while sampling: the header that every run has, and the sink that keeps them in memory."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known about a run before its first draw.

    Attributes:
        superchain: which superchain each chain belongs to.
        parameters: the variables that are parameters; the others are computed from them.
        dims: the names of axes, by variable.
        coords: the names along an axis, by axis.
        settings: what the run was asked to do; nothing that JSON cannot hold.
        versions: versions of the packages and the names of the devices.
        warmup: what was done and measured in warmup; nothing that JSON cannot hold.
        warmup_draws: draws of the warmup by variable, where they are kept.
        warmup_sample_stats: theirs.
        warmup_coords: which stage each of them is of; as of `Course`.
    """

    superchain: np.ndarray
    parameters: tuple[str, ...] = ()
    dims: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    coords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warmup: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warmup_draws: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    warmup_sample_stats: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    warmup_coords: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def num_chains(self) -> int:
        return len(self.superchain)


def check_chunk(header: Header, values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray]) -> int:
    """The number of draws in a chunk.

    Args:
        header: of the run that the chunk belongs to.
        values: draws by variable, each `[chain, n, *shape]`.
        stats: sample statistics, each `[chain, n]`.

    Returns:
        n, the same for every array.

    Raises:
        ValueError: the arrays disagree about the number of chains or draws.
    """
    leading = {np.shape(array)[:2] for array in (*values.values(), *stats.values())}
    if len(leading) != 1 or next(iter(leading))[0] != header.num_chains:
        raise ValueError(
            f"A chunk of draws came with leading shapes {sorted(leading)}; every array must begin with "
            f"[chain, draw], with {header.num_chains} chains and one number of draws."
        )
    return next(iter(leading))[1]


# Draws of a run that there is room for at first where nobody knows how many come; so many fit into a file of draws in
# any case, since a run may be prolonged.
ROOM = 500


def first_room(header: Header, num_samples: int) -> int:
    """Draws that arrays have room for at first: all that are asked for, where that is known."""
    return min(num_samples, ROOM) if "until" in header.settings else num_samples


class MemoryDraws:
    """Keeps draws in memory, in arrays made once for the whole run, or larger ones where it ends by itself.

    Attributes:
        header: what is known about the run.
        committed: the number of draws kept so far.
    """

    def __init__(self, num_samples: int, header: Header) -> None:
        self.header = header
        self.committed = 0
        self._room = first_room(header, num_samples)
        self._values: dict[str, np.ndarray] = {}
        self._stats: dict[str, np.ndarray] = {}

    def append(self, values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray], state: Any = None) -> None:
        """Keep a chunk.

        Args:
            values: draws by variable, each `[chain, n, *shape]`.
            stats: sample statistics, each `[chain, n]`.
            state: is not kept: nothing here outlives the process.
        """
        count = check_chunk(self.header, values, stats)
        begin, end = self.committed, self.committed + count
        if end > self._room:
            self._grow(max(end, 2 * self._room))
        for kept, chunk in ((self._values, values), (self._stats, stats)):
            for name, array in chunk.items():
                array = np.asarray(array)
                if name not in kept:
                    kept[name] = np.empty((array.shape[0], self._room, *array.shape[2:]), array.dtype)
                kept[name][:, begin:end] = array
        self.committed = end

    def _grow(self, room: int) -> None:
        for kept in (self._values, self._stats):
            for name, array in kept.items():
                bigger = np.empty((array.shape[0], room, *array.shape[2:]), array.dtype)
                bigger[:, : self.committed] = array[:, : self.committed]
                kept[name] = bigger
        self._room = room

    @property
    def draws(self) -> dict[str, np.ndarray]:
        """The draws so far, `[chain, draw, *shape]` each."""
        return {name: array[:, : self.committed] for name, array in self._values.items()}

    @property
    def sample_stats(self) -> dict[str, np.ndarray]:
        """The sample statistics so far, `[chain, draw]` each."""
        return {name: array[:, : self.committed] for name, array in self._stats.items()}

    def so_far(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Draws and sample statistics for another thread, which cannot write to them; later draws change nothing."""
        count = self.committed  # once: draws may be added meanwhile
        kept = (self._values, self._stats) if count else ({}, {})
        shown = tuple({name: array[:, :count] for name, array in group.items()} for group in kept)
        for array in (*shown[0].values(), *shown[1].values()):
            array.flags.writeable = False
        return shown[0], shown[1]

    def finish(self, result: Any) -> None:
        """Nothing to write: the result holds the draws."""
