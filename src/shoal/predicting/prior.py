"""The prior predictive distribution: parameters from the prior, and data given these."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.arguments import check_count, check_seed
from shoal.extras import require
from shoal.models import datasets
from shoal.models.axes import check_reserved
from shoal.models.model import Model
from shoal.models.precision import current
from shoal.predicting.batches import PRIOR, Points, drawn
from shoal.predicting.groups import generated, observed, quantities
from shoal.request import check_model

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class _GivenNothing:
    """`({}, data, key) -> {name: value}`, compared by value as what it calls is."""

    prior: Callable[..., dict[str, Any]]

    def __call__(self, values: Any, data: Any, key: Any) -> dict[str, Any]:
        return self.prior(data, key)


def prior_predictive(model: Model, *, num_samples: int = 1000, seed: int = 0) -> "xarray.DataTree":
    """Parameters from the prior of a NumPyro model, and data given these: what the model says before it sees any.

    The law is that of `numpyro.infer.Predictive`: sites in their order, each given those before it. What
    `numpyro.factor` adds to the log density is no site, and has no part in it.

    Args:
        model: of `shoal.from_numpyro`.
        num_samples: draws, independent of each other.
        seed: of what is drawn.

    Returns:
        The groups `prior`, of parameters and deterministic quantities, `prior_predictive`, of observed sites, and
        `observed_data`; there is one chain.

    Raises:
        ValueError: the model is a log density, or has a site that cannot be drawn from; or an argument is out of its
            range.
    """
    check_model(model)
    predictive = model.compiled.predictive
    if predictive is None or predictive.prior is None:
        raise ValueError(
            f"The model '{model.name}' is a log density, which tells how probable parameters are, and cannot be drawn "
            "from. Write it as a NumPyro model for shoal.from_numpyro; or draw parameters by jax.random, and data "
            "given these by the function that is generated=."
        )
    check_reserved(predictive.names)
    check_count("num_samples", num_samples, 1)
    check_seed(seed)
    points, data = Points(1, np.arange(num_samples), {}), datasets.cast(model.data, current())
    draw = _GivenNothing(predictive.prior)
    made = drawn(draw, points, data, int(seed), PRIOR, f"Drawing from the prior of '{model.name}'")
    along = {"chain": ("chain", np.arange(1)), "draw": ("draw", points.numbers)}
    parts = {name: made.pop(name) for name in predictive.names}
    tree = require("xarray", "A DataTree", extra="store").DataTree()
    tree["prior"] = quantities(model, {name: made[name] for name in model.shapes}, along, int(seed))
    if parts:
        tree["prior_predictive"] = generated(model, parts, along, int(seed))
    if (seen := observed(model, predictive)) is not None:
        tree["observed_data"] = seen
    return tree
