"""Models of a log density on R^dim: one parameter, `z`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import shoal

from .base import Draws

LogDensity = Callable[[jax.Array], jax.Array]


def plain(name: str, dim: int, log_density: LogDensity) -> shoal.Model:
    """The model of a log density of one vector."""
    return shoal.Model(params={"z": shoal.real(dim)}, log_density=lambda params: log_density(params["z"]), name=name)


def flattened(values: Any) -> np.ndarray:
    """Every number of a mapping from names to arrays, `[chain, draw, quantity]`, in the mapping's order."""
    arrays = [np.asarray(value) for value in values.values()]
    return np.concatenate([array.reshape(*array.shape[:2], -1) for array in arrays], axis=-1)


def labels(name: str, shape: tuple[int, ...]) -> list[str]:
    """A label for every number of an array."""
    return [name + (f"[{', '.join(map(str, index))}]" if shape else "") for index in np.ndindex(shape)]


def vector(draws: Draws) -> np.ndarray:
    """The draws of `z`."""
    return np.asarray(draws["z"])
