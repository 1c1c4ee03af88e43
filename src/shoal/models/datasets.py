"""The data of a model: read at the door as numpy arrays, checked, named, and cast when they are used."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

INT32 = np.iinfo(np.int32)
# Of what XLA reads in place, in bytes.
ALIGNMENT = 64
# Entries that are looked at together.
PART = 2**22


def read(data: Any) -> Any:
    """Turn every leaf of a pytree into a numpy array in its own precision.

    A list of numbers is one array. Tuples and mappings are structure.

    Args:
        data: a pytree of arrays, or None.

    Returns:
        The same structure over numpy arrays (bfloat16 becomes float32) that nobody can change: copies of what the
        caller can write to.

    Raises:
        ValueError: a leaf is a random key, text, an object, complex, or holds an integer beyond 32 bits.
    """
    return jax.tree_util.tree_map_with_path(_read_leaf, data, is_leaf=lambda node: isinstance(node, list))


def leaf_name(path: tuple[Any, ...]) -> str:
    """The words for one leaf: `data['x']`, or `data` itself.

    Args:
        path: as from `jax.tree_util`.

    Returns:
        The name.
    """
    return "data" + jax.tree_util.keystr(path)


def named_leaves(data: Any) -> list[tuple[str, np.ndarray]]:
    """Every leaf with its name.

    Args:
        data: as from `read`.

    Returns:
        Pairs of name and array.
    """
    return [(leaf_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(data)]


def check_finite(data: Any) -> None:
    """Refuse NaN and infinity.

    Args:
        data: as from `read`.

    Raises:
        ValueError: names the leaf and the first index.
    """
    for name, leaf in named_leaves(data):
        if leaf.dtype.kind == "f" and not _all_finite(leaf):
            bad = ~np.isfinite(leaf)
            index = tuple(int(i) for i in np.argwhere(bad)[0])
            where = f"{name}[{', '.join(map(str, index))}]" if index else name
            raise ValueError(
                f"{where} is {float(leaf[index])!r}, the first of {int(bad.sum())} entries of {name} that "
                "are not finite, but a log density of such data would be NaN at every point. Drop or impute "
                "these entries before the model sees them, or give them a finite filler and a mask as "
                "another leaf."
            )


def _all_finite(leaf: np.ndarray) -> bool:
    """Whether every entry is finite, looked at in parts: truth values of all would be a quarter of the data again."""
    flat = leaf.reshape(-1)
    return all(np.isfinite(flat[first : first + PART]).all() for first in range(0, flat.size, PART))


def check_rows(data: Any) -> int:
    """Refuse leaves that do not share their leading axis.

    Args:
        data: as from `read`.

    Returns:
        The length of the data axis.

    Raises:
        ValueError: names the leaves and their shapes.
    """
    leaves = named_leaves(data)
    shapes = ", ".join(f"{name} {leaf.shape}" for name, leaf in leaves)
    if not leaves or any(leaf.ndim == 0 for _, leaf in leaves):
        raise ValueError(
            "With log_likelihood(params, rows), every leaf of data has one row per observation, but the "
            f"shapes are: {shapes or 'no leaves at all'}. Give arrays that share their leading axis; put "
            "constants into the function itself, or use log_density(params, data), which takes data of any "
            "shape."
        )
    lengths = {leaf.shape[0] for _, leaf in leaves}
    if len(lengths) > 1 or lengths == {0}:
        raise ValueError(
            "The leaves of data must share their leading axis (the data axis) and have at least one row, but "
            f"their shapes are: {shapes}. Give every leaf one row per observation; data that are no rows "
            "belong into log_density(params, data), which takes any shapes."
        )
    return lengths.pop()


def first_rows(seen: Any, count: int) -> Any:
    """The shapes of so many rows.

    Args:
        seen: as from `structs`, of data whose leaves share their leading axis.
        count: of rows.
    """
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), seen)


def conform(old: Any, new: Any, giver: str = "with_data") -> Any:
    """Bring new data into the form of the old, so that the same program serves them.

    Args:
        old: as from `read`.
        new: as from `read`.
        giver: what they were given to, for messages.

    Returns:
        `new`, its whole numbers in the types of `old`; floats keep their precision.

    Raises:
        ValueError: structure or a shape differs, or a leaf cannot be converted without loss; names the leaf.
    """
    if jax.tree.structure(old) != jax.tree.structure(new):
        names = [", ".join(name for name, _ in named_leaves(data)) or "nothing" for data in (old, new)]
        raise ValueError(
            f"{giver} was given {names[1]}, but the model's data are {names[0]}. New data must have the "
            "same structure, so that the compiled program serves them; build a new shoal.Model for other "
            "data."
        )

    def conform_leaf(path: tuple[Any, ...], before: np.ndarray, after: np.ndarray) -> np.ndarray:
        if before.shape != after.shape or not np.can_cast(after.dtype, before.dtype, "same_kind"):
            raise ValueError(
                f"{giver} was given {leaf_name(path)} of shape {after.shape} and type {after.dtype}, but "
                f"the model has shape {before.shape} and type {before.dtype}. New data must have the same "
                "shapes and types, so that the compiled program serves them; build a new shoal.Model for "
                "data of another shape."
            )
        same = after.dtype == before.dtype or before.dtype.kind == after.dtype.kind == "f"
        return after if same else owned(after, before.dtype)

    return jax.tree_util.tree_map_with_path(conform_leaf, old, new)


def structs(data: Any, dtype: Any) -> Any:
    """Shapes and types that the log density will see.

    Args:
        data: as from `read`.
        dtype: float32 or float64.

    Returns:
        The structure over `jax.ShapeDtypeStruct`.
    """
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, _leaf_dtype(leaf, dtype)), data)


def cast(data: Any, dtype: Any) -> Any:
    """Device arrays with floats in the asked precision; integers and truth values keep their kind.

    Args:
        data: as from `read`.
        dtype: float32, or float64 inside `jax.enable_x64(True)`.

    Returns:
        The structure over JAX arrays.

    Raises:
        ValueError: a number is too large for float32.
    """
    # Also while something is traced: the arrays are kept for later calls.
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jax.device_put, on_host(data, dtype))


def on_host(data: Any, dtype: Any) -> Any:
    """The same as NumPy arrays that a device of the CPU can read in place.

    Args:
        data: as from `read`.
        dtype: as for `cast`.

    Returns:
        The structure over NumPy arrays that nobody can change.

    Raises:
        ValueError: as `cast`.
    """

    def leaf_on_host(path: tuple[Any, ...], leaf: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            values = owned(leaf, _leaf_dtype(leaf, dtype))
        narrower = leaf.dtype.kind == "f" and values.dtype.itemsize < leaf.dtype.itemsize
        if narrower and not _all_finite(values) and _all_finite(leaf):
            raise ValueError(
                f"{leaf_name(path)} holds {np.max(np.abs(leaf)):.3g}, but float32 ends at 3.4e38. Rescale "
                "this "
                'leaf, or sample in double: precision="float64".'
            )
        return values

    return jax.tree_util.tree_map_with_path(leaf_on_host, data)


def _leaf_dtype(leaf: np.ndarray, dtype: Any) -> np.dtype:
    if leaf.dtype.kind == "f":
        return np.dtype(dtype)
    return np.dtype(jax.dtypes.canonicalize_dtype(leaf.dtype))


def _read_leaf(path: tuple[Any, ...], leaf: Hashable) -> np.ndarray:
    name = leaf_name(path)
    expected = "but every leaf of data must be an array of numbers or truth values."
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"{name} is a random key, {expected} A log density is a fixed function: draw what is random "
            "beforehand and give the numbers as data."
        )
    try:
        values = np.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is a {type(leaf).__name__} that numpy cannot read ({error}), {expected}") from error
    if jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.kind != "f":
        values = values.astype(np.float32)
    if values.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} is a {type(leaf).__name__} of type {values.dtype}, {expected} Encode text and "
            "categories as integers, give ragged lists as padded arrays with a mask, and complex numbers as "
            "two real leaves."
        )
    if values.dtype.kind in "iu" and values.size and not (INT32.min <= values.min() <= values.max() <= INT32.max):
        raise ValueError(
            f"{name} holds integers from {values.min()} to {values.max()}, but integers beyond 32 bits would "
            "wrap around on a device. Subtract an offset, or give this leaf as floating-point numbers."
        )
    return owned(values)


class _Room(np.ndarray):
    """Memory that only a model has."""


def owned(values: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """An array that nobody can change, where a device of the CPU can read it.

    One that is so already is taken as it is: a model's own, and a file that is mapped into memory to be read.

    Args:
        values: any.
        dtype: that it is to have; by default its own.
    """
    dtype = values.dtype if dtype is None else np.dtype(dtype)
    if values.dtype == dtype and _is_ours(values) and values.flags.c_contiguous and not values.ctypes.data % ALIGNMENT:
        return values
    size = values.size * dtype.itemsize
    room = np.empty(size + ALIGNMENT, np.uint8).view(_Room)
    first = -room.ctypes.data % ALIGNMENT
    own = room[first : first + size].view(dtype).reshape(values.shape)
    own[...] = values
    own.flags.writeable = False
    return own.view(np.ndarray)


def _is_ours(values: np.ndarray) -> bool:
    """Whether nobody can write to it, not by the array that it is a view of either."""
    node: Any = values
    while isinstance(node, np.ndarray) and not node.flags.writeable:
        if isinstance(node, _Room) or (isinstance(node, np.memmap) and node.mode == "r"):
            return True
        node = node.base
    return False
