"""A call taken apart: arrays that can be swapped, and everything else, compared by value."""

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Leaf = Callable[[Any], bool]


@dataclass(frozen=True)
class Constant:
    """A leaf that belongs to the program.

    Attributes:
        key: what makes two constants equal: type and value, or type, shape and bytes of an array.
        value: the leaf itself.
    """

    key: Hashable
    value: Any = field(compare=False)


@dataclass(frozen=True)
class Call:
    """The arguments of a function without their data: `join` puts the data back.

    Attributes:
        labels: of the positional arguments.
        keywords: names of the keyword arguments.
        treedef: structure of `{label: argument}`.
        constants: by leaf; None where the leaf is data.
    """

    labels: tuple[str, ...]
    keywords: tuple[str, ...]
    treedef: Any
    constants: tuple[Constant | None, ...]

    def join(self, data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call.

        Args:
            data: as from `take_apart`, or arrays or tracers in the same structure.

        Returns:
            Positional and keyword arguments.
        """
        found = iter(jax.tree.leaves(data))
        leaves = [next(found) if constant is None else constant.value for constant in self.constants]
        arguments = self.treedef.unflatten(leaves)
        return tuple(arguments[label] for label in self.labels), {name: arguments[name] for name in self.keywords}


def take_apart(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], is_data: Leaf
) -> tuple[Call, dict[str, Any]]:
    """Split the arguments of a call.

    Args:
        function: whose parameters name the positional arguments.
        args: positional arguments.
        kwargs: keyword arguments.
        is_data: whether a leaf is data.

    Returns:
        The call, and the data by argument: None where a constant was; arguments without data are left out.
    """
    labels = _labels(function, len(args), kwargs)
    # Sorted, as JAX keeps a dictionary: data then flatten in the order of the constants.
    arguments = dict(sorted((dict(zip(labels, args, strict=True)) | dict(kwargs)).items()))
    leaves, treedef = jax.tree.flatten(arguments)
    constants = tuple(None if is_data(leaf) else _constant(leaf) for leaf in leaves)
    marked = treedef.unflatten(
        [leaf if constant is None else None for leaf, constant in zip(leaves, constants, strict=True)]
    )
    data = {name: part for name, part in marked.items() if jax.tree.leaves(part)}
    return Call(labels, tuple(kwargs), treedef, constants), data


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of numbers with at least one axis.

    Args:
        leaf: of the arguments.

    Returns:
        The answer.
    """
    is_plain = isinstance(leaf, np.ndarray | jax.Array) and not _is_key(leaf)
    return is_plain and leaf.ndim > 0 and (leaf.dtype.kind in "fiub" or leaf.dtype.name == "bfloat16")


def is_float_array(leaf: Any) -> bool:
    """Whether a leaf is data even where the model computes with the values of its indices.

    Args:
        leaf: of the arguments.

    Returns:
        The answer.
    """
    return is_array(leaf) and leaf.dtype.kind not in "iub"


def narrowed(leaf: Any) -> Any:
    """Integers of numpy in 32 bits where they fit, the type that serves single and double precision alike.

    Args:
        leaf: of the arguments.

    Returns:
        The leaf, or a narrower copy.
    """
    if not (isinstance(leaf, np.ndarray) and leaf.dtype.kind in "iu" and leaf.dtype.itemsize == 8):
        return leaf
    limits = np.iinfo(np.int32)
    fits = leaf.size == 0 or (leaf.min() >= limits.min and leaf.max() <= limits.max)
    return leaf.astype(np.int32) if fits else leaf


def _labels(function: Callable[..., Any], count: int, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [item.name for item in parameters if item.kind in plain][:count]
    rest = next((item.name for item in parameters if item.kind is inspect.Parameter.VAR_POSITIONAL), "arg")
    names += [f"{rest}{index}" for index in range(count - len(names))]
    # A name may be taken: f(x, /, **others) can be called with another x.
    return tuple(f"{name}_" if name in kwargs else name for name in names)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def _constant(leaf: Any) -> Constant:
    if isinstance(leaf, np.ndarray | np.generic | jax.Array) and not _is_key(leaf):
        values = np.asarray(leaf)
        if values.dtype != object:
            return Constant((str(values.dtype), values.shape, values.tobytes()), leaf)
    try:
        hash(leaf)
    except TypeError:
        # Compared by identity; the constant keeps the object alive, so that the number stays its own.
        return Constant((type(leaf), id(leaf)), leaf)
    return Constant((type(leaf), leaf), leaf)
