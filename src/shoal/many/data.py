"""Data sets of one model, read at the door: of one form, checked one by one, and stacked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from shoal.models import datasets
from shoal.models.model import Model


def read_many(model: Model, given: Any) -> tuple[Any, int]:
    """Data sets in the form of the model's own, along a leading axis.

    Args:
        model: whose data they replace.
        given: a sequence of data sets, or one pytree whose leaves have a leading axis of them. Where the model's data
            are a mapping, entries that are left out stay as they are in the model.

    Returns:
        A pytree of numpy arrays, leaves `[data sets, *shape]`, and how many data sets there are.

    Raises:
        ValueError: the model has no data to replace, there is no data set, or one is not like the model's own data;
            the message names the data set and the leaf.
    """
    reason = model.compiled.fixed_data or ("" if model.data is not None else "it was built without data=")
    if reason:
        raise ValueError(
            f"sample_many cannot change the data of the model '{model.name}': {reason}. Build a model whose data are "
            "arguments: shoal.Model(..., data=...), or arrays among the arguments of shoal.from_numpyro."
        )
    read = [_read(model, number, data) for number, data in enumerate(_each(model, given))]
    if not read:
        raise ValueError(
            "sample_many was given no data set. Give a sequence of data sets, each like the data of the model, or one "
            "pytree of them along a leading axis."
        )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *read), len(read)


def _each(model: Model, given: Any) -> Sequence[Any]:
    """The data sets one by one."""
    # A tuple is structure in the data of a model, and a list never is.
    if isinstance(given, list | Iterator) or (isinstance(given, tuple) and not isinstance(model.data, tuple)):
        return list(given)
    stacked = datasets.read(given)
    leaves = datasets.named_leaves(stacked)
    shapes = ", ".join(f"{name} {leaf.shape}" for name, leaf in leaves)
    lengths = {leaf.shape[0] if leaf.ndim else None for _, leaf in leaves}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "sample_many was given one pytree, whose leaves must have a leading axis of data sets, the same for all, "
            f"but the shapes are: {shapes or 'no leaves at all'}. Leave out what is the same for all data sets (if the "
            "model's data are a mapping), or give a list of data sets."
        )
    leaves, structure = jax.tree.flatten(stacked)
    return [jax.tree.unflatten(structure, parts) for parts in zip(*leaves, strict=True)]


def _read(model: Model, number: int, data: Any) -> Any:
    """One data set in the form of the model's own.

    Raises:
        ValueError: it has another form, or holds what is not finite; the message names it.
    """
    if isinstance(data, Mapping) and isinstance(model.data, Mapping):
        data = {name: data.get(name, own) for name, own in model.data.items()} | dict(data)
    try:
        read = datasets.conform(model.data, datasets.read(data), "sample_many")
        if not model.compiled.allow_nonfinite:
            datasets.check_finite(read)
    except ValueError as error:
        raise ValueError(f"datasets[{number}]: {error}") from None
    return read
