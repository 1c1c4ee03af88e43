"""Names of axes and of single numbers: `beta[Texture]`, in ArviZ's style."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RESERVED = ("chain", "draw")


def axes(name: str, rank: int, dims: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The names of the axes of a variable, after chain and draw.

    Args:
        name: the variable.
        rank: how many axes it has, chain and draw not counted.
        dims: the names that the user gave, by variable.

    Returns:
        `rank` names: the user's where there are that many, ArviZ's `beta_dim_0` where there are not.
    """
    given = tuple(dims.get(name, ()))
    if len(given) != rank or len(set(given)) != rank or set(given) & set(RESERVED):
        return tuple(f"{name}_dim_{axis}" for axis in range(rank))
    return given


def labels(
    name: str, shape: tuple[int, ...], dims: Mapping[str, Sequence[str]], coords: Mapping[str, Any]
) -> list[str]:
    """One label for every number of a variable, in C order.

    Args:
        name: the variable.
        shape: its shape, chain and draw not counted.
        dims: the names of axes, by variable.
        coords: the names along an axis, by axis.

    Returns:
        `["tau"]` for a scalar, otherwise `["beta[Texture]", ...]`; numbers where there are no coordinates.
    """
    if not shape:
        return [name]
    ticks = []
    for axis, length in zip(axes(name, len(shape), dims), shape, strict=True):
        given = [str(tick) for tick in np.asarray(coords.get(axis, range(length))).ravel()]
        ticks.append(given if len(given) == length else [str(i) for i in range(length)])
    return [f"{name}[{', '.join(place)}]" for place in itertools.product(*ticks)]
