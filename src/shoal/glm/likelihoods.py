"""Log probabilities of observations given a linear predictor, summed over rows, written for one point.

For use in a `log_likelihood(params, rows)` or `log_density`, or in `numpyro.factor`. All are exact, with the constants
of the distribution of NumPyro that is named; derivatives of any order, forward or reverse, exist with respect to all
arguments of real numbers. The gradient alone costs two matrix products and one transcendental function for each row
(two for ordered classes, none for the normal law, one for each class of a categorical one).

References: McCullagh & Nelder (1989), Generalized linear models; the functions `bernoulli_logit_glm` and others of the
Stan Functions Reference.
"""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from shoal.glm import door
from shoal.glm.families import BERNOULLI, CATEGORICAL, NORMAL, ORDERED, POISSON, gaps
from shoal.glm.fused import log_prob

INFINITE = float("inf")


def bernoulli_logit(y: ArrayLike, x: ArrayLike, w: ArrayLike, offset: ArrayLike = 0.0) -> Float[Array, ""]:
    """Log probability of outcomes with log odds `x @ w + offset`: of `Bernoulli(logits=...)`.

    The gradient is right to a unit in the last place of 1 for each row.

    Args:
        y: `[rows]`, 0 or 1; a share of successes between them counts as so many of each.
        x: `[rows, columns]`.
        w: `[columns]`.
        offset: a scalar, or `[rows]`.

    Returns:
        The sum over rows, in the precision of `x` and `w`. NaN where a `y` that is an argument of a compiled program is
        outside of the support.

    Raises:
        ValueError: a shape or a type does not fit, or `y` is outside of the support.
    """
    name = "bernoulli_logit"
    y, x, w, offset = _read(name, y, x, w, offset)
    outside = door.inside(name, y, 1, "y is 0 or 1. Recode the labels", x.dtype)
    return log_prob(BERNOULLI, y, x, w, offset, ()) + outside


def poisson_log(y: ArrayLike, x: ArrayLike, w: ArrayLike, offset: ArrayLike = 0.0) -> Float[Array, ""]:
    """Log probability of counts with log rate `x @ w + offset`: of `Poisson(jnp.exp(...))`.

    log y! depends on the data alone: it is computed once for all chains of a tile, where a value is asked for, and
    never for a gradient.

    Args:
        y: `[rows]`, counts.
        x: `[rows, columns]`.
        w: `[columns]`.
        offset: a scalar, or `[rows]`: the log of the exposure.

    Returns:
        The sum over rows, as `bernoulli_logit` has it; -inf where a rate overflows.

    Raises:
        ValueError: a shape or a type does not fit, or `y` is outside of the support.
    """
    name = "poisson_log"
    y, x, w, offset = _read(name, y, x, w, offset)
    outside = door.inside(name, y, INFINITE, "y holds counts, 0 or more", x.dtype)
    return log_prob(POISSON, y, x, w, offset, ()) + outside


def normal_identity(
    y: ArrayLike, x: ArrayLike, w: ArrayLike, offset: ArrayLike = 0.0, *, scale: ArrayLike
) -> Float[Array, ""]:
    """Log density of observations with mean `x @ w + offset`: of `Normal(..., scale)`.

    Args:
        y: `[rows]`.
        x: `[rows, columns]`.
        w: `[columns]`.
        offset: a scalar, or `[rows]`.
        scale: standard deviation, a positive scalar or `[rows]`.

    Returns:
        The sum over rows, as `bernoulli_logit` has it.

    Raises:
        ValueError: a shape or a type does not fit.
    """
    name = "normal_identity"
    y, x, w, offset = _read(name, y, x, w, offset)
    scale = door.real(name, "scale", scale).astype(x.dtype)
    door.check_one_of(name, "scale", scale, [(), y.shape], "one number, or one for each row")
    return log_prob(NORMAL, y, x, w, offset, (scale,))


def categorical_logit(y: ArrayLike, x: ArrayLike, w: ArrayLike, offset: ArrayLike = 0.0) -> Float[Array, ""]:
    """Log probability of classes with logits `x @ w + offset`: of `Categorical(logits=...)`.

    Logits are invariant to what is added to all classes: fix one column of `w`, or give it a proper prior.

    Args:
        y: `[rows]`, integers from 0.
        x: `[rows, columns]`.
        w: `[columns, classes]`.
        offset: a scalar, `[classes]`, or `[rows, classes]`.

    Returns:
        The sum over rows, as `bernoulli_logit` has it.

    Raises:
        ValueError: a shape or a type does not fit, or `y` is outside of the support.
    """
    name = "categorical_logit"
    y, (x, w) = door.labels(name, y), _design(name, x, w)
    door.check_shapes(name, x, w, y, classes=True)
    rows, classes = len(x), w.shape[1]
    offset = door.real(name, "offset", offset).astype(x.dtype)
    words = "one number, one for each class, or one for each row and class"
    door.check_one_of(name, "offset", offset, [(), (classes,), (rows, classes)], words)
    words = f"y holds classes, from 0 to {classes - 1} for w of shape {w.shape}. Recode them"
    outside = door.inside(name, y, classes - 1, words, x.dtype)
    # η has rows last.
    offset = offset[:, None] if offset.ndim == 1 else offset.T
    return log_prob(CATEGORICAL, y, x, w, offset, ()) + outside


def ordered_logistic(
    y: ArrayLike, x: ArrayLike, w: ArrayLike, offset: ArrayLike = 0.0, *, cutpoints: ArrayLike
) -> Float[Array, ""]:
    """Log probability of ordered classes by predictor `x @ w + offset`: of `OrderedLogistic(..., cutpoints)`.

    Exact where classes are improbable, too; NumPyro's is the difference of two logistic functions, clipped.

    Args:
        y: `[rows]`, integers from 0 to the number of cutpoints.
        x: `[rows, columns]`.
        w: `[columns]`.
        offset: a scalar, or `[rows]`. An intercept is in the cutpoints already.
        cutpoints: `[classes - 1]`, increasing, such as a parameter `shoal.ordered(classes - 1)`.

    Returns:
        The sum over rows, as `bernoulli_logit` has it; NaN or -inf where cutpoints around a class that was observed do
        not increase.

    Raises:
        ValueError: a shape or a type does not fit, or `y` is outside of the support.
    """
    name = "ordered_logistic"
    y, (x, w) = door.labels(name, y), _design(name, x, w)
    door.check_shapes(name, x, w, y)
    offset = _offset(name, offset, x)
    cutpoints = door.real(name, "cutpoints", cutpoints).astype(x.dtype)
    if cutpoints.ndim != 1 or not len(cutpoints):
        raise ValueError(
            f"{name} was given cutpoints of shape {cutpoints.shape}, but they are a vector of one cutpoint fewer than "
            "there are classes."
        )
    last = len(cutpoints)
    words = f"y holds classes, from 0 to {last} with {last} cutpoints. Recode them, or give more cutpoints"
    outside = door.inside(name, y, last, words, x.dtype)
    return log_prob(ORDERED, y, x, w, offset, (cutpoints,)) + gaps(y, cutpoints) + outside


def _design(name: str, x: Any, w: Any) -> tuple[Array, Array]:
    """Design and coefficients in one precision, the wider of those that are floating."""
    x, w = door.real(name, "x", x), door.real(name, "w", w)
    floating = [array.dtype for array in (x, w) if jnp.issubdtype(array.dtype, jnp.floating)]
    dtype = max(floating, key=lambda dtype: dtype.itemsize, default=jnp.zeros(()).dtype)
    return x.astype(dtype), w.astype(dtype)


def _offset(name: str, offset: Any, x: Array) -> Array:
    offset = door.real(name, "offset", offset).astype(x.dtype)
    door.check_one_of(name, "offset", offset, [(), x.shape[:1]], "one number, or one for each row")
    return offset


def _read(name: str, y: Any, x: Any, w: Any, offset: Any) -> tuple[Array, Array, Array, Array]:
    x, w = _design(name, x, w)
    y = door.real(name, "y", y).astype(x.dtype)
    door.check_shapes(name, x, w, y)
    return y, x, w, _offset(name, offset, x)
