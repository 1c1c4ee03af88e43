"""Draws on disk as a mapping that reads them on access."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


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
        tail = [part[name] for part in self._tail]
        if not self._stored and tail:
            return np.concatenate(tail, axis=1)
        array = self._arrays[name]
        try:
            values = np.asarray(array[:, : self._stored])
        except ValueError as error:
            raise ValueError(
                f"The draws of {name!r} in '{array.store_path}' are damaged ({error}). shoal.resume of the run makes "
                "them again, the same, where its warmup is still there."
            ) from error
        values = values.astype(bool) if array.attrs.get("stored_dtype") == "bool" else values
        return np.concatenate([values, *tail], axis=1) if tail else values

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a variable, chain and draw not counted; nothing is read.

        Args:
            name: the variable.

        Returns:
            The shape.
        """
        return tuple((self._arrays if name in self._arrays else self._tail[0])[name].shape[2:])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays or (self._tail[0] if self._tail else ()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        shapes = {name: self.shape(name) for name in self}
        chains = next(iter((self._arrays or self._tail[0]).values())).shape[0] if shapes else 0
        parts = [f"{name} {(chains, self.count, *shape)}" for name, shape in shapes.items()]
        return f"StoredDraws({', '.join(parts)})"
