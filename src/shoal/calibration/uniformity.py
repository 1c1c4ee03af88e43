r"""Whether numbers are uniform on (0, 1): three tests whose p values are exact, and bands for their distribution.

Of N places u in (0, 1), with scores $z = \Phi^{-1}(u)$:

- location: $\sum z / \sqrt N$ is standard normal;
- spread: $\sum z^2$ is chi-squared with N degrees of freedom (Cook, Gelman & Rubin, 2006, section 2.2);
- ECDF: the counts $N F(z_k)$ at K points are binomial one by one, and the smallest of their two-sided p values is
  compared with its law (Säilynoja, Bürkner & Vehtari, 2022, arXiv:2103.10522, section 2).

That law is by recursion, without simulation: the counts of the K cells are those of a Poisson process, given that there
are N points in all, so the probability that the counts stay between bounds is a product of convolutions.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom, chi2, norm, poisson

TESTS = ("location", "spread", "ecdf")


class Bands(NamedTuple):
    """Bounds on the empirical distribution of N uniform numbers, all of them at once.

    Attributes:
        points: where, `[points]`, in (0, 1).
        low: the least share of the numbers below, `[points]`.
        high: the largest.
    """

    points: np.ndarray
    low: np.ndarray
    high: np.ndarray


def p_values(places: np.ndarray, num_points: int) -> np.ndarray:
    """Of the three tests.

    Args:
        places: `[n]`, in (0, 1).
        num_points: at which the empirical distribution is looked at.

    Returns:
        `[3]`, in the order of `TESTS`, two-sided.
    """
    count = len(places)
    scores = ndtri(np.clip(places, 1e-12, 1 - 1e-12))
    location = 2 * norm.sf(abs(scores.sum()) / np.sqrt(count))
    squares = (scores**2).sum()
    spread = min(1.0, 2 * min(chi2.sf(squares, count), chi2.cdf(squares, count)))
    return np.array([location, spread, ecdf_p_value(counts_below(places, num_points), count)])


def counts_below(places: np.ndarray, num_points: int) -> np.ndarray:
    """How many are below each of the points k / (num_points + 1).

    Args:
        places: `[n]`.
        num_points: K.

    Returns:
        `[K]`.
    """
    return np.searchsorted(np.sort(places), _points(num_points), side="left")


def ecdf_p_value(counts: np.ndarray, total: int) -> float:
    """The probability that uniform numbers stray as far as these, at the point where they stray farthest.

    Args:
        counts: from `counts_below`.
        total: how many numbers there are.

    Returns:
        The p value.
    """
    points = _points(len(counts))
    farthest = _two_sided(counts, total, points).min()
    if farthest >= 1:
        return 1.0
    # Counts that stray less far than the farthest one.
    every = np.arange(total + 1)
    inside = _two_sided(every[None], total, points[:, None]) > farthest * (1 + 1e-9)
    low, high = inside.argmax(1), total - inside[:, ::-1].argmax(1)
    return float(np.clip(1 - stays(low, high, total), 0, 1)) if inside.any(1).all() else 1.0


def bands(total: int, num_points: int, level: float) -> Bands:
    """Bounds that the empirical distribution of uniform numbers leaves anywhere with probability `level` at most.

    Args:
        total: how many numbers there are.
        num_points: at which they are looked at.
        level: in (0, 1).

    Returns:
        The narrowest such bounds that are binomial quantiles of one level at all points.
    """
    points = _points(num_points)
    least, most = np.log(level) - np.log(4 * num_points), np.log(level)
    bounds = lambda log: tuple(binom.ppf(at, total, points) for at in (np.exp(log) / 2, -np.expm1(log - np.log(2.0))))
    for _ in range(30):
        middle = (least + most) / 2
        holds = 1 - stays(*bounds(middle), total) <= level
        least, most = (middle, most) if holds else (least, middle)
    low, high = bounds(least)
    return Bands(points, low / total, high / total)


def stays(low: np.ndarray, high: np.ndarray, total: int) -> float:
    """The probability that the counts of uniform numbers below equally spaced points are within bounds.

    Args:
        low: the least count at each point, `[points]`.
        high: the largest.
        total: how many numbers there are.

    Returns:
        The probability.
    """
    every = np.arange(total + 1)
    cell = poisson.pmf(every, total / (len(low) + 1))
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    for least, most in zip(low, high, strict=True):
        chance = np.convolve(chance, cell)[: total + 1]
        chance[(every < least) | (every > most)] = 0.0
    last = np.convolve(chance, cell)[total]
    return float(last / poisson.pmf(total, total))


def _points(num_points: int) -> np.ndarray:
    return np.arange(1, num_points + 1) / (num_points + 1)


def _two_sided(counts: np.ndarray, total: int, points: np.ndarray) -> np.ndarray:
    """P values of binomial counts, one by one."""
    return np.minimum(1.0, 2 * np.minimum(binom.cdf(counts, total, points), binom.sf(counts - 1, total, points)))
