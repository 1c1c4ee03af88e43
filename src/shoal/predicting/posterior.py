"""The posterior predictive distribution, drawn at the draws of a run."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from shoal.arguments import check_count, check_seed
from shoal.models import datasets
from shoal.models.axes import check_reserved
from shoal.models.model import Model
from shoal.models.predictive import Predictive
from shoal.predicting.batches import POSTERIOR, Points, drawn
from shoal.predicting.groups import generated, observed
from shoal.request import DTYPES, check_model
from shoal.results.datatree import check_draws, coordinates, groups
from shoal.results.result import Result

if TYPE_CHECKING:
    import xarray


def posterior_predictive(
    model: Model, result: Result, *, seed: int = 0, num_samples: int | None = None
) -> "xarray.DataTree":
    """Data as the model would give them again, once for every draw of a run: for posterior predictive checks.

    A `shoal.Model` says how by `generated=`. In a NumPyro model every observed site is drawn given the latent ones, as
    by `numpyro.infer.Predictive`.

    What is drawn depends on the seed, the chain and the number of the draw alone: with `num_samples` it is some of what
    is drawn without. It is in memory, chains × draws × numbers in the data; some draws of each chain are enough for
    figures.

    Args:
        model: what was sampled.
        result: the run, in memory or loaded; all parameters must be among its draws.
        seed: of what is drawn.
        num_samples: draws of each chain, evenly spaced among those of the run; all of them when None.

    Returns:
        `result.to_datatree()` and two more groups. `posterior_predictive` has the numbers of its draws in the posterior
        as its coordinate `draw`. `observed_data` has the values of a NumPyro model's observed sites, or the entries of
        a `shoal.Model`'s data that are called as a generated quantity and have its shape.

    Raises:
        ValueError: the model does not say how data are drawn; the run keeps no draws, lacks parameters or is of another
            model; or an argument is out of its range.

    Example:
        `arviz.plot_ppc_dist(shoal.posterior_predictive(model, result, num_samples=10))`
    """
    check_model(model)
    predictive = _predictive(model)
    check_seed(seed)
    numbers = _numbers(result, num_samples)
    _check_parameters(model, result)
    tree, held = result.to_datatree(), groups(result)["posterior"].variables
    precision = result.settings.get("precision", "float32")
    dtype = np.dtype(DTYPES[precision])
    with jax.enable_x64(precision == "float64"):
        values = {name: tree["posterior"][held[name][0]].to_numpy() for name in model.parameter_names}
        values = {name: array.astype(dtype, copy=False) for name, array in values.items()}
        points = Points(result.num_chains, numbers, values)
        data = datasets.cast(model.data, dtype)
        made = drawn(predictive.draw, points, data, int(seed), POSTERIOR, f"Drawing data from the model '{model.name}'")
        seen = observed(model, predictive)
    tree["posterior_predictive"] = generated(model, made, coordinates(result, {"draw": numbers}), int(seed))
    if seen is not None:
        tree["observed_data"] = seen
    return tree


def _predictive(model: Model) -> Predictive:
    """How the model draws data.

    Raises:
        ValueError: it does not say.
    """
    predictive = model.compiled.predictive
    if predictive is None:
        raise ValueError(
            f"The model '{model.name}' does not say how data are drawn given its parameters: its log density tells how "
            "probable they are, and no more. Give shoal.Model(..., generated=f), where f(params, data, key), or "
            'f(params, key) without data, returns {"y": one draw}.'
        )
    if not predictive.names:
        raise ValueError(
            f"The NumPyro model '{model.name}' has no observed site, so that there is nothing to draw given its "
            "parameters. Give what was observed as numpyro.sample(..., obs=...)."
        )
    check_reserved(predictive.names)
    return predictive


def _numbers(result: Result, num_samples: int | None) -> np.ndarray:
    """Which draws of each chain.

    Raises:
        ValueError: there are none, or not so many.
    """
    if not isinstance(result, Result):
        raise ValueError(
            f"result: got {type(result).__name__}, expected a shoal.Result, of shoal.sample or shoal.load. Of many "
            "data sets take one, many[3], and the model with its data, model.with_data(...)."
        )
    check_draws(result)
    count = result.num_draws
    if not count:
        raise ValueError("The run has no draws yet, so there is nothing to draw data at: wait until it has some.")
    if num_samples is None:
        return np.arange(count)
    check_count("num_samples", num_samples, 1)
    if num_samples > count:
        raise ValueError(
            f"num_samples={num_samples}: the run has {count} draws of each chain, and data are drawn once for each. "
            "Ask for fewer, or leave num_samples out for all."
        )
    return np.arange(num_samples) * count // num_samples


def _check_parameters(model: Model, result: Result) -> None:
    """Refuse a run that has not all parameters.

    Raises:
        ValueError: it names those.
    """
    if missing := [name for name in model.parameter_names if name not in result.draws]:
        raise ValueError(
            f"The run has no draws of {', '.join(map(repr, missing))}, and data are drawn given all parameters of the "
            f"model '{model.name}'. Keep them when sampling (keep=), or give the model that was sampled."
        )
    for slot in model.layout.slots:
        if result.shape(slot.name) != slot.shape:
            raise ValueError(
                f"The run has {slot.name!r} in the shape {result.shape(slot.name)}, and the model '{model.name}' in "
                f"the shape {slot.shape}. Give the model that was sampled."
            )
