"""Draws on disk as a mapping that reads them on access."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Of a variable that are in memory at once where it is looked at part by part. Every part reads all files of the
# variable: there are no more than so many, and parts of very large variables are larger.
PART_BYTES, MOST_PARTS = 2**27, 16
# With which the names of groups of a warmup begin.
WARMUP = "warmup_"


class StoredVariable(NamedTuple):
    """A variable of a store, read part by part.

    Attributes:
        stored: the store.
        name: of the variable.
        shape: `[chain, draw, *shape]`.
    """

    stored: "StoredDraws"
    name: str
    shape: tuple[int, ...]

    def parts(self) -> Iterator[np.ndarray]:
        """Arrays `[chain, draw, n, ...]` that follow on each other along the first axis of the variable's own."""
        first = self.shape[2] if len(self.shape) > 2 else 1
        size = self.stored.itemsize(self.name) * int(np.prod(self.shape))
        step = max(1, first * PART_BYTES // max(1, size), -(-first // MOST_PARTS))
        for begin in range(0, first, step):
            yield self.stored.between(self.name, 0, self.stored.count, slice(begin, begin + step))


class StoredDraws(Mapping[str, np.ndarray]):
    """Variables of one group of a store, read from disk each time one is asked for.

    Attributes:
        count: the number of draws that are shown; later ones are not committed.
    """

    def __init__(self, arrays: Mapping[str, Any], count: int, tail: Sequence[Mapping[str, np.ndarray]] = ()) -> None:
        """Read nothing yet.

        Args:
            arrays: on disk, by name.
            count: draws that they have.
            tail: draws that follow, which the journal has and the arrays have not.
        """
        self._arrays, self._tail = dict(arrays), tuple(tail)
        self._stored = count
        self.count = count + sum(next(iter(part.values())).shape[1] for part in self._tail)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.between(name, 0, self.count)

    def between(self, name: str, begin: int, end: int, place: slice = slice(None)) -> np.ndarray:
        """Some draws of a variable, or of a part of it; no more are read than files hold that have some of them.

        Args:
            name: the variable.
            begin: the first draw.
            end: the draw after the last one, at most `count`.
            place: along the first axis of the variable's own; of no meaning where it has none.

        Returns:
            `[chain, end - begin, *shape]`.

        Raises:
            ValueError: the files on disk are not what was written.
        """
        parts, first = [], self._stored
        if begin < min(end, self._stored) or not self._tail:
            parts.append(self._read(name, begin, min(end, self._stored), place))
        for part in self._tail:
            array = part[name]
            low, high = max(begin - first, 0), min(end - first, array.shape[1])
            if low < high:
                parts.append(array[(slice(None), slice(low, high), place)[: array.ndim]])
            first += array.shape[1]
        if not parts:
            return self._tail[0][name][:, :0]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _read(self, name: str, begin: int, end: int, place: slice) -> np.ndarray:
        array = self._arrays[name]
        try:
            values = np.asarray(array[(slice(None), slice(begin, end), place)[: array.ndim]])
        except ValueError as error:
            why = str(error).rstrip(".")
            remedy = (
                "They are of a warmup that has ended, and are not made again; nothing depends on them."
                if array.path.startswith(WARMUP)
                else "shoal.resume of the run makes them again, the same, where its warmup is still there."
            )
            raise ValueError(f"The draws of {name!r} in '{array.store_path}' are damaged ({why}). {remedy}") from error
        return values.astype(bool) if array.attrs.get("stored_dtype") == "bool" else values

    def variable(self, name: str) -> StoredVariable:
        """A variable that is read part by part.

        Args:
            name: the variable.

        Returns:
            Its shape, and its parts.
        """
        chains = self._of_any_length(name).shape[0]
        return StoredVariable(self, name, (chains, self.count, *self.shape(name)))

    def itemsize(self, name: str) -> int:
        """Bytes of one number of a variable."""
        return self._of_any_length(name).dtype.itemsize

    def _of_any_length(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return self._arrays[name] if name in self._arrays else self._tail[0][name]

    def __contains__(self, name: object) -> bool:
        return name in (self._arrays or (self._tail[0] if self._tail else ()))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a variable, chain and draw not counted; nothing is read.

        Args:
            name: the variable.

        Returns:
            The shape.
        """
        return tuple(self._of_any_length(name).shape[2:])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays or (self._tail[0] if self._tail else ()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        shapes = {name: self.shape(name) for name in self}
        chains = next(iter((self._arrays or self._tail[0]).values())).shape[0] if shapes else 0
        parts = [f"{name} {(chains, self.count, *shape)}" for name, shape in shapes.items()]
        return f"StoredDraws({', '.join(parts)})"


def shape_of(draws: Mapping[str, np.ndarray], name: str) -> tuple[int, ...]:
    """The shape of a variable, chain and draw not counted; nothing is read from disk."""
    return draws.shape(name) if isinstance(draws, StoredDraws) else tuple(draws[name].shape[2:])


def between(draws: Mapping[str, np.ndarray], name: str, begin: int, end: int) -> np.ndarray:
    """The draws of a variable from one number to before another, `[chain, end - begin, *shape]`; no others are read."""
    return draws.between(name, begin, end) if isinstance(draws, StoredDraws) else draws[name][:, begin:end]
