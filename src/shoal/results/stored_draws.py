"""Draws on disk as a mapping that reads them on access."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Of a variable that are in memory at once where it is looked at part by part. Every part reads all files of the
# variable, so that smaller ones cost time.
PART_BYTES = 2**27


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
        step = max(1, first * PART_BYTES // max(1, size))
        for begin in range(0, first, step):
            yield self.stored.read(self.name, slice(begin, begin + step))


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
        return self.read(name, slice(None))

    def read(self, name: str, place: slice) -> np.ndarray:
        """A variable, or a part of it.

        Args:
            name: the variable.
            place: along the first axis of its own; of no meaning where it has none.

        Returns:
            `[chain, draw, *shape]`.

        Raises:
            ValueError: the files on disk are not what was written.
        """
        part = (slice(None), slice(None), place)[: 2 + len(self.shape(name)[:1])]
        tail = [chunk[name][part] for chunk in self._tail]
        if not self._stored and tail:
            return np.concatenate(tail, axis=1)
        array = self._arrays[name]
        try:
            values = np.asarray(array[(part[0], slice(0, self._stored), *part[2:])])
        except ValueError as error:
            raise ValueError(
                f"The draws of {name!r} in '{array.store_path}' are damaged ({error}). shoal.resume of the run makes "
                "them again, the same, where its warmup is still there."
            ) from error
        values = values.astype(bool) if array.attrs.get("stored_dtype") == "bool" else values
        return np.concatenate([values, *tail], axis=1) if tail else values

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
