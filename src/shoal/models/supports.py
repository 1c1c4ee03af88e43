"""Where a parameter may lie, as a value: supports compare and hash by what they say, and hold no arrays.

A support knows the bijection from unconstrained space and its log|J|; both are NumPyro's (`biject_to`),
imported when they are first needed. Equal supports give equal programs, so that a model built twice compiles
once.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Support:
    """A set of values and the bijection onto it.

    Attributes:
        name: the word users write: `"positive"`, `"interval"`, or NumPyro's name of a constraint.
        value: what makes two supports of the same name equal: bounds, or the fingerprint of a constraint.
        make: builds NumPyro's constraint; no part of the comparison.
    """

    name: str
    value: Hashable = ()
    make: Callable[[], Any] = field(compare=False, repr=False, kw_only=True)

    def constraint(self) -> Any:
        """NumPyro's constraint, built once."""
        return _constraint(self)

    def bijection(self, dtype: Any) -> Any:
        """NumPyro's transform from unconstrained space onto this support, with bounds in `dtype`."""
        return _bijection(self, np.dtype(dtype))

    @property
    def event_dim(self) -> int:
        """How many trailing axes one value of the support takes."""
        return int(self.constraint().event_dim)

    def __str__(self) -> str:
        return self.name if not self.value or self.name in ("custom",) else f"{self.name}{self.value}"


def named(name: str) -> Support:
    """A support without bounds, by NumPyro's name of it.

    Args:
        name: an attribute of `numpyro.distributions.constraints`, such as `"simplex"`.

    Returns:
        The support.
    """
    return Support(name, make=lambda: getattr(_numpyro_constraints(), name))


def bounded(low: float, high: float) -> Support:
    """The interval between two numbers.

    Args:
        low: lower end.
        high: upper end, above `low`.

    Returns:
        The support.
    """
    return Support("interval", (low, high), make=lambda: _numpyro_constraints().interval(low, high))


def from_constraint(constraint: Any) -> Support:
    """A support from one of NumPyro's constraints.

    Args:
        constraint: an object of `numpyro.distributions.constraints`.

    Returns:
        The support, equal to another one made from an equal constraint.
    """
    name = type(constraint).__name__.lstrip("_")
    # The fingerprint names the class too: constraints of different classes may hold the same numbers.
    return Support(name, fingerprint(constraint), make=lambda: constraint)


def fingerprint(value: Any) -> Hashable:
    """A hashable stand-in that is equal for equal constraints, whatever the precision of their numbers.

    Args:
        value: a constraint, or something that one holds.

    Returns:
        Nested tuples.
    """
    if isinstance(value, bool | int | float | str | type(None)):
        return value
    if isinstance(value, list | tuple):
        return tuple(fingerprint(item) for item in value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        numbers = np.asarray(value)
        return (numbers.shape, tuple(numbers.ravel().tolist()))
    if isinstance(value, _numpyro_constraints().Constraint):
        return (type(value), tuple(sorted((key, fingerprint(item)) for key, item in vars(value).items())))
    return value if isinstance(value, Hashable) else id(value)


def _distributions() -> Any:
    """NumPyro's module, by way of NumPyro itself.

    After `import arviz` NumPyro is there as a module that loads when it is first looked into. A look for one of its
    parts alone then has Python load that part twice, and the second is incomplete.
    """
    import numpyro

    return numpyro.distributions


def _numpyro_constraints() -> Any:
    return _distributions().constraints


@lru_cache(maxsize=512)
def _constraint(support: Support) -> Any:
    return support.make()


@lru_cache(maxsize=512)
def _bijection(support: Support, dtype: np.dtype) -> Any:
    # Bounds in the precision of the position: a Python number in log|J| would become float64 in x64 mode.
    def in_dtype(leaf: Any) -> Any:
        is_number = isinstance(leaf, bool | int | float | np.ndarray | np.generic | jax.Array)
        return np.asarray(leaf, dtype) if is_number else leaf

    constraint = support.constraint()
    if jax.tree.leaves(constraint):
        constraint = jax.tree.map(in_dtype, constraint)
    return _distributions().biject_to(constraint)
