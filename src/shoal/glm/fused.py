r"""A sum of log probabilities with a linear predictor, and the one rule for its derivatives.

$$L = \sum_i \ell(y_i, \eta_i, \theta), \qquad \eta = w^\top x^\top + o, \qquad
\frac{\partial L}{\partial w} = c\, (s\, x)^\top, \qquad c\, s_i = \frac{\partial \ell}{\partial \eta_i}$$

A family states its score $s$ and a factor $c$ common to all rows, so that the gradient alone is two products and the
score: nothing of the value is left in it once the compiler has dropped what nobody reads.

Both products have chains first under `vmap`, `[chains, rows]`: on a CPU XLA then makes both by its library for small
products (YNNPACK), where the layout of `x @ w`, `[rows, chains]`, leaves the second to a slower one (Eigen).

A kernel of one's own for a device would stand in for `log_prob` and its rule; the functions of the room, their checks
and the families stay.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Shaped

# What a family has beside the predictor: a scale, cutpoints, or nothing.
Extra = tuple[Array, ...]


class Family(NamedTuple):
    r"""A distribution of one observation given its predictor.

    Each function is called with y `[rows]`, η `[*classes, rows]` and what else there is.

    Attributes:
        value: L.
        score: s as η, and c, a scalar.
        by_y: ∂L/∂y `[rows]`.
        by_extra: ∂L of what else there is, shaped as it.
    """

    value: Callable[[Array, Array, Extra], Array]
    score: Callable[[Array, Array, Extra], tuple[Array, Array | float]]
    by_y: Callable[[Array, Array, Extra], Array]
    by_extra: Callable[[Array, Array, Extra], Extra]


def predictor(
    x: Float[Array, "rows columns"], w: Float[Array, "columns *classes"], offset: Float[Array, "..."]
) -> Float[Array, "*classes rows"]:
    """η, rows last."""
    # A transpose of its own is hoisted out of the loop of a trajectory; folded into the product it would be made anew
    # for every gradient, which takes 3 to 5% of the whole.
    return w.T @ jax.lax.optimization_barrier(x.T) + offset


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def log_prob(
    family: Family,
    y: Shaped[Array, " rows"],
    x: Float[Array, "rows columns"],
    w: Float[Array, "columns *classes"],
    offset: Float[Array, "..."],
    extra: Extra,
) -> Float[Array, ""]:
    """L.

    Args:
        family: of the rows.
        y: observed.
        x: the design.
        w: coefficients.
        offset: added to η; broadcasts to it.
        extra: what the family has beside.
    """
    return family.value(y, predictor(x, w, offset), extra)


@partial(log_prob.defjvp, symbolic_zeros=True)
def _derivative(family: Family, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    y, x, w, offset, extra = primals
    dy, dx, dw, doffset, dextra = tangents
    eta = predictor(x, w, offset)
    score, factor = family.score(y, eta, extra)
    value = family.value(y, eta, extra)
    change = jnp.zeros_like(value)
    # The product comes before the factor: so many chains and columns are fewer numbers than chains and rows.
    if _moves(dw):
        change += factor * jnp.sum((score @ x).T * dw)
    if _moves(doffset):
        change += factor * jnp.sum(score * doffset)
    if _moves(dx):
        change += factor * jnp.sum(score * (w.T @ dx.T))
    if _moves(dy):
        change += jnp.sum(family.by_y(y, eta, extra) * dy)
    if any(map(_moves, dextra)):
        slopes = family.by_extra(y, eta, extra)
        change += sum(jnp.sum(slope * d) for slope, d in zip(slopes, dextra, strict=True) if _moves(d))
    return value, change


def _moves(tangent: Any) -> bool:
    """Whether a derivative is asked for: of data, as a rule, none is, and nothing is computed for it."""
    return not isinstance(tangent, SymbolicZero)
