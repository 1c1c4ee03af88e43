r"""Averages that forget their beginning: polynomial-decay averaging (Shamir & Zhang, 2013, section 5).

The t-th value enters with weight $(\eta + 1)/(t + \eta)$, so that the value of time $s$ has a share that grows
like $s^\eta$: about the last $1/(\eta + 1)$ of all values count, whatever their number.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

ETA = 3.0


def weight(count: Int[Array, ""] | Float[Array, ""], like: Array) -> Float[Array, ""]:
    """The weight of the newest of `count` values, in the dtype of `like`."""
    return jnp.asarray((ETA + 1.0) / (count + ETA), like.dtype)
