r"""Regression by a Gaussian process in one dimension, the function integrated out.

$$y ∼ N(0, K), \quad K_{ij} = a^2 e^{-(x_i - x_j)^2 / 2 ℓ^2} + s^2 δ_{ij}$$

with log-normal priors on amplitude a, length ℓ and noise s.

Reference: Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, section 5.4.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from shoal.models.model import Model
from shoal.models.parameters import positive

# Mean and standard deviation of the logarithm.
PRIORS = {"amplitude": (0.0, 1.0), "length": (0.0, 1.0), "noise": (-1.5, 1.0)}


def log_density(params: dict[str, Array], data: dict[str, Array]) -> Array:
    """Log prior plus log marginal likelihood.

    Args:
        params: `amplitude`, `length`, `noise`.
        data: `x` and `y`.

    Returns:
        A scalar.
    """
    x, y = data["x"], data["y"]
    distance = (x[:, None] - x[None, :]) / params["length"]
    kernel = params["amplitude"] ** 2 * jnp.exp(-0.5 * distance**2)
    # A part in a million of the variance keeps the factorisation stable in float32 where the noise vanishes.
    nugget = params["noise"] ** 2 + 1e-6 * params["amplitude"] ** 2
    factor = jnp.linalg.cholesky(kernel + nugget * jnp.eye(len(x), dtype=x.dtype))
    whitened = solve_triangular(factor, y, lower=True)
    likelihood = -0.5 * jnp.sum(whitened**2) - jnp.sum(jnp.log(jnp.diagonal(factor)))
    return likelihood - 0.5 * len(x) * math.log(2 * math.pi) + log_prior(params)


def log_prior(params: dict[str, Array]) -> Array:
    """Log density of the log-normal priors.

    Args:
        params: `amplitude`, `length`, `noise`.

    Returns:
        A scalar.
    """
    total = jnp.zeros_like(params["noise"])
    for name, (mean, sd) in PRIORS.items():
        log = jnp.log(params[name])
        total = total - log - 0.5 * ((log - mean) / sd) ** 2 - math.log(sd * math.sqrt(2 * math.pi))
    return total


def simulate(num_points: int, seed: int) -> dict[str, np.ndarray]:
    """Noisy values of a smooth function.

    Args:
        num_points: observations.
        seed: of the draw.

    Returns:
        `x` and `y`.
    """
    generator = np.random.default_rng(seed)
    x = np.linspace(-3, 3, num_points)
    return {"x": x, "y": np.sin(2 * x) + 0.3 * x + 0.25 * generator.standard_normal(num_points)}


def model(num_points: int = 30, seed: int = 0) -> Model:
    """The posterior.

    Args:
        num_points: observations.
        seed: of the simulated data.

    Returns:
        A model of 3 dimensions.
    """
    return Model(
        params={name: positive() for name in PRIORS},
        log_density=log_density,
        data=simulate(num_points, seed),
        name="gaussian_process",
    )
