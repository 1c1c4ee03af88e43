"""A tuning from arrays by path: what a result holds and a store writes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.paths import by_path


def tuning_from_arrays(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """The inverse of `by_path`, in the structure and dtypes of `like`.

    Raises:
        ValueError: a field is missing, unknown or of another shape: the tuning is another sampler's or model's.
    """
    expected = by_path(like)
    if set(arrays) != set(expected):
        raise ValueError(
            f"tuning has the fields {', '.join(sorted(arrays))}; this sampler needs "
            f"{', '.join(sorted(expected))}. Pass the tuning of a run with the same sampler."
        )
    for name, array in expected.items():
        if np.shape(arrays[name]) != array.shape:
            raise ValueError(
                f"tuning field {name!r} has shape {np.shape(arrays[name])}; this model needs {array.shape}. "
                "Pass the tuning of a run on a model with the same parameters."
            )
        # Sizes and scales are positive; coefficients of a splitting have the signs that they begin with; directions
        # begin as zeros and have any.
        signed = array != 0
        given = np.asarray(arrays[name])
        if not np.isfinite(given).all() or not np.array_equal(np.sign(given)[signed], np.sign(array)[signed]):
            what = "positive" if np.all(array > 0) else f"of the signs of {array}"
            raise ValueError(f"tuning field {name!r} must be finite and {what}, got {arrays[name]}.")
    names = list(expected)
    leaves = [jnp.asarray(arrays[name], expected[name].dtype) for name in names]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
