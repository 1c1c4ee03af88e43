r"""The families: log probability of an observation given its predictor η, and its derivatives.

$$\begin{aligned}
\text{Bernoulli:}\quad & \ell = yη - \log(1 + e^η), & s &= (2y - 1) - \tanh(η/2), & c &= 1/2\\
\text{Poisson:}\quad & \ell = yη - e^η - \log y!, & s &= y - e^η, & c &= 1\\
\text{normal:}\quad & \ell = -(y - η)^2 / 2σ^2 - \log σ\sqrt{2π}, & s &= y - η, & c &= 1/σ^2\\
\text{categorical:}\quad & \ell = η_y - \log Σ_j e^{η_j}, & s_k &= [y = k] - e^{η_k} / Σ_j e^{η_j}, & c &= 1\\
\text{ordered:}\quad & \ell = \log(σ(a) - σ(b)), & s &= \tanh(a/2) + \tanh(b/2), & c &= 1/2
\end{aligned}$$

with $a = c_y - η$ and $b = c_{y-1} - η$ in the last, $c_{-1} = -∞$ and $c_{K-1} = ∞$.

The logistic function is spelled as tanh, one vectorised rational function, where exp and a division are a tenth slower
on a CPU. A score is then right to a unit in the last place of 1, not of itself.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Bool, Float, Int

from shoal.glm.fused import Extra, Family

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
Rows = Float[Array, " rows"]
Labels = Int[Array, " rows"]
# Exact selection by products: TF32 would round the cutpoints.
EXACT = jax.lax.Precision.HIGHEST


def softplus(u: Rows) -> Rows:
    """log(1 + exp(u)) without overflow. Never differentiated: a family states its derivatives."""
    return jnp.maximum(u, 0) + jnp.log1p(jnp.exp(-jnp.abs(u)))


def nothing(y: Array, eta: Array, extra: Extra) -> Extra:
    """There is nothing beside the predictor."""
    return ()


def whole(y: Labels, eta: Array, extra: Extra) -> Array:
    """Labels do not move."""
    raise AssertionError("labels are integers and have no tangent")


BERNOULLI = Family(
    value=lambda y, eta, _: jnp.sum(y * eta - softplus(eta)),
    score=lambda y, eta, _: ((2 * y - 1) - jnp.tanh(0.5 * eta), 0.5),
    by_y=lambda y, eta, _: eta,
    by_extra=nothing,
)

POISSON = Family(
    # The second sum is of the data alone: under vmap it has no axis of chains.
    value=lambda y, eta, _: jnp.sum(y * eta - jnp.exp(eta)) - jnp.sum(gammaln(y + 1)),
    score=lambda y, eta, _: (y - jnp.exp(eta), 1.0),
    by_y=lambda y, eta, _: eta - digamma(y + 1),
    by_extra=nothing,
)


def _normal_value(y: Rows, eta: Rows, extra: Extra) -> Float[Array, ""]:
    (scale,) = extra
    log_scale = jnp.sum(jnp.broadcast_to(jnp.log(scale), y.shape)) if scale.ndim else len(y) * jnp.log(scale)
    return -0.5 * jnp.sum(jnp.square((y - eta) / scale)) - log_scale - len(y) * HALF_LOG_TWO_PI


def _normal_score(y: Rows, eta: Rows, extra: Extra) -> tuple[Rows, Array | float]:
    (scale,) = extra
    weight = 1 / jnp.square(scale)
    return ((y - eta) * weight, 1.0) if scale.ndim else (y - eta, weight)


def _normal_by_y(y: Rows, eta: Rows, extra: Extra) -> Rows:
    score, factor = _normal_score(y, eta, extra)
    return -factor * score


def _normal_by_scale(y: Rows, eta: Rows, extra: Extra) -> Extra:
    (scale,) = extra
    squares = jnp.square((y - eta) / scale)
    return ((squares - 1) / scale if scale.ndim else (jnp.sum(squares) - len(y)) / scale,)


NORMAL = Family(_normal_value, _normal_score, _normal_by_y, _normal_by_scale)


def _is(y: Labels, classes: int) -> Bool[Array, "classes rows"]:
    return y[None] == jnp.arange(classes, dtype=y.dtype)[:, None]


def _categorical_value(y: Labels, eta: Float[Array, "classes rows"], _: Extra) -> Float[Array, ""]:
    # A gather of one class for each row and chain would not be vectorised.
    chosen = jnp.where(_is(y, len(eta)), eta, 0)
    return jnp.sum(chosen) - jnp.sum(jax.nn.logsumexp(eta, axis=0))


def _categorical_score(y: Labels, eta: Float[Array, "classes rows"], _: Extra) -> tuple[Array, float]:
    return _is(y, len(eta)).astype(eta.dtype) - jax.nn.softmax(eta, axis=0), 1.0


CATEGORICAL = Family(_categorical_value, _categorical_score, whole, nothing)


def _bounds(y: Labels, cutpoints: Float[Array, " cuts"], eta: Rows) -> tuple[Rows, Rows]:
    """The cutpoints above and below each row's class, as seen from η: a and b; infinite beyond the last ones."""
    above, below = _is(y, len(cutpoints)), _is(y - 1, len(cutpoints))
    chosen = lambda which: jnp.matmul(cutpoints, which.astype(cutpoints.dtype), precision=EXACT)
    top, bottom = jnp.where(y == len(cutpoints), jnp.inf, 0), jnp.where(y == 0, -jnp.inf, 0)
    return chosen(above) + top.astype(eta.dtype) - eta, chosen(below) + bottom.astype(eta.dtype) - eta


def _ordered_value(y: Labels, eta: Rows, extra: Extra) -> Float[Array, ""]:
    above, below = _bounds(y, extra[0], eta)
    return -jnp.sum(softplus(-above) + softplus(below))


def _ordered_score(y: Labels, eta: Rows, extra: Extra) -> tuple[Rows, float]:
    above, below = _bounds(y, extra[0], eta)
    return jnp.tanh(0.5 * above) + jnp.tanh(0.5 * below), 0.5


def _ordered_by_cutpoints(y: Labels, eta: Rows, extra: Extra) -> Extra:
    (cutpoints,) = extra
    above, below = _bounds(y, cutpoints, eta)
    of_cut = lambda row, which: jnp.matmul(row, which.T.astype(row.dtype))
    up = of_cut(1 - jnp.tanh(0.5 * above), _is(y, len(cutpoints)))
    down = of_cut(1 + jnp.tanh(0.5 * below), _is(y - 1, len(cutpoints)))
    return (0.5 * (up - down),)


# log(σ(a) - σ(b)) = log σ(a) + log σ(-b) + log(1 - exp(b - a)); the last term is `gaps`, which knows no row's η.
ORDERED = Family(_ordered_value, _ordered_score, whole, _ordered_by_cutpoints)


def gaps(y: Labels, cutpoints: Float[Array, " cuts"]) -> Float[Array, ""]:
    """What the distances between cutpoints add to the log probability of ordered classes.

    Args:
        y: classes.
        cutpoints: increasing.

    Returns:
        Σ log(1 - exp(c_{y-1} - c_y)) over the rows of inner classes.
    """
    inner = jnp.sum(_is(y, len(cutpoints))[1:], axis=1).astype(cutpoints.dtype)
    return jnp.sum(inner * jnp.log(-jnp.expm1(cutpoints[:-1] - cutpoints[1:])))
