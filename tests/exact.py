"""Targets from which exact draws can be had, with functions whose expectation is known."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import shoal
from shoal.target import Target


class Exact(NamedTuple):
    """A target, exact draws `[n, dim]` of it, and functions of a draw with their expectations."""

    target: Callable[[type], Target]
    draw: Callable[[np.random.Generator, int], np.ndarray]
    functions: dict[str, tuple[Callable, np.ndarray | float]]


def nothing(position, data):
    return {}


EULER = 0.5772156649015329


def gumbel_log_density(x, data):
    return jnp.sum(x - jnp.exp(x))


SKEWED = Exact(
    # x = log of an exponential variate: -x is Gumbel.
    target=lambda dtype: Target(gumbel_log_density, nothing, None, 4),
    draw=lambda rng, n: np.log(rng.exponential(size=(n, 4))),
    functions={
        "x": (lambda x: x, -EULER),
        "x squared": (lambda x: x**2, np.pi**2 / 6 + EULER**2),
        "exp x": (np.exp, 1.0),
        "neighbours": (lambda x: x * np.roll(x, 1, axis=-1), EULER**2),
    },
)

CORRELATION = 0.9 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
FACTOR = np.linalg.cholesky(CORRELATION)


def gaussian_log_density(x, precision):
    return -0.5 * x @ precision @ x


CORRELATED = Exact(
    target=lambda dtype: Target(gaussian_log_density, nothing, jnp.asarray(np.linalg.inv(CORRELATION), dtype), 5),
    draw=lambda rng, n: rng.normal(size=(n, 5)) @ FACTOR.T,
    functions={
        "x": (lambda x: x, 0.0),
        "products": (lambda x: x[..., :, None] * x[..., None, :], CORRELATION),
        "positive": (lambda x: x > 0.0, 0.5),
        "radius squared": (lambda x: np.einsum("...i,ij,...j", x, np.linalg.inv(CORRELATION), x), 5.0),
    },
)


def student_log_density(x, data):
    return -1.5 * jnp.sum(jnp.log1p(0.5 * x**2))  # 2 degrees of freedom: no variance


def student_cdf(x):
    return 0.5 + x / (2.0 * np.sqrt(2.0 + x**2))


HEAVY_TAILED = Exact(
    target=lambda dtype: Target(student_log_density, nothing, None, 3),
    draw=lambda rng, n: rng.standard_t(2, size=(n, 3)),
    # Bounded functions: the distribution function is uniform, so its powers have known means.
    functions={
        "u": (student_cdf, 1 / 2),
        "u squared": (lambda x: student_cdf(x) ** 2, 1 / 3),
        "tail": (lambda x: np.abs(student_cdf(x) - 0.5) > 0.49, 0.02),
        "centre": (lambda x: np.abs(student_cdf(x) - 0.5) < 0.1, 0.2),
    },
)


def gamma_dirichlet_log_prior(params):
    g, w = params["rate"], params["share"]
    return jnp.sum(2.0 * jnp.log(g) - 2.0 * g) + jnp.sum(jnp.asarray([1.0, 2.0, 3.0], w.dtype) * jnp.log(w))


CONSTRAINED_MODEL = shoal.Model(
    params={"rate": shoal.positive(2), "share": shoal.simplex(3)}, log_density=gamma_dirichlet_log_prior
)


def draw_constrained(rng, n):
    values = {"rate": rng.gamma(3.0, 0.5, size=(n, 2)), "share": rng.dirichlet([2.0, 3.0, 4.0], size=n)}
    return np.asarray(CONSTRAINED_MODEL.unconstrain(values))


def constrained(x):
    return CONSTRAINED_MODEL.constrain(x)


CONSTRAINED = Exact(
    # rate ~ Gamma(3, rate 2), share ~ Dirichlet(2, 3, 4)
    target=lambda dtype: CONSTRAINED_MODEL.target(dtype),
    draw=draw_constrained,
    functions={
        "rate": (lambda x: np.asarray(constrained(x)["rate"]), 1.5),
        "log rate": (lambda x: np.log(constrained(x)["rate"]), 0.9227843350984671 - np.log(2.0)),
        "rate squared": (lambda x: np.asarray(constrained(x)["rate"]) ** 2, 3.0),
        "share": (lambda x: np.asarray(constrained(x)["share"]), np.array([2.0, 3.0, 4.0]) / 9.0),
    },
)

EXACT = {
    "skewed": SKEWED,
    "correlated": CORRELATED,
    "heavy-tailed": HEAVY_TAILED,
    "constrained": CONSTRAINED,
}


def worst_z(exact: Exact, x: np.ndarray) -> tuple[float, str, int]:
    """The largest |z| of a function's mean over independent draws `[n, dim]`; its name; how many were looked at."""
    worst, where, count = 0.0, "", 0
    for name, (function, expected) in exact.functions.items():
        values = np.asarray(function(x), np.float64)
        z = np.abs(values.mean(0) - expected) / (values.std(0, ddof=1) / np.sqrt(len(values)))
        count += z.size
        if not z.max() <= worst:  # NaN is the worst
            worst, where = float(z.max()), name
    return worst, where, count


def with_x64(dtype: type):
    return jax.enable_x64(dtype is np.float64)
