r"""Effects of coaching in eight schools, non-centred: easy to sample.

$$μ ∼ N(0, 5), \quad τ ∼ C^+(0, 5), \quad \tilde θ_j ∼ N(0, 1)$$
$$θ_j = μ + τ \tilde θ_j, \quad y_j ∼ N(θ_j, σ_j)$$

Reference: Rubin (1981); Gelman et al., Bayesian Data Analysis, section 5.5.
"""

# NumPyro types a sampled value as anything JAX can read, of which pyright can make no arithmetic.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

import numpy as np
import numpyro
import numpyro.distributions as dist

from shoal.bridges.numpyro import from_numpyro
from shoal.models.model import Model

SCHOOLS = ["Choate", "Deerfield", "Phillips Andover", "Phillips Exeter", "Hotchkiss", "Lawrenceville"]
SCHOOLS += ["St. Paul's", "Mt. Hermon"]


def data() -> dict[str, np.ndarray]:
    """Estimated effects and their standard errors, in points of the test.

    Returns:
        `y` and `sigma`, eight each.
    """
    return {
        "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
        "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
    }


def effects(sigma: np.ndarray, y: np.ndarray | None = None) -> None:
    """The NumPyro model.

    Args:
        sigma: standard errors.
        y: estimated effects.
    """
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        raw = numpyro.sample("theta_raw", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * raw)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def model() -> Model:
    """The posterior.

    Returns:
        A model of 10 dimensions with the deterministic quantity `theta`.
    """
    return from_numpyro(effects, **data(), coords={"school": SCHOOLS}, name="eight_schools")
