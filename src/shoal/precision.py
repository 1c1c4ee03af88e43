"""Single or double: what JAX computes in at this moment, and staying there."""

from contextlib import AbstractContextManager

import jax
import numpy as np


def current() -> np.dtype:
    """The precision of JAX's floating-point numbers.

    Returns:
        float32, or float64 inside `jax.enable_x64(True)`.
    """
    return np.dtype(jax.dtypes.canonicalize_dtype(np.float64))


def pinned() -> AbstractContextManager[None]:
    """State the precision that holds anyway, around every trace of a user's function.

    A numpy array of 64-bit integers that a function closes over and indexes with fails inside
    `enable_x64(True)` when the function was traced before outside any such context, but not when it was
    inside `enable_x64(False)` (JAX 0.12.0.1).

    Returns:
        A context manager.
    """
    return jax.enable_x64(current() == np.float64)
