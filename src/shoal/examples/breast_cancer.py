r"""The founding posterior: sparse logistic regression on scikit-learn's breast cancer data.

$$τ ∼ Γ(1/2, 1/2), \quad λ_j ∼ Γ(1/2, 1/2), \quad β_j ∼ N(0, 1), \quad y_i ∼ Bernoulli(σ(x_i · (τ λ ⊙ β)))$$

with 30 columns, on the unconstrained vector $z = [\log τ, \log λ, β]$ of dimension 61.

Reference: the post "MCMC on accelerators"; the model is the sparse logistic regression of the inference gym.
"""

import math
from importlib.util import find_spec
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from shoal.examples.logistic import log_bernoulli
from shoal.extras import missing
from shoal.models.model import Model
from shoal.models.parameters import positive, real

# log density of Gamma(1/2, rate 1/2) is -log(x) / 2 - x / 2 + this; of N(0, 1), -x² / 2 + the same number.
_NORMALISER = -0.5 * math.log(2 * math.pi)
# What was measured of the nuclei of the cells in an image, and what of it a column holds.
NUCLEI = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
STATISTICS = ("mean", "error", "worst")


def gamma_half(x: Array) -> Array:
    """Log density of Gamma(1/2, rate 1/2), elementwise.

    Args:
        x: positive.

    Returns:
        As x.
    """
    return _NORMALISER - 0.5 * (jnp.log(x) + x)


def log_prior(params: dict[str, Array]) -> Array:
    """Log density of τ, λ and β.

    Args:
        params: `tau`, `lamb`, `beta`.

    Returns:
        A scalar.
    """
    tau, lamb, beta = params["tau"], params["lamb"], params["beta"]
    return gamma_half(tau) + jnp.sum(gamma_half(lamb)) + jnp.sum(_NORMALISER - 0.5 * beta * beta)


def log_likelihood(params: dict[str, Array], rows: dict[str, Array]) -> Array:
    """Log probability of the labels.

    Args:
        params: `tau`, `lamb`, `beta`.
        rows: `x` `[rows, columns]` and `y` `[rows]`, 0 or 1.

    Returns:
        A scalar, the sum over the rows.
    """
    logits = rows["x"] @ (params["tau"] * params["lamb"] * params["beta"])
    return log_bernoulli(rows["y"], logits)


def joint_log_prob(x: Array, y: Array, tau: Array, lamb: Array, beta: Array) -> Array:
    """The post's function: log density on the supports, without Jacobian.

    Args:
        x: `[rows, columns]`.
        y: `[rows]`.
        tau: scalar.
        lamb: `[columns]`, or one number for all, which then counts once in the prior.
        beta: `[columns]`.

    Returns:
        A scalar.
    """
    params = {"tau": jnp.asarray(tau), "lamb": jnp.asarray(lamb), "beta": beta}
    return log_prior(params) + log_likelihood(params, {"x": x, "y": y})


def data() -> dict[str, np.ndarray]:
    """The 569 × 30 table, standardised in double and kept in float32.

    Returns:
        `x` and `y`.
    """
    table = np.loadtxt(_file(), delimiter=",", skiprows=1)
    x, y = table[:, :-1], table[:, -1]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def _file() -> Path:
    """scikit-learn's copy of the table. Its loader gives the same, and takes four seconds to import."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise missing("sklearn", "the example breast_cancer", extra="examples")
    return Path(package.origin).parent / "datasets" / "data" / "breast_cancer.csv"


def feature_names() -> list[str]:
    """The columns, by the names that scikit-learn gives them.

    Returns:
        Thirty names.
    """
    return [f"{statistic} {of}" if statistic != "error" else f"{of} error" for statistic in STATISTICS for of in NUCLEI]


def model() -> Model:
    """The posterior.

    Returns:
        A model of 61 dimensions.
    """
    return Model(
        params={"tau": positive(), "lamb": positive(30), "beta": real(30)},
        log_prior=log_prior,
        log_likelihood=log_likelihood,
        data=data(),
        dims={"lamb": ("feature",), "beta": ("feature",)},
        coords={"feature": feature_names()},
        name="breast_cancer",
    )
