"""A result as an xarray.DataTree in ArviZ's schema."""

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.extras import require
from shoal.labels import axes
from shoal.results.json_text import to_json
from shoal.results.names import names_of_axes, plain_axes, plain_names
from shoal.results.stored_draws import shape_of

if TYPE_CHECKING:
    from shoal.results.result import Result


class Group(NamedTuple):
    """A group of ArviZ's schema, but for its draws.

    Attributes:
        draws: by variable, under the names that the model has.
        variables: by variable, its name without "/" and those of its axes, `chain` and `draw` first where it has them.
        coordinates: by name, the axis that it lies along and its values.
    """

    draws: Mapping[str, np.ndarray]
    variables: dict[str, tuple[str, tuple[str, ...]]]
    coordinates: dict[str, tuple[str, np.ndarray]]


def datatree(result: "Result") -> Any:
    """The groups `posterior` and `sample_stats`, and those of the warmup; `superchain` is a coordinate of `chain`.

    xarray takes no "/" in the name of a variable or an axis: `scope/x` is called `scope.x` here, or `scope_x` where
    the model has a `scope.x` already.

    Args:
        result: to convert; draws on disk are read.

    Returns:
        An xarray.DataTree, which ArviZ 1 reads.
    """
    xarray = require("xarray", "A DataTree", extra="store")
    tree = xarray.DataTree.from_dict({name: dataset(group) for name, group in groups(result).items()})
    tree.attrs.update(attributes(result))
    return tree


def groups(result: "Result") -> dict[str, Group]:
    """The groups by name; nothing is read from disk.

    Raises:
        ValueError: the run keeps no draws.
    """
    check_draws(result)
    draw = {"draw": np.arange(result.num_draws)}
    made = {"posterior": result.draws, "sample_stats": result.sample_stats}
    found = {name: _group(result, draws, draw) for name, draws in made.items()}
    if result.warmup_draws:
        count = len(result.warmup_coords["warmup_stage"])
        draw = {"draw": np.arange(count), **result.warmup_coords}
        made = {"warmup_posterior": result.warmup_draws, "warmup_sample_stats": result.warmup_sample_stats}
        found |= {name: _group(result, draws, draw) for name, draws in made.items()}
    return found


def check_draws(result: "Result") -> None:
    """Refuse a run that keeps no draws.

    Raises:
        ValueError: it is one.
    """
    if result.moments is not None:
        raise ValueError(
            f"The run keeps no draws (keep={result.settings.get('keep')!r}): result.summary() and result.moments say "
            "what is known of them. Sample without keep=, or with names, to have draws."
        )


def attributes(result: "Result") -> dict[str, Any]:
    """Of the whole: numbers and text."""
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


def group(
    draws: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
    along: Mapping[str, tuple[str, np.ndarray]],
) -> Group:
    """A group of ArviZ's schema.

    Args:
        draws: by variable, `[chain, draw, *shape]`, or `[*shape]` of what is not drawn.
        dims: the names of axes, by variable.
        coords: the names along an axis, by axis.
        along: coordinates by name, each with the axis it lies along, `chain` or `draw`; none where variables are not
            drawn.
    """
    ticks = dict(along)
    plain = plain_names((*names_of_axes(dims), *dims, *draws))
    first = ("chain", "draw") if along else ()
    variables = {}
    for name in draws:
        shape = shape_of(draws, name) if first else np.shape(draws[name])
        names = plain_axes(name, len(shape), dims, plain)
        variables[name] = (plain[name], (*first, *names))
        for own, axis, length in zip(axes(name, len(shape), dims), names, shape, strict=True):
            given = np.asarray(coords.get(own, ()))
            ticks[axis] = axis, given if given.shape == (length,) else np.arange(length)
    return Group(draws, variables, ticks)


def dataset(group: Group) -> Any:
    """A group as an xarray.Dataset; draws on disk are read."""
    xarray = require("xarray", "A DataTree", extra="store")
    variables = {plain: (names, group.draws[name]) for name, (plain, names) in group.variables.items()}
    return xarray.Dataset(variables, coords=group.coordinates, attrs={"inference_library": "shoal"})


def coordinates(result: "Result", along: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Coordinates along the chains of a result and, given, along draws."""
    return {
        "chain": ("chain", np.arange(result.num_chains)),
        **{name: ("draw", labels) for name, labels in along.items()},
        "superchain": ("chain", np.asarray(result.superchain)),
    }


def _group(result: "Result", draws: Mapping[str, np.ndarray], along: Mapping[str, np.ndarray]) -> Group:
    """A group of a result with these coordinates along its draws."""
    return group(draws, result.dims, result.coords, coordinates(result, along))
