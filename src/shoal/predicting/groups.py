"""What was drawn, and what was observed, as groups of ArviZ's schema."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from shoal.extras import require
from shoal.models.model import Model
from shoal.models.predictive import Predictive
from shoal.results.datatree import dataset, group

# Coordinates by name, each with the axis that it lies along.
type Coordinates = Mapping[str, tuple[str, np.ndarray]]


def generated(model: Model, draws: Mapping[str, np.ndarray], along: Coordinates, seed: int) -> Any:
    """Draws of generated quantities.

    Args:
        model: whose they are.
        draws: by name, `[chain, draw, *shape]`.
        along: coordinates along chains and draws.
        seed: that they were drawn with.

    Returns:
        An xarray.DataTree of one group.
    """
    return _node(draws, model.generated_dims, model.generated_coords, along, seed=seed)


def quantities(model: Model, draws: Mapping[str, np.ndarray], along: Coordinates, seed: int) -> Any:
    """The same of parameters and deterministic quantities."""
    return _node(draws, model.dims, model.coords, along, seed=seed)


def observed(model: Model, predictive: Predictive) -> Any:
    """What was observed of the generated quantities, in the precision that JAX computes in; None where nothing was."""
    values = predictive.observed(model.data)
    return _node(values, model.generated_dims, model.generated_coords, {}) if values else None


def _node(
    draws: Mapping[str, np.ndarray], dims: Mapping[str, Any], coords: Mapping[str, Any], along: Coordinates, **said: Any
) -> Any:
    xarray = require("xarray", "A DataTree", extra="store")
    return xarray.DataTree(dataset(group(draws, dims, coords, along)).assign_attrs(said))
