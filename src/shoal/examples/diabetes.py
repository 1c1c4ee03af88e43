r"""Progression of diabetes in 442 patients: a regression whose intercepts vary by age group.

$$α_g = α + s_α \tilde α_g, \quad β_j = s_β \tilde β_j, \quad y_i ∼ N(α_{g(i)} + x_i · β, σ)$$

with ten groups of age, nine standardised columns (sex, body mass index, blood pressure, six serum
measurements), and the standardised measure of progression after one year. Three of the serum measurements
nearly determine one another.

Reference: the data of Efron et al. (2004), Least angle regression, as scikit-learn ships them.
"""

# NumPyro types a sampled value as anything JAX can read, of which pyright can make no arithmetic.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# pyright: reportIndexIssue=false, reportCallIssue=false

from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist

from shoal.bridges.numpyro import from_numpyro
from shoal.extras import require
from shoal.models.model import Model

NUM_GROUPS = 10


def table() -> dict[str, Any]:
    """The data, standardised.

    Returns:
        `x` `[442, 9]`, `group` `[442]` from 0 to 9, `y` `[442]`, and the labels `feature` and `age`.
    """
    datasets = require("sklearn.datasets", "the example diabetes", extra="examples")
    raw = datasets.load_diabetes(scaled=False)
    age, x, y = raw.data[:, 0], raw.data[:, 1:], raw.target
    edges = np.quantile(age, np.linspace(0, 1, NUM_GROUPS + 1))
    group = np.clip(np.searchsorted(edges, age, side="right") - 1, 0, NUM_GROUPS - 1)
    spans = [(age[group == index].min(), age[group == index].max()) for index in range(NUM_GROUPS)]
    return {
        "x": (x - x.mean(0)) / x.std(0),
        "group": group.astype(np.int32),
        "y": (y - y.mean()) / y.std(),
        "feature": [str(name) for name in raw.feature_names[1:]],
        "age": [f"{low:.0f}-{high:.0f}" for low, high in spans],
    }


def progression(x: np.ndarray, group: np.ndarray, y: np.ndarray | None = None) -> None:
    """The NumPyro model.

    Args:
        x: standardised columns.
        group: of age, by patient.
        y: standardised progression.
    """
    center = numpyro.sample("intercept_mean", dist.Normal(0, 1))
    spread = numpyro.sample("intercept_sd", dist.HalfNormal(0.5))
    shrinkage = numpyro.sample("slope_sd", dist.HalfNormal(0.5))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    with numpyro.plate("age", NUM_GROUPS):
        raw = numpyro.sample("intercept_raw", dist.Normal(0, 1))
        intercept = numpyro.deterministic("intercept", center + spread * raw)
    with numpyro.plate("feature", x.shape[1]):
        raw = numpyro.sample("slope_raw", dist.Normal(0, 1))
        slope = numpyro.deterministic("slope", shrinkage * raw)
    with numpyro.plate("patient", x.shape[0]):
        numpyro.sample("y", dist.Normal(intercept[group] + x @ slope, noise), obs=y)


def model() -> Model:
    """The posterior.

    Returns:
        A model of 23 dimensions with the deterministic quantities `intercept` and `slope`.
    """
    columns = table()
    labels = {"feature": columns["feature"], "age": columns["age"]}
    return from_numpyro(progression, columns["x"], columns["group"], y=columns["y"], coords=labels, name="diabetes")
