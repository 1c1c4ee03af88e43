r"""Effects of coaching in eight schools, centred: the classical funnel.

$$μ ∼ N(0, 5), \quad τ ∼ C^+(0, 5), \quad θ_j ∼ N(μ, τ), \quad y_j ∼ N(θ_j, σ_j)$$

The scale of θ shrinks with τ, so every fixed step size is too long in the neck: expect divergences, and
estimates of τ that are biased upwards. `eight_schools` is the same posterior in better coordinates.

Reference: Betancourt and Girolami (2013), arXiv:1312.0906.
"""

# NumPyro types a sampled value as anything JAX can read, of which pyright can make no arithmetic.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

import numpy as np
import numpyro
import numpyro.distributions as dist

from shoal.bridges.numpyro import from_numpyro
from shoal.examples.eight_schools import SCHOOLS, data
from shoal.models.model import Model


def effects(sigma: np.ndarray, y: np.ndarray | None = None) -> None:
    """The NumPyro model.

    Args:
        sigma: standard errors.
        y: estimated effects.
    """
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def model() -> Model:
    """The posterior.

    Returns:
        A model of 10 dimensions.
    """
    return from_numpyro(effects, **data(), coords={"school": SCHOOLS}, name="eight_schools_centered")
