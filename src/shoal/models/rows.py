"""A log likelihood that is a sum over rows, evaluated a block of them at a time and on several devices.

Value and gradient are accumulated from block to block, so that what they take up does not grow with the number of rows,
and the intermediate results of a block stay in the cache. Automatic differentiation of a loop would keep those of every
block; hence the derivative is stated: of a sum of functions it is the sum of theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from shoal.target import Sharded

# Draws of a model with more rows depend on it to the last bit, so it is a constant. With 32 chains and 50 columns the
# intermediate results of so many rows take 1 MB; measured on one core, a million rows: 8,192 at once make 1.5 to 2.4
# times the gradients a second of all at once, 4,096 and 16,384 the same within a tenth.
ROW_BLOCK = 8192


@dataclass(frozen=True)
class RowSum:
    """`(params, data) -> scalar`: the sum of a term over all rows.

    Attributes:
        term: `(params, rows) -> scalar`, the sum over the rows that it is given.
        block: the most rows that it is given at once.
    """

    term: Callable[..., Any]
    block: int = ROW_BLOCK

    def __call__(self, params: PyTree, data: PyTree) -> Float[Array, ""]:
        """Evaluate at one point; data that are split over devices are summed over these, once per gradient."""
        if not isinstance(data, Sharded):
            return self._of_blocks(params, data)
        shared = _stated(self._of_shards)(params, data)
        return shared + self.term(params, data.rest) if data.left else shared

    def _of_shards(self, params: PyTree, data: Sharded) -> tuple[Array, PyTree]:
        """Value and gradient of all rows but those that are left over."""
        of_shard = jax.value_and_grad(self._of_blocks)
        if data.axis is None:
            each = jax.vmap(of_shard, in_axes=(None, 0))(params, data.shards)
            return jax.tree.map(lambda leaf: leaf.sum(0), each)
        value, slope = of_shard(params, jax.tree.map(lambda leaf: leaf[0], data.shards))
        return jax.lax.psum(value, data.axis), jax.lax.psum(slope, data.axis)

    def _of_blocks(self, params: PyTree, rows: PyTree) -> Array:
        count = number_of_rows(rows)
        if count <= self.block:
            return self.term(params, rows)
        size, blocks = self.block, count // self.block

        def accumulated(params: PyTree, rows: PyTree) -> tuple[Array, PyTree]:
            of_block = jax.value_and_grad(self.term)
            at = lambda first: jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), rows)

            def add(index: Array, carry: tuple[tuple[Array, Array], PyTree]) -> tuple[tuple[Array, Array], PyTree]:
                value, slope = of_block(params, at(index * size))
                return _added(carry[0], value), jax.tree.map(jnp.add, carry[1], slope)

            zeros = lambda tree: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)
            value, slope = jax.eval_shape(of_block, params, at(0))
            carry = jax.lax.fori_loop(0, blocks, add, (zeros((value, value)), zeros(slope)))
            if size * blocks < count:
                value, slope = of_block(params, jax.tree.map(lambda leaf: leaf[size * blocks :], rows))
                carry = _added(carry[0], value), jax.tree.map(jnp.add, carry[1], slope)
            return carry[0][0], carry[1]

        return _stated(accumulated)(params, rows)


def _stated(both: Callable[[PyTree, PyTree], tuple[Array, PyTree]]) -> Callable[[PyTree, PyTree], Array]:
    """The function of parameters and data whose value and gradient by the parameters `both` returns.

    XLA leaves out what of the two is not asked for.
    """

    @jax.custom_jvp
    def value(params: PyTree, data: PyTree) -> Array:
        return both(params, data)[0]

    @value.defjvp
    def _(primals: tuple[PyTree, PyTree], tangents: tuple[PyTree, PyTree]) -> tuple[Array, Array]:
        # Data are constants: nothing in Shoal differentiates by them.
        found, slope = both(*primals)
        along = zip(jax.tree.leaves(slope), jax.tree.leaves(tangents[0]), strict=True)
        change = sum((jnp.vdot(part, tangent) for part, tangent in along), jnp.zeros_like(found))
        return found, change.astype(found.dtype)

    return value


def _added(total: tuple[Array, Array], value: Array) -> tuple[Array, Array]:
    """A sum and what rounding has taken from it, with one more term (Kahan, 1965, Commun. ACM 8(1), p. 40).

    Of ten million rows the log density is some millions; a thousand blocks added up as they come would be off by some
    units, which decides acceptances.
    """
    so_far, lost = total
    term = value - lost
    later = so_far + term
    return later, (later - so_far) - term


def number_of_rows(rows: PyTree) -> int:
    """Of data whose leaves share their leading axis."""
    return jax.tree.leaves(rows)[0].shape[0]
