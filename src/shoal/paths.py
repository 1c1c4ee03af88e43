"""The leaves of a pytree by their paths, such as `metric.scale`, and back."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import PyTree


def by_path(tree: PyTree) -> dict[str, np.ndarray]:
    """The leaves, on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_path(path): np.asarray(leaf) for path, leaf in leaves}


def like(structure: PyTree, arrays: Mapping[str, np.ndarray]) -> PyTree:
    """The inverse of `by_path`.

    Args:
        structure: whatever its leaves are.
        arrays: by path.

    Raises:
        ValueError: the paths are not those of the structure.
    """
    paths, definition = jax.tree_util.tree_flatten_with_path(structure)
    names = [_path(path) for path, _ in paths]
    if set(names) != set(arrays):
        raise ValueError(
            f"There are arrays for {', '.join(arrays) or 'nothing'}; expected {', '.join(names) or 'none'}."
        )
    return jax.tree.unflatten(definition, [arrays[name] for name in names])


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
