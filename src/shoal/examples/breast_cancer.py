r"""The founding posterior: sparse logistic regression on scikit-learn's breast cancer data.

$$τ ∼ Γ(1/2, 1/2), \quad λ_j ∼ Γ(1/2, 1/2), \quad β_j ∼ N(0, 1), \quad y_i ∼ Bernoulli(σ(x_i · (τ λ ⊙ β)))$$

with 30 columns, on the unconstrained vector $z = [\log τ, \log λ, β]$ of dimension 61.

Reference: the post "MCMC on accelerators"; the model is the sparse logistic regression of the inference gym.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from shoal.examples.logistic import log_bernoulli
from shoal.extras import require
from shoal.models.model import Model
from shoal.models.parameters import positive, real

# log density of Gamma(1/2, rate 1/2) is -log(x) / 2 - x / 2 + this; of N(0, 1), -x² / 2 + the same number.
_NORMALISER = -0.5 * math.log(2 * math.pi)


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
    datasets = require("sklearn.datasets", "the example breast_cancer", extra="examples")
    preprocessing = require("sklearn.preprocessing", "the example breast_cancer", extra="examples")
    x, y = datasets.load_breast_cancer(return_X_y=True)
    x = preprocessing.StandardScaler().fit_transform(x)
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def feature_names() -> list[str]:
    """The columns, by name.

    Returns:
        Thirty names.
    """
    datasets = require("sklearn.datasets", "the example breast_cancer", extra="examples")
    return [str(name) for name in datasets.load_breast_cancer().feature_names]


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
