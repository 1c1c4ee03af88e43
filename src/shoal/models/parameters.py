"""What is unknown: shape and support of each parameter, as a user writes them.

A support $S$ comes with a bijection $f: R^k → S$ and $log|det ∂f/∂z|$. The log density of a model is
$log p(f(z)) + log|det ∂f/∂z|$: the Jacobian is added here, once, and never by the user.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.models.supports import Support, bounded, from_constraint, named

Shape = int | Sequence[int]

_WORDS = {
    "simplex": "a simplex needs a last axis of at least 2: simplex(3), or simplex((5, 3)) for five of them",
    "ordered_vector": "an ordered vector needs a last axis: ordered(3), or ordered((5, 3)) for five of them",
    "corr_cholesky": "a Cholesky factor of correlations is square, 2 × 2 or larger: cholesky_corr(3)",
}


@dataclass(frozen=True)
class Parameter:
    """One named unknown, compared by value.

    Attributes:
        shape: of the value on its support; `()` is one number.
        support: where the value lies.
    """

    shape: tuple[int, ...]
    support: Support

    def free_shape(self) -> tuple[int, ...]:
        """Shape in unconstrained space: a simplex of 3 has 2 free coordinates."""
        return tuple(self.support.bijection(np.float32).inverse_shape(self.shape))

    def constrain(self, free: jax.Array) -> jax.Array:
        """The value on the support.

        Args:
            free: unconstrained, of `free_shape()`.

        Returns:
            The value, in the precision of `free`.
        """
        # Some of NumPyro's transforms answer in float64 in x64 mode, whatever they are asked in.
        return self.support.bijection(free.dtype)(free).astype(free.dtype)

    def constrain_with_log_det(self, free: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The value on the support, and log|J| of the map, summed to one number.

        Args:
            free: unconstrained, of `free_shape()`.

        Returns:
            Both in the precision of `free`.
        """
        value = self.constrain(free)
        if self.support.name == "real":
            return value, jnp.zeros((), free.dtype)
        log_det = self.support.bijection(free.dtype).log_abs_det_jacobian(free, value)
        return value, jnp.sum(log_det).astype(free.dtype)

    def unconstrain(self, value: jax.Array) -> jax.Array:
        """The free coordinates of a value on the support.

        Args:
            value: of `shape`.

        Returns:
            Of `free_shape()`; not finite where the value is outside the support.
        """
        return self.support.bijection(value.dtype)._inverse(value).astype(value.dtype)

    def __str__(self) -> str:
        return f"{self.support}{list(self.shape) if self.shape else ''}"


def real(shape: Shape = ()) -> Parameter:
    """Any real numbers.

    Args:
        shape: a length, or a shape.

    Returns:
        The parameter.

    Examples:
        >>> real(3).shape
        (3,)
    """
    return Parameter(_shape("real", shape), named("real"))


def positive(shape: Shape = ()) -> Parameter:
    """Numbers above zero, through the logarithm.

    Args:
        shape: a length, or a shape.

    Returns:
        The parameter.
    """
    return Parameter(_shape("positive", shape), named("positive"))


def unit_interval(shape: Shape = ()) -> Parameter:
    """Numbers between 0 and 1, through the logit.

    Args:
        shape: a length, or a shape.

    Returns:
        The parameter.
    """
    return Parameter(_shape("unit_interval", shape), named("unit_interval"))


def interval(low: float, high: float, shape: Shape = ()) -> Parameter:
    """Numbers between two bounds, through a scaled logit.

    Args:
        low: lower end.
        high: upper end.
        shape: a length, or a shape.

    Returns:
        The parameter.

    Raises:
        ValueError: the bounds are not two finite numbers in order.
    """
    try:
        ends = float(low), float(high)
    except (TypeError, ValueError):
        ends = (math.nan, math.nan)
    if not (all(map(math.isfinite, ends)) and ends[0] < ends[1]):
        raise ValueError(
            f"interval({low!r}, {high!r}) was given, but the bounds must be two finite numbers, the lower "
            "one first. For a half line use positive(), or param(shape, "
            "support=constraints.greater_than(low)); for a bound per element param(shape, "
            "support=constraints.interval(lows, highs))."
        )
    return Parameter(_shape("interval", shape), bounded(*ends))


def simplex(shape: Shape) -> Parameter:
    """Probabilities that sum to one along the last axis, by stick breaking.

    Args:
        shape: how many, or a shape whose last axis is that.

    Returns:
        The parameter; `simplex(n)` has n - 1 free coordinates.
    """
    sizes = _shape("simplex", shape)
    return _event("simplex", sizes, valid=len(sizes) >= 1 and sizes[-1] >= 2)


def ordered(shape: Shape) -> Parameter:
    """Increasing numbers along the last axis.

    Args:
        shape: how many, or a shape whose last axis is that.

    Returns:
        The parameter.
    """
    sizes = _shape("ordered", shape)
    return _event("ordered_vector", sizes, valid=len(sizes) >= 1)


def cholesky_corr(shape: Shape) -> Parameter:
    """Lower Cholesky factors of correlation matrices.

    Args:
        shape: size n of the n × n matrix, or a shape that ends in (n, n).

    Returns:
        The parameter; `cholesky_corr(n)` has n (n - 1) / 2 free coordinates.
    """
    sizes = _shape("cholesky_corr", shape)
    if len(sizes) == 1:
        sizes = sizes * 2
    return _event("corr_cholesky", sizes, valid=len(sizes) >= 2 and sizes[-1] == sizes[-2] >= 2)


def param(shape: Shape = (), *, support: Any) -> Parameter:
    """A parameter on any support that NumPyro can reach from unconstrained space.

    Args:
        shape: a length, or a shape.
        support: one of `numpyro.distributions.constraints`.

    Returns:
        The parameter.

    Raises:
        ValueError: the support is no constraint, is discrete, depends on other values, or has no bijection.
    """
    from numpyro.distributions import constraints

    sizes = _shape("param", shape)
    if isinstance(support, Support):
        return Parameter(sizes, support)
    if not isinstance(support, constraints.Constraint) or constraints.is_dependent(support):
        raise ValueError(
            f"param(support=...) was given {_shown(support)}, but it takes one of NumPyro's constraints with "
            "all its bounds known, such as numpyro.distributions.constraints.greater_than(1.0). A support "
            "that depends on another parameter can be written as a NumPyro model and brought in by "
            "shoal.from_numpyro."
        )
    if support.is_discrete:
        raise ValueError(
            f"param(support={_shown(support)}) asks for an integer parameter, but gradient-based samplers "
            "move only continuous ones. Sum the discrete values out of the log density (for a mixture: "
            "logsumexp over the components), or use a continuous support such as shoal.positive() or "
            "shoal.interval(low, high)."
        )
    parameter = Parameter(sizes, from_constraint(support))
    _check_reachable(parameter, support)
    return parameter


def _check_reachable(parameter: Parameter, support: Any) -> None:
    if len(parameter.shape) < support.event_dim:
        raise ValueError(
            f"param({parameter.shape}, support={_shown(support)}) has {len(parameter.shape)} axes, but one "
            f"value of this support takes {support.event_dim}. Give the whole shape of the value on its "
            "support."
        )
    try:
        bijection = parameter.support.bijection(np.float32)
        free = jax.ShapeDtypeStruct(bijection.inverse_shape(parameter.shape), np.float32)
        value = jax.eval_shape(bijection, free)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"param({parameter.shape}, support={_shown(support)}) cannot be reached from unconstrained "
            f"space: NumPyro says {type(error).__name__}: {str(error) or 'no bijection is known'}. Use a "
            "support that numpyro.distributions.biject_to knows, and the shape of the value on it."
        ) from error
    if value.shape != parameter.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"param({parameter.shape}, support={_shown(support)}) leads to values of shape {value.shape} and "
            f"type {value.dtype}, but real values of the shape given were expected. Bounds given as arrays "
            "must broadcast to that shape."
        )


def _shown(support: Any) -> str:
    return " ".join(repr(support).split())


def _event(name: str, sizes: tuple[int, ...], *, valid: bool) -> Parameter:
    if not valid:
        raise ValueError(f"The shape {sizes} was given, but {_WORDS[name]}.")
    return Parameter(sizes, named(name))


def _shape(function: str, shape: Any) -> tuple[int, ...]:
    entries: tuple[Any, ...] = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else (shape,)
    try:
        if any(isinstance(entry, bool) for entry in entries):
            raise TypeError("a truth value")
        sizes = tuple(operator.index(entry) for entry in entries)
    except TypeError:
        sizes = (-1,)
    if any(size < 1 for size in sizes):
        raise ValueError(
            f"{function}(...) was given the shape {shape!r}, but a shape is a whole number of at least 1, or "
            f"a tuple of such numbers: {function}(...) of shape 30 or (10, 3), say; () is one number."
        )
    return sizes
