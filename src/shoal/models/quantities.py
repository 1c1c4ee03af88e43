"""Named quantities that functions of the user's make of the parameters: checked at the door, without computing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.models.formula import described, untraceable
from shoal.models.precision import shape_of

# What may stand where an array is expected.
NUMBERS = jax.Array | np.ndarray | np.generic | bool | int | float


def key_struct() -> jax.ShapeDtypeStruct:
    """The type of the random keys that functions are given."""
    return jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))


def quantities_of(
    label: str,
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    taken: Sequence[str],
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Trace a function that returns named arrays.

    Args:
        label: the argument of `Model` that it came by.
        function: the user's.
        arguments: shapes and types of what it is called with, by the word for each.
        taken: names that the model has already.

    Returns:
        Name and shape of every array.

    Raises:
        ValueError: it fails, or returns no mapping from new names to arrays of real numbers; names the function.
    """
    called = f"{label}({', '.join(arguments)})"
    made: list[Any] = []
    shapes = " and ".join(f"{word} {described(tree)}" for word, tree in arguments.items() if word != "key")
    try:
        # What it returns is looked at as it is: JAX would refuse it in words of its own.
        shape_of(lambda *given: made.append(function(*given)), *arguments.values())
    except Exception as error:
        raise untraceable(called, shapes, error) from error
    values = made[0]
    if not isinstance(values, Mapping) or not values:
        what = "an array" if isinstance(values, jax.Array) else f"a {type(values).__name__}"
        what = "an empty mapping" if isinstance(values, Mapping) else what
        raise ValueError(
            f"{called} returned {what}, but a mapping from names to arrays was expected, such as "
            '{"total": params["a"] + params["b"]}.' + (" Does it lack its return statement?" if values is None else "")
        )
    for name, value in values.items():
        _check(called, name, value, taken)
    return tuple((name, tuple(jnp.shape(value))) for name, value in values.items())


def _check(called: str, name: Any, value: Any, taken: Sequence[str]) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"{called} returned a quantity called {name!r}, but names are non-empty strings.")
    if name in taken:
        raise ValueError(
            f"{called} returned a quantity called {name!r}, but the model has one of that name already: "
            f"{', '.join(taken)}. Choose another name."
        )
    if not isinstance(value, NUMBERS) or not _is_real(value):
        dtype = getattr(value, "dtype", None)
        what = f"a {type(value).__name__}" if dtype is None else f"of type {dtype}"
        raise ValueError(
            f"{called} returned {name!r} as something {what}, but an array of real numbers or truth values was "
            "expected. Make one with jax.numpy, such as jnp.stack([...]); what belongs apart gets a name of its own."
        )


def _is_real(value: Any) -> bool:
    dtype = getattr(value, "dtype", np.dtype(float))
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
