"""Drawing at many points: in batches on the device, by keys that depend on the seed, the chain and the draw alone."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from shoal.compiling import compiled
from shoal.models.causes import cause
from shoal.models.precision import shape_of
from shoal.randomness import root_key

# They set these keys apart from those of draws, which count from 0, of starts and of simulations, and from each other.
POSTERIOR, PRIOR = 2**32 - 3, 2**32 - 4
# Points that are computed side by side, or as many as the run has chains: all that a model computes on the way to what
# is drawn is in memory so many times, as it was in sampling.
SIDE_BY_SIDE = 128
# Of parameters and results on the device at once.
CALL_BYTES = 2**26

# `({name: value}, data, key) -> {name: value}` at one point.
type Draw = Callable[..., dict[str, Any]]


class Points(NamedTuple):
    """Where something is drawn.

    Attributes:
        num_chains: chains.
        numbers: which draws of each, by number.
        values: what is given, by name, `[chain, draw, *shape]` of all draws; nothing where nothing is.
    """

    num_chains: int
    numbers: np.ndarray
    values: Mapping[str, np.ndarray]

    @property
    def total(self) -> int:
        """How many there are."""
        return self.num_chains * len(self.numbers)

    def between(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Chain, number of the draw, and values of some points, chain by chain; after the last it comes again."""
        chain, place = np.divmod(np.minimum(np.arange(begin, end), self.total - 1), len(self.numbers))
        number = self.numbers[place]
        rows = {name: array[chain, number] for name, array in self.values.items()}
        return chain.astype(np.uint32), number.astype(np.uint32), rows


def drawn(draw: Draw, points: Points, data: Any, seed: int, apart: int, what: str) -> dict[str, np.ndarray]:
    """One draw at every point.

    Args:
        draw: what is evaluated.
        points: where.
        data: of the model, on the device.
        seed: of all.
        apart: `POSTERIOR` or `PRIOR`, whose keys have nothing in common.
        what: is done, for messages.

    Returns:
        Name to `[chain, draws, *shape]`, on the host.

    Raises:
        ValueError: it cannot be traced; the message says what went wrong.
    """
    root = jax.random.fold_in(root_key(seed), apart)
    structs = _structs(draw, points, data, root, what)
    beside, rounds = _sizes(points, structs)
    made = {name: np.empty((points.total, *leaf.shape), leaf.dtype) for name, leaf in structs.items()}
    for begin in range(0, points.total, rounds * beside):
        # The last call is filled up, so that one program serves all.
        part = _at_points(draw, beside, data, root, *points.between(begin, begin + rounds * beside))
        for name, array in part.items():
            rows = made[name][begin : begin + rounds * beside]
            rows[...] = np.asarray(array)[: len(rows)]
    shape = points.num_chains, len(points.numbers)
    return {name: array.reshape(*shape, *array.shape[1:]) for name, array in made.items()}


def _sizes(points: Points, structs: Mapping[str, Any]) -> tuple[int, int]:
    """How many points are computed side by side, and how many times in one call."""
    of_one = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in structs.values())
    of_one += sum(array[0, 0].nbytes for array in points.values.values())
    most = max(1, CALL_BYTES // max(1, of_one))
    beside = min(points.total, max(points.num_chains, SIDE_BY_SIDE), most)
    return beside, min(-(-points.total // beside), max(1, most // beside))


@compiled
def _at_points(
    draw: Draw, beside: int, data: Any, root: PRNGKeyArray, chain: Any, number: Any, values: Any
) -> dict[str, jax.Array]:
    def at(row: Any) -> dict[str, Any]:
        chain, number, values = row
        return draw(values, data, jax.random.fold_in(jax.random.fold_in(root, chain), number))

    # As in sampling: products in TF32 would be another model's.
    with jax.default_matmul_precision("highest"):
        return jax.lax.map(at, (chain, number, values), batch_size=beside)


def _structs(draw: Draw, points: Points, data: Any, key: PRNGKeyArray, what: str) -> dict[str, Any]:
    """Shapes and types of what is drawn at one point."""
    of_one = {name: jax.ShapeDtypeStruct(array.shape[2:], array.dtype) for name, array in points.values.items()}
    try:
        return shape_of(draw, of_one, data, key)
    except Exception as error:
        raise ValueError(
            f"{what} failed when it was traced: {cause(error)}. Each of its distributions must be one that can be "
            "sampled (an improper prior is none), and what depends on values that are drawn must use jax.numpy."
        ) from error
