"""How named values lie on the vector that samplers move: slots in order, their names, and the way between."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Pieces(NamedTuple):
    """A vector that has been split.

    Attributes:
        free: name to array of the free shape.
        dtype: of the vector.
    """

    free: dict[str, Any]
    dtype: Any


@dataclass(frozen=True)
class Slot:
    """The place of one parameter on the unconstrained vector.

    Attributes:
        name: of the parameter.
        shape: on its support.
        free_shape: in unconstrained space.
    """

    name: str
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many coordinates it takes."""
        return math.prod(self.free_shape)


@dataclass(frozen=True)
class Layout:
    """All slots, in order.

    Attributes:
        slots: one per parameter.
    """

    slots: tuple[Slot, ...]

    @property
    def num_free(self) -> int:
        """How many unconstrained coordinates the parameters have."""
        return sum(slot.size for slot in self.slots)

    @property
    def dim(self) -> int:
        """Length of the vector."""
        return self.num_free

    def in_order(self, plain: Any) -> Any:
        """Vectors `[..., num_free]` of the parameters one after another, as they are here."""
        return plain

    def plain(self, vectors: Any) -> Any:
        """Vectors `[..., dim]` as of a layout that has the parameters one after another."""
        return vectors

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in order."""
        return tuple(slot.name for slot in self.slots)

    def coordinates(self) -> tuple[str, ...]:
        """A name for every coordinate: `tau`, `lamb[3]`, `w[0, 2]`, by the index in unconstrained space."""
        return tuple(
            slot.name + (f"[{', '.join(map(str, index))}]" if index else "")
            for slot in self.slots
            for index in np.ndindex(slot.free_shape)
        )

    def parameters(self) -> tuple[str, ...]:
        """The parameter of every coordinate; names may have brackets of their own."""
        return tuple(slot.name for slot in self.slots for _ in range(slot.size))

    def split(self, position: Any) -> dict[str, Any]:
        """The free value of every parameter.

        Args:
            position: one vector `[dim]`, or `Pieces` of one that has been split.

        Returns:
            Name to array of the free shape.
        """
        if isinstance(position, Pieces):
            return position.free
        pieces = jnp.split(position, np.cumsum([slot.size for slot in self.slots])[:-1])
        return {slot.name: piece.reshape(slot.free_shape) for slot, piece in zip(self.slots, pieces, strict=True)}

    def join(self, free: Mapping[str, Any]) -> Any:
        """The vector that `split` takes apart.

        Args:
            free: name to array of the free shape.

        Returns:
            One vector `[dim]`.
        """
        return jnp.concatenate([jnp.reshape(free[slot.name], (slot.size,)) for slot in self.slots])
