"""What sampling needs of a model, without its data, and evaluating it at many points on the host."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np

from shoal.models.layout import Layout
from shoal.models.predictive import Predictive
from shoal.target import Target


@dataclass(frozen=True)
class Compiled:
    """What sampling needs of a model, compared by value; it holds no data.

    Attributes:
        layout: parameters on the unconstrained vector.
        log_density: `(position[dim], data) -> scalar`.
        constrain: `(position[dim], data) -> {name: value}`.
        unconstrain: `({name: value}, data) -> position[dim]`.
        deterministic: name and shape of what `constrain` gives beside the parameters.
        fixed_data: why the data cannot be swapped, in words; empty when they can.
        allow_nonfinite: whether data may hold NaN and infinity (behind a mask).
        parts: `(position[dim], data) -> {words: scalar}`, the terms whose sum the log density is; None where they are
            not known.
        maps: `(position[dim], data) -> {name: (constraint, map)}` of each parameter: NumPyro's constraint, and
            `map(free) -> (value, log|J|)` onto it; None where they are not known.
        predictive: how data are drawn given parameters; None where the model does not say.
    """

    layout: Layout
    log_density: Callable[..., Any]
    constrain: Callable[..., Any]
    unconstrain: Callable[..., Any]
    deterministic: tuple[tuple[str, tuple[int, ...]], ...] = ()
    fixed_data: str = ""
    allow_nonfinite: bool = False
    parts: Callable[..., dict[str, Any]] | None = None
    maps: Callable[..., dict[str, tuple[Any, Callable[..., Any]]]] | None = None
    predictive: Predictive | None = None


def in_precision(dtype: np.dtype, compute: Callable[[], Any]) -> Any:
    """Compute in single or double, and in single where a replayed model has been traced in it before.

    See `shoal.models.precision.shape_of`: a NumPyro model that closes over numpy arrays cannot be replayed in both.

    Args:
        dtype: float32 or float64.
        compute: what to do, in the precision that `current()` then says.

    Returns:
        What it returns.
    """
    with jax.enable_x64(dtype == np.float64):
        try:
            return compute()
        except (TypeError, ValueError):
            if dtype != np.float64:
                raise
    with jax.enable_x64(False):
        return compute()


@eqx.filter_jit
def constrained(target: Target, position: Any) -> dict[str, Any]:
    """Every quantity at many points.

    Args:
        target: of the model.
        position: `[points, dim]`.

    Returns:
        Name to `[points, *shape]`.
    """
    return target.constrained(position)


@eqx.filter_jit
def unconstrained(unconstrain: Callable[..., Any], values: Any, data: Any) -> Any:
    """The positions of many values.

    Args:
        unconstrain: for one point.
        values: name to `[points, *shape]`.
        data: of the target.

    Returns:
        `[points, dim]`.
    """
    return jax.vmap(unconstrain, in_axes=(0, None))(values, data)
