"""A result as an xarray.DataTree in ArviZ's schema."""

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.extras import require
from shoal.labels import axes
from shoal.results.zarr_draws import to_json

if TYPE_CHECKING:
    from shoal.results.result import Result


def datatree(result: "Result") -> Any:
    """The groups `posterior` and `sample_stats`; `superchain` is a coordinate of `chain` in both.

    Args:
        result: to convert; draws on disk are read.

    Returns:
        An xarray.DataTree, which ArviZ 1 reads.
    """
    xarray = require("xarray", "A DataTree", extra="store")
    groups = {
        "posterior": _dataset(xarray, result, result.draws),
        "sample_stats": _dataset(xarray, result, result.sample_stats),
    }
    tree = xarray.DataTree.from_dict(groups)
    tree.attrs.update(_attributes(result))
    return tree


def _attributes(result: "Result") -> dict[str, Any]:
    return {
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "creation_library": "shoal",
        "inference_library": "shoal",
        "inference_library_version": result.versions.get("shoal", ""),
        "sampling_time": result.timing.sampling,
        "settings": to_json(result.settings),
        "versions": to_json(result.versions),
        "timing": to_json(result.timing._asdict()),
        "gradients": to_json(result.gradients._asdict()),
        "interrupted": int(result.interrupted),
    }


def _dataset(xarray: Any, result: "Result", values: Mapping[str, np.ndarray]) -> Any:
    ticks: dict[str, Any] = {
        "chain": np.arange(result.num_chains),
        "draw": np.arange(result.num_draws),
        "superchain": ("chain", np.asarray(result.superchain)),
    }
    variables = {}
    for name, array in values.items():
        names = axes(name, array.ndim - 2, result.dims)
        variables[name] = (("chain", "draw", *names), array)
        for axis, length in zip(names, array.shape[2:], strict=True):
            given = np.asarray(result.coords.get(axis, ()))
            ticks[axis] = given if given.shape == (length,) else np.arange(length)
    return xarray.Dataset(variables, coords=ticks, attrs={"inference_library": "shoal"})
