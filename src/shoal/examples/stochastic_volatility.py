r"""Simulated returns whose log volatility is an autoregression, non-centred.

$$h_t - μ = φ (h_{t-1} - μ) + σ ε_t, \quad y_t ∼ N(0, e^{h_t / 2})$$

with $(φ + 1)/2 ∼ Beta(20, 1.5)$, $μ ∼ C(0, 5)$, $σ ∼ C^+(0, 2)$, and $h_1$ from the stationary law. What is
sampled is ε: the variant of the inference gym, with its priors, but on simulated data.

Reference: Kim, Shephard and Chib (1998), Review of Economic Studies 65, 361-393.
"""

# NumPyro types a sampled value as anything JAX can read, of which pyright can make no arithmetic.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

import operator

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array

from shoal.bridges.numpyro import from_numpyro
from shoal.models.model import Model


def autoregression(persistence: Array, shocks: Array) -> Array:
    """Solve x_t = persistence x_{t-1} + shock_t in log2(T) steps: after k, x_t holds the last 2^k shocks.

    Args:
        persistence: a scalar.
        shocks: `[times]`.

    Returns:
        As shocks.
    """
    values, power, lag = shocks, persistence, 1
    while lag < len(shocks):
        values = values + power * jnp.pad(values[:-lag], (lag, 0))
        power, lag = power * power, 2 * lag
    return values


def simulate(num_times: int, seed: int) -> np.ndarray:
    """Draw returns with φ = 0.95, μ = -1, σ = 0.25.

    Args:
        num_times: length of the series.
        seed: of the draw.

    Returns:
        `[num_times]`.
    """
    generator = np.random.default_rng(seed)
    level = np.empty(num_times)
    level[0] = generator.standard_normal() * 0.25 / np.sqrt(1 - 0.95**2)
    for time in range(1, num_times):
        level[time] = 0.95 * level[time - 1] + 0.25 * generator.standard_normal()
    return generator.standard_normal(num_times) * np.exp((level - 1) / 2)


def returns(y: np.ndarray) -> None:
    """The NumPyro model.

    Args:
        y: returns.
    """
    half = numpyro.sample("persistence_raw", dist.Beta(20.0, 1.5))
    persistence = numpyro.deterministic("persistence", 2 * half - 1)
    mean = numpyro.sample("mean", dist.Cauchy(0, 5))
    scale = numpyro.sample("scale", dist.HalfCauchy(2))
    with numpyro.plate("time", len(y)):
        noise = numpyro.sample("noise", dist.Normal(0, 1))
    # The first shock carries the stationary spread; 1 - φ² from the half, which is exact near φ = 1.
    shocks = scale * noise.at[0].divide(jnp.sqrt(4 * half * (1 - half)))
    level = mean + autoregression(persistence, shocks)
    with numpyro.plate("time", len(y)):
        numpyro.deterministic("log_volatility", level)
        numpyro.sample("y", dist.Normal(0, jnp.exp(level / 2)), obs=y)


def model(num_times: int = 500, seed: int = 0) -> Model:
    """The posterior.

    Args:
        num_times: length of the series.
        seed: of the simulated data.

    Returns:
        A model of num_times + 3 dimensions with the deterministic quantities `persistence` and
            `log_volatility`.

    Raises:
        ValueError: the length is no whole number of at least 2.
    """
    if not hasattr(num_times, "__index__") or operator.index(num_times) < 2:
        raise ValueError(f"num_times is {num_times!r}, but it must be a whole number of at least 2.")
    return from_numpyro(returns, simulate(num_times, seed), name="stochastic_volatility")
