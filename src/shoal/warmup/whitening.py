r"""Metrics from draws and gradients of many chains, and what a metric makes of a target.

Four families: the standard deviations $s_i$; the Fisher diagonal $\sqrt{s_i / \mathrm{sd}(g_i)}$; and each of the two
with eigendirections on top, of the covariance of the scaled draws for the first, and for the second of the geometric
mean of that covariance and the inverse covariance of the scaled gradients, which is exact for a Gaussian target
however the draws are spread (Seyboldt, Carlson & Carpenter, 2026, arXiv:2603.18845). A direction counts when its
eigenvalue is further from 1 than sampling explains: outside $[1/c, c]$ with $c = (1 + \sqrt{d/n})^2$, at least 1.2.

The price of a metric is the longest time scale over the shortest, to which the steps of a trajectory are
proportional: $\sqrt{\lambda_{\max}(\mathrm{Cov}\,q)\,\lambda_{\max}(\mathrm{Cov}\,h)}$ with $q$ and $h$ the
whitened draws and gradients. It is computed on chains that the metric was not learned from.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import DTypeLike

from shoal.dynamics.metrics import Diagonal, LowRank, Metric

# Below these bounds a dense metric costs little beside most gradients, and a dense eigenproblem is quick.
DENSE, MOST_DIRECTIONS, DENSE_FIT = 128, 64, 400
LEAST_STRETCH = 1.2
# Directions must lower the price by as much: their products were measured to take 1.1 (23 dimensions) to 2.8 times (10)
# the time of a step on two cores, 1.4 on the founding posterior (61).
WORTH = 1.25
# Added to both covariances: much where draws hardly outnumber dimensions, little where they do.
RIDGE_OF_FEW, RIDGE = 1e-5, 1e-8
SUBSPACE = 150


class Whitening(NamedTuple):
    """A metric on the host, in double.

    Attributes:
        scale: `[dim]`.
        directions: `[dim, k]`, orthonormal.
        stretch: `[k]`, standard deviations along them.
    """

    scale: np.ndarray
    directions: np.ndarray
    stretch: np.ndarray

    def metric(self, dtype: DTypeLike) -> LowRank:
        """The metric, with as many columns as every metric of this dimension."""
        dim, kept = self.directions.shape
        rank = rank_of(dim)
        directions, stretch = np.zeros((dim, rank)), np.ones(rank)
        directions[:, :kept], stretch[:kept] = self.directions, self.stretch
        return LowRank(*(jnp.asarray(part, dtype) for part in (self.scale, directions, stretch)))

    def draws(self, position: np.ndarray) -> np.ndarray:
        """Draws `[n, dim]` in whitened coordinates, centred."""
        return self._along((position - position.mean(0)) / self.scale, 1.0 / self.stretch - 1.0)

    def gradients(self, gradient: np.ndarray) -> np.ndarray:
        """Gradients `[n, dim]` in whitened coordinates, centred."""
        return self._along((gradient - gradient.mean(0)) * self.scale, self.stretch - 1.0)

    def pull(self, gradient: np.ndarray) -> float:
        """The largest mean of the whitened gradients `[n, dim]`, in their standard deviations.

        It is 0 at the target, whatever the target is, up to noise; and 1 where a Gaussian is a standard deviation off.
        """
        whitened = self._along(gradient * self.scale, self.stretch - 1.0)
        with np.errstate(all="ignore"):
            pull = np.abs(whitened.mean(0) / _positive(whitened.std(0))).max()
        return float(pull) if np.isfinite(pull) else np.inf

    def _along(self, vector: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return vector + (vector @ self.directions * gain) @ self.directions.T

    def slowest(self, position: np.ndarray) -> float:
        """The largest variance of whitened draws."""
        return largest_eigenvalue(self.draws(position))

    def stiffest(self, gradient: np.ndarray) -> float:
        """The largest variance of whitened gradients."""
        return largest_eigenvalue(self.gradients(gradient))

    def price(self, position: np.ndarray, gradient: np.ndarray) -> float:
        """The longest time scale over the shortest."""
        return float(np.sqrt(self.slowest(position) * self.stiffest(gradient)))


def rank_of(dim: int) -> int:
    """Columns of the metrics of a dimension."""
    return dim if dim <= DENSE else MOST_DIRECTIONS


def simplest(metric: Metric) -> Metric:
    """The metric without its columns where all of them are zero: a diagonal one costs no products."""
    if isinstance(metric, LowRank) and not np.asarray(metric.directions).any():
        return Diagonal(metric.scale)
    return metric


def unit(dim: int) -> Whitening:
    """No whitening at all."""
    return Whitening(np.ones(dim), np.zeros((dim, 0)), np.ones(0))


def families(position: np.ndarray, gradient: np.ndarray) -> dict[str, Whitening]:
    """The metrics that these draws suggest, by family.

    Args:
        position: `[n, dim]`, of all chains, in double.
        gradient: `[n, dim]` of the log density there.

    Returns:
        "deviations" and "fisher", and with directions on top, where there are any, "deviations + directions" and
        "fisher + directions".
    """
    count, dim = position.shape
    deviation, steepness = (_positive(values.std(0)) for values in (position, gradient))
    none = np.zeros((dim, 0)), np.ones(0)
    found = {"deviations": Whitening(deviation, *none), "fisher": Whitening(np.sqrt(deviation / steepness), *none)}
    if (dim > 1 and count > dim) or dim > DENSE_FIT:
        bound = max(LEAST_STRETCH, (1.0 + np.sqrt(dim / count)) ** 2)
        for name, fit in (("deviations", _by_covariance), ("fisher", _by_geometric_mean)):
            plain = found[name]
            with np.errstate(all="ignore"):
                values, vectors = fit(plain.draws(position), plain.gradients(gradient))
            if np.isfinite(values).all() and np.isfinite(vectors).all():
                found |= _with_directions(name, plain, values, vectors, bound)
    return found


def _positive(values: np.ndarray) -> np.ndarray:
    """Coordinates that did not move count as of unit scale among the others."""
    return np.where((values > 0) & np.isfinite(values), values, 1.0)


def _with_directions(
    name: str, plain: Whitening, values: np.ndarray, vectors: np.ndarray, bound: float
) -> dict[str, Whitening]:
    # Rounding alone makes an eigenvalue negative; it says nothing of its direction.
    extent = np.where(values > 0, np.abs(np.log(np.maximum(values, np.finfo(float).tiny))), 0.0)
    far = [i for i in np.argsort(-extent, kind="stable") if extent[i] > np.log(bound)][: rank_of(len(plain.scale))]
    if not far:
        return {}
    return {f"{name} + directions": Whitening(plain.scale, vectors[:, far], np.sqrt(values[far]))}


def _by_covariance(draws: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    basis, _, draws = _subspace(draws, gradients)
    values, vectors = _eigh(draws.T @ draws / len(draws))
    return values, basis @ vectors


def _by_geometric_mean(draws: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs of the solution S of S Cov(h) S = Cov(q)."""
    basis, gradients, draws = _subspace(draws, gradients)
    count, dim = draws.shape
    ridge = (RIDGE if count > 3 * dim else RIDGE_OF_FEW) * np.eye(dim)
    values, vectors = _eigh(gradients.T @ gradients / len(gradients) + ridge)
    root, inverse = (vectors * values**0.5) @ vectors.T, (vectors * values**-0.5) @ vectors.T
    inner, rotation = _eigh(root @ (draws.T @ draws / len(draws) + ridge) @ root)
    values, vectors = _eigh(inverse @ ((rotation * np.sqrt(np.maximum(inner, 0.0))) @ rotation.T) @ inverse)
    return values, basis @ vectors


def _eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs of a symmetric matrix; NaN where there are none.

    By relatively robust representations: divide and conquer, which NumPy takes, makes many small products on all cores,
    and where those are busy each of them waits for its turn, 20 times as long as it works.
    """
    none = np.full(len(matrix), np.nan), np.full_like(matrix, np.nan)
    if not np.isfinite(matrix).all():
        return none
    try:
        return scipy.linalg.eigh(matrix, driver="evr")
    except np.linalg.LinAlgError:
        return none


def _subspace(draws: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A basis, and gradients and draws in it: of everything, or in high dimension of what some of them span."""
    dim = draws.shape[1]
    if dim <= DENSE_FIT:
        return np.eye(dim), gradients, draws
    some = np.linspace(0, len(draws) - 1, min(len(draws), SUBSPACE)).astype(int)
    spanning = np.concatenate([draws[some], gradients[some]]).T
    basis = np.linalg.qr(spanning)[0] if np.isfinite(spanning).all() else np.eye(dim, SUBSPACE)
    return basis, gradients @ basis, draws @ basis


def largest_eigenvalue(rows: np.ndarray, iterations: int = 30) -> float:
    """The largest eigenvalue of the second moment of rows `[n, dim]`, by power iteration."""
    # Not an eigenvector of anything a user would write: power iteration must not start orthogonal to one.
    count, dim = rows.shape
    vector, value = 1.0 + 0.1 * np.cos(np.arange(dim)), 1.0
    # One product of matrices is quicker than many passes over the rows.
    moment = rows.T @ rows / count if dim <= min(count, DENSE_FIT) else None
    for _ in range(iterations):
        vector = rows.T @ (rows @ vector) / count if moment is None else moment @ vector
        value = float(np.linalg.norm(vector))
        vector = vector / max(value, np.finfo(float).tiny)
    return max(value, np.finfo(float).tiny)


class Choice(NamedTuple):
    """The families of a stage, and the prices that decide between them.

    Attributes:
        best: the cheapest family; one with directions if that is worth it.
        found: the metrics, from all draws.
        prices: of the families, on chains that they were not learned from.
    """

    best: str
    found: dict[str, Whitening]
    prices: dict[str, float]

    @property
    def whitening(self) -> Whitening:
        return self.found[self.best]


def choose(position: np.ndarray, gradient: np.ndarray, worth: float = WORTH) -> Choice:
    """The cheapest metric, cross-validated between chains with even and odd numbers; fewer than 4 by draws.

    Args:
        position: `[draw, chain, dim]`.
        gradient: `[draw, chain, dim]`.
        worth: how many times cheaper a metric with directions must be.
    """
    dim = position.shape[2]
    if position.shape[1] < 4:
        position, gradient = position.swapaxes(0, 1), gradient.swapaxes(0, 1)
    # Chains of a superchain have neighbouring numbers, so each superchain is on both sides.
    rows = lambda values, part: values[:, part].reshape(-1, dim).astype(float)
    every, even, odd = slice(None), slice(0, None, 2), slice(1, None, 2)
    found = families(rows(position, every), rows(gradient, every))
    prices = {}
    learned = families(rows(position, even), rows(gradient, even))
    for name, whitening in learned.items():
        if name in found:
            price = whitening.price(rows(position, odd), rows(gradient, odd))
            prices[name] = price if np.isfinite(price) else np.inf
    weighed = {name: price * (worth if found[name].stretch.size else 1.0) for name, price in prices.items()}
    return Choice(min(weighed, key=lambda name: weighed[name]), found, prices)
