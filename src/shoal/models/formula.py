"""The user's functions as one log density on R^dim: a value that hashes, so equal models share a program.

Bound methods compare by the identity of their object, hence the small callable classes: two formulas built
from the same functions and equal parameters are equal, and so are the targets made of them.
"""

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.models.causes import cause
from shoal.models.layout import Layout, Slot
from shoal.models.parameters import Parameter
from shoal.models.precision import shape_of
from shoal.models.rows import RowSum
from shoal.target import Sharded

# What the supports add to the log density, among its parts.
LOG_DET = "log|J|"
# The term that is a sum over rows, by its argument of `Model`.
LIKELIHOOD = "log_likelihood"


@dataclass(frozen=True, eq=False)
class ByIdentity:
    """A callable that cannot be hashed by value (it holds arrays, say) and is compared by identity instead.

    Attributes:
        function: what is called.
    """

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self.function(*args)


@dataclass(frozen=True)
class Formula:
    """Parameters and the functions of them.

    Attributes:
        parameters: name and parameter, in order.
        terms: the functions whose sum is the log density on the supports.
        take_data: for each term, whether it is called with the data as second argument.
    """

    parameters: tuple[tuple[str, Parameter], ...]
    terms: tuple[Callable[..., Any], ...]
    take_data: tuple[bool, ...]

    @cached_property
    def layout(self) -> Layout:
        """The place of each parameter on the vector."""
        return Layout(tuple(Slot(name, item.shape, item.free_shape()) for name, item in self.parameters))

    def parts_at(self, position: Any, data: Any) -> tuple[Any, list[Any]]:
        """What the log density is the sum of, at one point.

        Args:
            position: `[dim]`.
            data: for the terms.

        Returns:
            log|J| of all parameters together, and the terms.
        """
        free = self.layout.split(position)
        values, log_det = {}, jnp.zeros((), position.dtype)
        for name, parameter in self.parameters:
            values[name], of_one = parameter.constrain_with_log_det(free[name])
            log_det = log_det + of_one
        calls = zip(self.terms, self.take_data, strict=True)
        made = [term(dict(values), data) if takes_data else term(dict(values)) for term, takes_data in calls]
        return log_det, [jnp.asarray(part, position.dtype) for part in made]

    def with_row_block(self, block: int) -> "Formula":
        """The same with at most so many rows at once where a term is a sum over rows."""
        terms = tuple(replace(term, block=block) if isinstance(term, RowSum) else term for term in self.terms)
        return replace(self, terms=terms)

    @property
    def labels(self) -> tuple[str, ...]:
        """The terms by the arguments of `Model` that they came by."""
        return ("log_prior", LIKELIHOOD) if len(self.terms) > 1 else ("log_density",)


@dataclass(frozen=True)
class LogDensity:
    """`(position[dim], data) -> scalar`: the sum of the terms and of log|J|.

    Attributes:
        formula: what to evaluate.
    """

    formula: Formula

    def __call__(self, position: Any, data: Any) -> Any:
        """Evaluate at one point."""
        total, parts = self.formula.parts_at(position, data)
        for part in parts:
            total = total + part
        return total


@dataclass(frozen=True)
class Constrain:
    """`(position[dim], data) -> {name: value}`: parameters on their supports, then what is computed from them.

    Attributes:
        formula: what to evaluate.
        deterministic: the user's function of the parameters, and of the data where it takes them.
        takes_data: whether it does.
    """

    formula: Formula
    deterministic: Callable[..., Any] | None = None
    takes_data: bool = False

    def __call__(self, position: Any, data: Any) -> dict[str, Any]:
        """Evaluate at one point."""
        free = self.formula.layout.split(position)
        values = {name: parameter.constrain(free[name]) for name, parameter in self.formula.parameters}
        if self.deterministic is None:
            return values
        if self.takes_data:
            made = self.deterministic(dict(values), data.whole() if isinstance(data, Sharded) else data)
        else:
            made = self.deterministic(dict(values))
        return values | {name: jnp.asarray(value) for name, value in made.items()}


@dataclass(frozen=True)
class Unconstrain:
    """`({name: value}, data) -> position[dim]`: the inverse of `Constrain`.

    Attributes:
        formula: what to evaluate.
    """

    formula: Formula

    def __call__(self, values: Mapping[str, Any], data: Any) -> Any:
        """Evaluate at one point."""
        free = {name: parameter.unconstrain(values[name]) for name, parameter in self.formula.parameters}
        return self.formula.layout.join(free)


@dataclass(frozen=True)
class Parts:
    """`(position[dim], data) -> {words: scalar}`: the terms of `LogDensity`, one by one.

    Attributes:
        formula: what to evaluate.
    """

    formula: Formula

    def __call__(self, position: Any, data: Any) -> dict[str, Any]:
        """Evaluate at one point."""
        log_det, parts = self.formula.parts_at(position, data)
        return dict(zip(self.formula.labels, parts, strict=True)) | {LOG_DET: log_det}


@dataclass(frozen=True)
class Maps:
    """`(position[dim], data) -> {name: (constraint, map)}`: how each parameter comes onto its support.

    Attributes:
        formula: what has the parameters.
    """

    formula: Formula

    def __call__(self, position: Any, data: Any) -> dict[str, tuple[Any, Callable[..., Any]]]:
        """The same at every point."""
        return {
            name: (parameter.support.constraint(), parameter.constrain_with_log_det)
            for name, parameter in self.formula.parameters
        }


def hashable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself when it hashes, else a stand-in that compares by identity.

    Args:
        function: any callable.

    Returns:
        A callable that hashes.
    """
    try:
        hash(function)
    except TypeError:
        return ByIdentity(function)
    return function if isinstance(function, Hashable) else ByIdentity(function)


def term_of(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the user's as a term of the log density, by its argument of `Model`."""
    return RowSum(hashable(function)) if label == LIKELIHOOD else hashable(function)


def accepts(function: Callable[..., Any], count: int) -> bool | None:
    """Whether a callable takes so many positional arguments.

    Args:
        function: any callable.
        count: of positional arguments.

    Returns:
        None when Python cannot tell (some built-in functions).
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def check_term(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Refuse a function that fails, or that returns no real scalar, by tracing it without computing.

    Args:
        name: the argument of `Model` that the function came by.
        function: the user's.
        arguments: shapes and types of what it is called with: params, and data.

    Raises:
        ValueError: names the function and the shapes it was called with.
    """
    called = f"{name}({', '.join(('params', 'rows' if name == 'log_likelihood' else 'data')[: len(arguments)])})"
    shapes = " and ".join(
        f"{word} {described(argument)}" for word, argument in zip(("params", "data"), arguments, strict=False)
    )
    try:
        result = shape_of(function, *arguments)
    except Exception as error:
        raise untraceable(called, shapes, error) from error
    if result is None:
        raise ValueError(f"{called} returned None, but a scalar was expected. Does it lack its return statement?")
    leaves = jax.tree.leaves(result)
    if len(leaves) != 1 or leaves[0] is not result:
        raise ValueError(
            f"{called} returned a {type(result).__name__} of {len(leaves)} arrays, but one scalar was "
            "expected: the sum of all log density terms, with jnp.sum(...)."
        )
    if result.shape != ():
        raise ValueError(
            f"{called} returned an array of shape {result.shape} when it was called with {shapes}, but a "
            "scalar was expected. Sum the terms with jnp.sum(...); the sampler calls the function for one "
            "point at a time."
        )
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(
            f"{called} returned type {result.dtype}, but a floating-point scalar was expected, since the "
            "sampler takes its gradient. Does it return a count, a comparison, or a complex number?"
        )


def structs(parameters: tuple[tuple[str, Parameter], ...], dtype: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of the values that the user's functions will see.

    Args:
        parameters: name and parameter.
        dtype: of the values.

    Returns:
        Name to shape and type.
    """
    return {name: jax.ShapeDtypeStruct(item.shape, np.dtype(dtype)) for name, item in parameters}


def untraceable(called: str, shapes: str, error: Exception) -> ValueError:
    """What to raise where a function of the user's cannot be traced.

    Args:
        called: the function and its arguments, as the user wrote them.
        shapes: of what it was called with, in words.
        error: what it raised.
    """
    return ValueError(
        f"{called} failed when it was traced with {shapes}: {cause(error)}. It must work on one point, "
        "with the shapes above, and use jax.numpy (no numpy, float(...), or if on values) for what "
        "depends on the parameters."
    )


def described(tree: Any) -> str:
    """Type and shape of every leaf, for messages."""
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype.name}{list(leaf.shape)}", tree)).replace("'", "")
