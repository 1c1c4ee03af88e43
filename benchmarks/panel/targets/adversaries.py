r"""Laws with exact answers, each hard in one way.

- `funnel`, Neal's in ten dimensions: $v \sim N(0, 9)$, $x_i \sim N(0, e^v)$. The moments of $x$ exist but no
  number of draws estimates them, so $\arctan x$ stands for $x$.
- `axis_gaussian`: 100 independent coordinates, variances from $10^{-3}$ to $10^3$: condition number $10^6$.
- `correlated_gaussian`: a stationary autoregression of 100 times, $ρ = 0.999$, unit variances. No diagonal metric
  helps; the condition number is about $10^6$.
- `student_t2`, `cauchy`: ten independent coordinates with tails of 2 degrees of freedom and of 1. Their
  distribution functions stand for them, uniform on (0, 1).
- `bimodal`: $\frac23 N(4 e_1, I) + \frac13 N(-4 e_1, I)$ in ten dimensions: modes 8 standard deviations apart,
  from starts that reach both. Local moves do not cross; the right end is a finding, not an answer.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import roots_hermitenorm

from .base import Draws, Reference, Target
from .plain import LogDensity, labels, plain, vector

RHO, TIMES = 0.999, 100
SCALES = np.logspace(-1.5, 1.5, 100)


def funnel(z: Array) -> Array:
    v, x = z[0], z[1:]
    return -(v**2) / 18.0 - 0.5 * (x.shape[0] * v + jnp.exp(-v) * jnp.sum(x**2))


def axis_gaussian(z: Array) -> Array:
    return -0.5 * jnp.sum((z / jnp.asarray(SCALES, z.dtype)) ** 2)


def correlated_gaussian(z: Array) -> Array:
    innovations = z[1:] - RHO * z[:-1]
    return -0.5 * (z[0] ** 2 + jnp.sum(innovations**2) / (1.0 - RHO**2))


def student_t2(z: Array) -> Array:
    return -1.5 * jnp.sum(jnp.log1p(z**2 / 2.0))


def cauchy(z: Array) -> Array:
    return -jnp.sum(jnp.log1p(z**2))


def bimodal(z: Array) -> Array:
    rest = -0.5 * jnp.sum(z[1:] ** 2)
    return rest + jnp.logaddexp(jnp.log(2.0) - 0.5 * (z[0] - 4.0) ** 2, -0.5 * (z[0] + 4.0) ** 2)


def funnel_bounded(z: np.ndarray) -> np.ndarray:
    return np.concatenate([z[..., :1], np.arctan(z[..., 1:])], axis=-1)


def student_t2_uniform(z: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * z / np.sqrt(2.0 + z**2)


def cauchy_uniform(z: np.ndarray) -> np.ndarray:
    return 0.5 + np.arctan(z) / np.pi


def funnel_reference() -> Reference:
    r"""By Gauss and Hermite over $v$ and by the trapezoidal rule over $\log|x|$."""
    nodes, weights = roots_hermitenorm(200)
    u = np.linspace(-60.0, 8.0, 20_001)  # log |x / scale|
    density = 2.0 * np.exp(u - 0.5 * np.exp(2 * u)) / np.sqrt(2 * np.pi)
    bounded = np.arctan(np.exp(u[None] + 1.5 * nodes[:, None]))
    second, fourth = (
        weights @ (density * bounded**power).sum(axis=1) * (u[1] - u[0]) / weights.sum() for power in (2, 4)
    )
    names = ["v", *labels("arctan_x", (9,))]
    mean, sd = np.zeros(10), np.array([3.0, *[np.sqrt(second)] * 9])
    return Reference.exact(names, mean, sd, [9.0 * np.sqrt(2.0), *[np.sqrt(fourth - second**2)] * 9])


def gaussian_reference(sd: np.ndarray) -> Reference:
    return Reference.exact(labels("z", sd.shape), 0.0, sd, np.sqrt(2.0) * sd**2)


def uniform_reference() -> Reference:
    return Reference.exact(labels("cdf_z", (10,)), 0.5, np.sqrt(1 / 12), np.sqrt(4 / 45))


def bimodal_reference() -> Reference:
    mean, sd = np.array([4 / 3, *[0.0] * 9]), np.array([np.sqrt(1 + 16 * 8 / 9), *[1.0] * 9])
    fourth = 4.0**4 + 6 * 4.0**2 + 3  # of z_0, the same in both modes
    return Reference.exact(labels("z", (10,)), mean, sd, [np.sqrt(fourth - 17.0**2), *[np.sqrt(2.0)] * 9])


def _target(
    name: str,
    dim: int,
    log_density: LogDensity,
    refer: Callable[[], Reference],
    note: str,
    bounded: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Target:
    def measure(draws: Draws) -> np.ndarray:
        z = np.asarray(vector(draws), np.float64)
        return z if bounded is None else bounded(z)

    build = partial(plain, name, dim, log_density)
    return Target(name, dim, "adversary", build, refer, measure, bounded=bounded, note=note)


ADVERSARIES = (
    _target("funnel", 10, funnel, funnel_reference, "scales from e^-5 to e^5", funnel_bounded),
    _target("axis_gaussian", 100, axis_gaussian, partial(gaussian_reference, SCALES), "condition number 1e6, axes"),
    _target(
        "correlated_gaussian",
        TIMES,
        correlated_gaussian,
        partial(gaussian_reference, np.ones(TIMES)),
        "condition number 1e6, correlations",
    ),
    _target("student_t2", 10, student_t2, uniform_reference, "no variance", student_t2_uniform),
    _target("cauchy", 10, cauchy, uniform_reference, "no mean", cauchy_uniform),
    _target("bimodal", 10, bimodal, bimodal_reference, "modes 8 sd apart"),
)
