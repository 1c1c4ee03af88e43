"""A result as an xarray.DataTree in ArviZ's schema."""

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.extras import require
from shoal.labels import axes
from shoal.results.json_text import to_json
from shoal.results.names import names_of_axes, plain_axes, plain_names

if TYPE_CHECKING:
    from shoal.results.result import Result


def datatree(result: "Result") -> Any:
    """The groups `posterior` and `sample_stats`; `superchain` is a coordinate of `chain` in both.

    xarray takes no "/" in the name of a variable or an axis: `scope/x` is called `scope.x` here, or `scope_x` where
    the model has a `scope.x` already.

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
    plain = plain_names((*names_of_axes(result.dims), *result.dims, *values))
    variables = {}
    for name, array in values.items():
        rank = array.ndim - 2
        names = plain_axes(name, rank, result.dims, plain)
        variables[plain[name]] = (("chain", "draw", *names), array)
        for own, axis, length in zip(axes(name, rank, result.dims), names, array.shape[2:], strict=True):
            given = np.asarray(result.coords.get(own, ()))
            ticks[axis] = given if given.shape == (length,) else np.arange(length)
    return xarray.Dataset(variables, coords=ticks, attrs={"inference_library": "shoal"})
