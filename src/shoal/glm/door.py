"""What users give to a likelihood: shapes, types and, where they are known, values."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float


def real(function: str, name: str, value: Any) -> Array:
    """An array of real numbers, in the type that it came in.

    Args:
        function: that was called.
        name: of its argument.
        value: what came.

    Raises:
        ValueError: it is no array, or not of real numbers.
    """
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{function} was given {name} = {value!r}, but {name} is an array of real numbers, of NumPy or JAX."
        ) from error
    if not (jnp.issubdtype(array.dtype, jnp.floating) or array.dtype.kind in "iub"):
        raise ValueError(
            f"{function} was given {name} of type {array.dtype}, but {name} is an array of real numbers. Convert it "
            "where it is made."
        )
    return array


def labels(function: str, value: Any) -> Array:
    """Classes, as integers.

    Args:
        function: that was called.
        value: what came.

    Raises:
        ValueError: they are no integers.
    """
    array = real(function, "y", value)
    if array.dtype.kind not in "iub":
        raise ValueError(
            f"{function} was given y of type {array.dtype}, but y holds classes, the integers from 0. Convert it where "
            "the data are made, with y.astype(int)."
        )
    return array.astype(jnp.int32)


def check_shapes(function: str, x: Any, w: Any, y: Any, classes: bool = False) -> None:
    """Refuse design, coefficients and observations that do not fit together.

    Args:
        function: that was called.
        x: the design.
        w: coefficients.
        y: observations.
        classes: whether there is a column of coefficients for each class.

    Raises:
        ValueError: says which shape does not fit which.
    """
    given = f"{function} was given y of shape {y.shape}, x of shape {x.shape} and w of shape {w.shape}, but "
    one_point = " It is written for one point; Shoal, or jax.vmap, brings the chains."
    if x.ndim != 2:
        raise ValueError(f"{given}x is [rows, columns]. Give one column as x[:, None].")
    if y.shape != x.shape[:1]:
        raise ValueError(f"{given}y has one entry for each of the {len(x)} rows of x.")
    if w.ndim != 1 + classes or w.shape[0] != x.shape[1]:
        wanted = f"[{x.shape[1]}, classes]" if classes else f"[{x.shape[1]}]"
        raise ValueError(f"{given}w has one coefficient for each column of x: {wanted}.{one_point}")
    if classes and w.shape[1] < 2:
        raise ValueError(f"{given}there are at least two classes, one column of w each.")


def check_one_of(function: str, name: str, value: Any, shapes: Sequence[tuple[int, ...]], words: str) -> None:
    """Refuse an array of another shape.

    Args:
        function: that was called.
        name: of its argument.
        value: an array.
        shapes: that are right.
        words: for what they mean.

    Raises:
        ValueError: it has none of these shapes.
    """
    if value.shape not in shapes:
        listed = " or ".join(map(str, shapes))
        raise ValueError(f"{function} was given {name} of shape {value.shape}, but it is {words}: shape {listed}.")


def inside(function: str, y: Array, high: float, words: str, dtype: Any) -> Float[Array, ""] | float:
    """What observations outside of the support add to the log probability: NaN, so that no run begins with them.

    Args:
        function: that was called.
        y: the observations, at least 0.
        high: the largest possible.
        words: for what is expected.
        dtype: of the log probability.

    Returns:
        0 or NaN.

    Raises:
        ValueError: the observations are known, no arguments of a compiled program, and some are outside.
    """
    if isinstance(y, Tracer):
        return jnp.where(jnp.all((y >= 0) & (y <= high)), 0, jnp.nan).astype(dtype)
    known = np.asarray(y)
    outside = ~((known >= 0) & (known <= high))
    if outside.any():
        first = int(np.argmax(outside))
        raise ValueError(
            f"{function} was given y[{first}] = {known[first]}, the first of {int(outside.sum())} outside of the "
            f"support, but {words}."
        )
    return 0.0
