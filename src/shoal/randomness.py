"""Where random numbers come from: threefry keys that depend on the seed, the draw and the chain alone.

Nothing carries a key along, so neither the size of a chunk, nor resuming, nor the number of chains or
devices changes a draw. Keys are threefry by name: `rbg` streams were measured to differ with the number of
devices.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray


def root_key(seed: int) -> PRNGKeyArray:
    """The key from which everything in a run derives: all 64 bits of the seed, in any precision."""
    words = np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


class Keys(eqx.Module):
    """The randomness of one draw of a tile of chains.

    Attributes:
        index: the number of the draw since the run began, warmup included.
        chain: one key per chain.
    """

    index: Int[Array, ""]
    chain: Key[Array, " chains"]

    def normal(self, use: int, size: int, dtype: DTypeLike) -> Float[Array, "chains size"]:
        """Standard normal variates, independent between chains; `use` tells apart the uses in one draw."""
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, use), (size,), dtype))(self.chain)

    def uniform(self, use: int, dtype: DTypeLike) -> Float[Array, " chains"]:
        """Uniform variates in [0, 1), one per chain; `use` tells apart the uses in one draw."""
        return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, use), (), dtype))(self.chain)


def uniforms(
    keys: Key[Array, " chains"], use: Int[Array, " chains"], size: int, dtype: DTypeLike
) -> Float[Array, "chains size"]:
    """Uniform variates in [0, 1) for chains that are not all at the same draw, or not at the same use in it."""
    draw = lambda key, number: jax.random.uniform(jax.random.fold_in(key, number), (size,), dtype)
    return jax.vmap(draw)(keys, use)


class Stream(eqx.Module):
    """All the randomness of a tile of chains: a key for any draw, by its number.

    Attributes:
        root: the run's key.
        chain: the chains' numbers; negative for those that only fill up a tile.
    """

    root: PRNGKeyArray
    chain: Int[Array, " chains"]

    def draw(self, index: Int[Array, ""]) -> Keys:
        """The keys of draw number `index`."""
        # Splitting a key in two folds 0 and 1 into it. One loop of three turns is compiled once, not three times.
        of_draw = jnp.broadcast_to(index.astype(jnp.uint32), self.chain.shape)
        turns = jnp.stack([of_draw, jnp.ones_like(of_draw), self.chain.astype(jnp.uint32)])
        fold = lambda key, number: (jax.vmap(jax.random.fold_in)(key, number), None)
        return Keys(index, jax.lax.scan(fold, jnp.broadcast_to(self.root, self.chain.shape), turns)[0])


def van_der_corput(index: Int[Array, ""], base: int, dtype: DTypeLike) -> Float[Array, ""]:
    """The low-discrepancy sequence of a base in (0, 1), by its number from 0: 1/2, 1/4, 3/4, 1/8, ... in base 2.

    It mirrors the digits of `index + 1` at the point. As many digits are kept as float32 holds exactly; with
    bases that have no common factor several sequences make a Halton sequence (Halton, 1960).
    """
    num_digits = int(math.log(2**20.001, base))
    powers = base ** np.arange(num_digits, dtype=np.int32)
    digits = (index + 1) // powers % base
    return (digits * powers[::-1]).sum(dtype=jnp.int32).astype(dtype) / float(base**num_digits)
