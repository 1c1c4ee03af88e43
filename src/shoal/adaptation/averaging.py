r"""Averages that forget their beginning: polynomial-decay averaging (Shamir & Zhang, 2013, section 5).

The t-th value enters with weight $(\eta + 1)/(t + \eta)$, so that the value of time $s$ has a share that grows
like $s^\eta$: about the last $1/(\eta + 1)$ of all values count, whatever their number.
"""

from jaxtyping import Array, Float

ETA = 3.0


def weight(count: Float[Array, ""]) -> Float[Array, ""]:
    """The weight of the newest of `count` values."""
    return (ETA + 1.0) / (count + ETA)
