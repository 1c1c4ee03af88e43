"""Coordinates in the groups of a Zarr store: along chains, along draws, along the axes of the model."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from shoal.results.draws import Header
from shoal.results.missing import storage

# Coordinates by name, along the draws from one number to before another.
type Labels = Callable[[int, int], Mapping[str, np.ndarray]]


def unlabelled(begin: int, end: int) -> Mapping[str, np.ndarray]:
    """Draws whose number says all."""
    return {}


def write_coordinates(
    group: Any, header: Header, numbers: np.ndarray, labels: Labels, plain: Mapping[str, str]
) -> None:
    """Write those of a new group; the labels of draws as missing.

    Args:
        group: of the store.
        header: what is known about the run.
        numbers: of the draws that the group has room for.
        labels: of its draws.
        plain: of all names, as arrays have them.
    """
    _write(group, "chain", "chain", np.arange(header.num_chains), plain)
    _write(group, "draw", "draw", numbers, plain)
    _write(group, "superchain", "chain", np.asarray(header.superchain), plain)
    for name, ticks in labels(0, 0).items():
        dtype, fill, attributes = (str, "", {}) if _is_text(ticks) else storage(ticks.dtype)
        group.create_array(
            name,
            shape=numbers.shape,
            dtype=dtype,
            fill_value=fill,
            compressors=None,
            dimension_names=("draw",),
            attributes=attributes,
        )
    group.attrs["coordinates"] = " ".join(("superchain", *labels(0, 0)))
    if group.name.endswith("posterior"):
        for axis, ticks in header.coords.items():
            _write(group, axis, axis, np.asarray(ticks), plain)


def write_labels(group: Any, labels: Labels, begin: int, end: int) -> None:
    """Write those of the draws from one number to before another."""
    for name, ticks in labels(begin, end).items():
        group[name][begin:end] = _stored(ticks)


def _write(group: Any, name: str, axis: str, ticks: np.ndarray, plain: Mapping[str, str]) -> None:
    ticks = _stored(ticks)
    array = group.create_array(
        plain[name],
        shape=ticks.shape,
        dtype=str if _is_text(ticks) else ticks.dtype,
        dimension_names=(plain[axis],),
        compressors=None,
        attributes=own_name(name, plain),
    )
    if ticks.size:
        array[...] = ticks


def own_name(name: str, plain: Mapping[str, str]) -> dict[str, Any]:
    """The attribute that tells the name of an array whose plain name is another."""
    return {} if plain[name] == name else {"name": name}


def _is_text(ticks: np.ndarray) -> bool:
    return ticks.dtype.kind not in "iufb"


def _stored(ticks: np.ndarray) -> np.ndarray:
    return np.array([str(tick) for tick in ticks], dtype=np.dtypes.StringDType()) if _is_text(ticks) else ticks
