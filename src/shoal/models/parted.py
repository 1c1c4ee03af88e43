"""Parameters that are split over devices: each has its part of every large array, and of the vector that these lie on.

The vector is ordered by device, so that taking it apart moves nothing from one to another: of an array of `[10, 256]`
the first of eight has the columns 0 to 31. What devices compute of their parts, and where they have to talk, is for the
compiler to find out (GSPMD: Xu et al., 2021, arXiv:2105.04663): a layer that is split by its columns, followed by one
that is split by its rows, takes one sum (Shoeybi et al., 2019, arXiv:1909.08053).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from shoal.models.layout import Layout, Pieces, Slot
from shoal.target import PARAMETERS

# A coordinate of no parameter: some make the parts equal.
SPARE = "spare"
# Arrays of fewer numbers for each device are not worth what devices would have to tell each other.
FEW = 8


@dataclass(frozen=True)
class Parted(Layout):
    """As `Layout`, in equal parts one after another: of every array that can be split, then of all others.

    Attributes:
        parts: how many there are.
    """

    parts: int = 1

    def axis(self, slot: Slot) -> int | None:
        """The axis that an array is split along: the longest that goes into the parts evenly, the last of equals.

        None where there is none, or few numbers; these are then wherever there is room.
        """
        if slot.size < FEW * self.parts:
            return None
        even = [(length, axis) for axis, length in enumerate(slot.free_shape) if length % self.parts == 0]
        return max(even)[1] if even else None

    @property
    def dim(self) -> int:
        """Length of the vector, spare coordinates included."""
        return self.parts * -(-self.num_free // self.parts)

    @property
    def num_spare(self) -> int:
        """How many coordinates are of no parameter: fewer than parts."""
        return self.dim - self.num_free

    def coordinates(self) -> tuple[str, ...]:
        plain = (*super().coordinates(), *(f"{SPARE}[{index}]" for index in range(self.num_spare)))
        return tuple(plain[index] for index in self.order)

    def parameters(self) -> tuple[str, ...]:
        plain = (*super().parameters(), *(SPARE for _ in range(self.num_spare)))
        return tuple(plain[index] for index in self.order)

    @cached_property
    def order(self) -> np.ndarray:
        """Of each coordinate, its place on the vector of a `Layout`, spare ones at the end of that."""
        columns, rest, begin = [], [], 0
        for slot in self.slots:
            axis, places = self.axis(slot), begin + np.arange(slot.size).reshape(slot.free_shape)
            begin += slot.size
            if axis is None:
                rest.append(places.reshape(-1))
                continue
            in_parts = places.reshape(*slot.free_shape[:axis], self.parts, *self._shape_of_part(slot, axis)[axis:])
            columns.append(np.moveaxis(in_parts, axis, 0).reshape(self.parts, -1))
        rest.append(np.arange(begin, self.dim))
        return np.concatenate([*columns, np.concatenate(rest).reshape(self.parts, -1)], axis=1).reshape(-1)

    def in_order(self, plain: Any) -> Any:
        # Spare coordinates are 0.
        numpy = jnp if isinstance(plain, jax.Array) else np
        spare = numpy.zeros((*plain.shape[:-1], self.num_spare), plain.dtype)
        return numpy.concatenate([plain, spare], axis=-1)[..., self.order]

    def plain(self, vectors: Any) -> Any:
        return vectors[..., self._places]

    @cached_property
    def _places(self) -> np.ndarray:
        """Where each coordinate of a `Layout` is."""
        return np.argsort(self.order)[: self.num_free]

    def split(self, position: Any) -> dict[str, Any]:
        return position.free if isinstance(position, Pieces) else self._apart(position)[0]

    def spare(self, position: Any) -> Any:
        """The coordinates of no parameter, of one vector."""
        return self._apart(position)[1]

    def join(self, free: Mapping[str, Any]) -> Any:
        return self.in_order(super().join(free))

    def _apart(self, position: Any) -> tuple[dict[str, Any], Any]:
        rows, free, left = position.reshape(self.parts, -1), {}, []
        begin = 0
        for slot in self.slots:
            axis = self.axis(slot)
            if axis is None:
                left.append(slot)
                continue
            width = slot.size // self.parts
            piece = rows[:, begin : begin + width].reshape(self.parts, *self._shape_of_part(slot, axis))
            free[slot.name] = _on_devices(jnp.moveaxis(piece, 0, axis).reshape(slot.free_shape), axis)
            begin += width
        rest = _everywhere(rows[:, begin:].reshape(-1))
        begin = 0
        for slot in left:
            free[slot.name] = rest[begin : begin + slot.size].reshape(slot.free_shape)
            begin += slot.size
        return {name: free[name] for name in self.names}, rest[begin:]

    def _shape_of_part(self, slot: Slot, axis: int) -> tuple[int, ...]:
        shape = slot.free_shape
        return (*shape[:axis], shape[axis] // self.parts, *shape[axis + 1 :])


def _on_devices(array: Any, axis: int) -> Any:
    """The same array, split along an axis where a program has its parameters on several devices."""
    if PARAMETERS not in jax.sharding.get_abstract_mesh().axis_names:
        return array
    return jax.lax.with_sharding_constraint(array, PartitionSpec(*[None] * axis, PARAMETERS))


def _everywhere(array: Any) -> Any:
    """The same array, whole on every device."""
    if PARAMETERS not in jax.sharding.get_abstract_mesh().axis_names:
        return array
    return jax.lax.with_sharding_constraint(array, PartitionSpec())


@dataclass(frozen=True)
class InParts:
    """A function of a position and data, of positions in parts.

    Attributes:
        function: of positions as a `Layout` has them, which it takes apart by that.
        layout: of the parts.
    """

    function: Callable[..., Any]
    layout: Parted

    def __call__(self, position: Any, data: Any) -> Any:
        """Evaluate at one point."""
        return self.function(Pieces(self.layout.split(position), position.dtype), data)


@dataclass(frozen=True)
class OfSpare:
    """A standard normal law of the spare coordinates: what a sampler asks of them, and leaves all others as they are.

    Attributes:
        layout: which these are.
    """

    layout: Parted

    def __call__(self, position: Any) -> Any:
        """Its log density at one point, but for a constant."""
        return -0.5 * jnp.sum(jnp.square(self.layout.spare(position)))


@dataclass(frozen=True)
class LogDensityInParts(InParts):
    """As `InParts`, with the law of the spare coordinates."""

    def __call__(self, position: Any, data: Any) -> Any:
        """Evaluate at one point."""
        value = super().__call__(position, data)
        return value + OfSpare(self.layout)(position) if self.layout.num_spare else value


@dataclass(frozen=True)
class UnconstrainInParts:
    """`({name: value}, data) -> position[dim]`, of positions in parts; spare coordinates are 0.

    Attributes:
        function: to positions as a `Layout` has them.
        layout: of the parts.
    """

    function: Callable[..., Any]
    layout: Parted

    def __call__(self, values: Mapping[str, Any], data: Any) -> Any:
        """Evaluate at one point."""
        return self.layout.in_order(self.function(values, data))
