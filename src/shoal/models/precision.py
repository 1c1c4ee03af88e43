"""Single or double: what JAX computes in at this moment, and tracing that leaves no trace of it."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def current() -> np.dtype:
    """The precision of JAX's floating-point numbers.

    Returns:
        float32, or float64 inside `jax.enable_x64(True)`.
    """
    return np.dtype(jax.dtypes.canonicalize_dtype(np.float64))


def shape_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """`jax.eval_shape` that leaves nothing behind.

    JAX keeps the trace of a function that lives on, and with it the single-precision form of every numpy
    array that the function closes over; the same function then fails in double (seen with 0.11.2 and
    0.12.0.1). The trace of a throwaway function goes with it.

    Args:
        function: what to trace.
        *arguments: shapes and types of its arguments.

    Returns:
        Shapes and types of its result.
    """
    return jax.eval_shape(lambda *given: function(*given), *arguments)
