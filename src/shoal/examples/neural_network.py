r"""A Bayesian neural network: a smooth function of a few columns, by one layer of hidden units, on simulated data.

$$f(x) = \frac{2}{\sqrt{H}} \sum_{h=1}^{H} v_h \tanh\big(b_h + \sum_j x_j w_{jh}\big), \quad y_i ∼ N(f(x_i), σ)$$

with $w_{jh}, b_h, v_h ∼ N(0, 1)$ and $σ ∼ N^+(0, 1/2)$. Units may change places and signs without changing $f$, so what
means something is the function: `curve`, along the first column with the others at zero. Weights are two large arrays,
which several devices can share: `shoal.sample(model, mesh={"parameters": 8})`.

Reference: Neal (1996), Bayesian Learning for Neural Networks, Springer, whose networks of many units these are.
"""

import math
import operator
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from shoal.models.model import Model
from shoal.models.parameters import positive, real

# Where the curve is.
ALONG = np.linspace(-1.5, 1.5, 13)
SCALE, NOISE = 2.0, 0.3


def simulate(num_rows: int, num_columns: int, seed: int) -> dict[str, np.ndarray]:
    """Draw a data set: a wave along the first column, and a product of the first two where there are as many.

    Args:
        num_rows: observations.
        num_columns: covariates.
        seed: of the draw.

    Returns:
        `x` `[num_rows, num_columns]`, uniform on (-1.7, 1.7), and `y` `[num_rows]`, float32.
    """
    generator = np.random.default_rng(seed)
    x = generator.uniform(-math.sqrt(3), math.sqrt(3), (num_rows, num_columns))
    wave = np.sin(1.5 * x[:, 0]) + (0.5 * x[:, 0] * x[:, 1] if num_columns > 1 else 0.0)
    y = wave + NOISE * generator.standard_normal(num_rows)
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def network(params: Mapping[str, Array], x: Array) -> Array:
    """The function at some rows.

    Args:
        params: `w` `[columns, hidden]`, `b` `[hidden]` and `v` `[hidden]`.
        x: `[rows, columns]`.

    Returns:
        `[rows]`.
    """
    units = jnp.tanh(x @ params["w"] + params["b"])
    return SCALE / math.sqrt(params["v"].size) * (units @ params["v"])


def log_prior(params: Mapping[str, Array]) -> Array:
    """Of weights and noise."""
    weights = sum(jnp.sum(jnp.square(params[name])) for name in ("w", "b", "v"))
    return -0.5 * weights - 2 * jnp.square(params["noise"])


def log_likelihood(params: Mapping[str, Array], rows: Mapping[str, Array]) -> Array:
    """Of some rows."""
    residual = (rows["y"] - network(params, rows["x"])) / params["noise"]
    return -0.5 * jnp.sum(jnp.square(residual)) - rows["y"].size * jnp.log(params["noise"])


def curve(params: Mapping[str, Array]) -> dict[str, Array]:
    """The function along the first column."""
    weights = params["w"]
    x = jnp.zeros((len(ALONG), len(weights)), weights.dtype).at[:, 0].set(ALONG.astype(weights.dtype))
    return {"curve": network(params, x)}


def model(num_hidden: int = 64, num_rows: int = 200, num_columns: int = 4, seed: int = 0) -> Model:
    """The posterior.

    Args:
        num_hidden: hidden units.
        num_rows: observations.
        num_columns: covariates.
        seed: of the simulated data.

    Returns:
        A model of (num_columns + 2) num_hidden + 1 dimensions with the deterministic quantity `curve`.

    Raises:
        ValueError: a size is no whole number of at least 1.
    """
    for name, size in (("num_hidden", num_hidden), ("num_rows", num_rows), ("num_columns", num_columns)):
        if not hasattr(size, "__index__") or operator.index(size) < 1:
            raise ValueError(f"{name} is {size!r}, but it must be a whole number of at least 1.")
    return Model(
        params={
            "w": real((num_columns, num_hidden)),
            "b": real(num_hidden),
            "v": real(num_hidden),
            "noise": positive(),
        },
        log_prior=log_prior,
        log_likelihood=log_likelihood,
        data=simulate(num_rows, num_columns, seed),
        deterministic=curve,
        dims={"curve": ("along",)},
        coords={"along": ALONG.tolist()},
        name="neural_network",
    )
