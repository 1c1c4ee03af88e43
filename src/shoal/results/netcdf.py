"""A result as a file of NetCDF-4 in ArviZ's schema, written in blocks of draws.

xarray would read each variable whole, or need Dask. So the file is written by h5netcdf, and looks as xarray would have
written it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.extras import require
from shoal.results.datatree import Group, attributes, groups
from shoal.results.stored_draws import between, shape_of

if TYPE_CHECKING:
    from shoal.results.result import Result

# Of draws in memory at once: many files of a run on disk, so that few of them are read twice.
BLOCK_BYTES = 2**26


def write_netcdf(result: "Result", path: Path) -> None:
    """Write a result.

    Args:
        result: what to write; draws on disk are read block by block.
        path: the file, which is replaced.
    """
    purpose = "Exporting to NetCDF"
    h5py = require("h5py", purpose, extra="export")
    h5netcdf = require("h5netcdf", purpose, extra="export")
    with h5netcdf.File(path, "w") as file:
        file.attrs.update(attributes(result))
        for name, group in groups(result).items():
            _write(file.create_group(name), group, h5py.string_dtype())


def blocks(count: int, draw_bytes: int) -> Iterator[tuple[int, int]]:
    """The first draws of blocks that fit into memory, and the draws after their last ones."""
    size = max(1, BLOCK_BYTES // max(1, draw_bytes))
    for begin in range(0, count, size):
        yield begin, min(begin + size, count)


def _write(place: Any, group: Group, text: Any) -> None:
    place.attrs["inference_library"] = "shoal"
    # Which the name of no axis says.
    place.attrs["coordinates"] = " ".join(name for name, (axis, _) in group.coordinates.items() if name != axis)
    count = len(group.coordinates["draw"][1])
    place.dimensions = {axis: len(ticks) for name, (axis, ticks) in group.coordinates.items() if name == axis}
    for name, (axis, ticks) in group.coordinates.items():
        if ticks.dtype.kind not in "iufb":
            words = np.array([str(tick) for tick in ticks], object)
            place.create_variable(name, (axis,), text, data=words)
        else:
            _variable(place, name, (axis,), ticks.dtype)[...] = _stored(ticks)
    for own, (name, axes) in group.variables.items():
        first = between(group.draws, own, 0, 1)
        variable = _variable(place, name, axes, first.dtype)
        if own != name:
            variable.attrs["name"] = own
        if 0 in shape_of(group.draws, own):
            continue
        for begin, end in blocks(count, first.nbytes):
            variable[:, begin:end] = _stored(between(group.draws, own, begin, end))


def _variable(place: Any, name: str, axes: tuple[str, ...], dtype: np.dtype) -> Any:
    """A variable; truth values, which NetCDF has not, are declared as xarray declares them."""
    variable = place.create_variable(name, axes, np.dtype(np.int8) if dtype.kind == "b" else dtype)
    if dtype.kind == "b":
        variable.attrs["dtype"] = "bool"
    return variable


def _stored(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int8) if values.dtype.kind == "b" else values
