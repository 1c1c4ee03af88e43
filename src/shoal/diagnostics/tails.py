r"""Tails of a quantity: how precisely they are known, and whether they are so heavy that a mean says nothing.

The tail is fitted by a generalized Pareto distribution, with the shape \(k\) of Zhang and Stephens (2009) and the prior
of Vehtari, Simpson, Gelman, Yao and Gabry (2024, arXiv:1507.02646), in ArviZ's arithmetic. Moments of order \(1/k\) and
beyond do not exist: from 1/2 on the variance does not, and with it neither does the Monte Carlo error of the mean, and
from 1 on the mean. From 0.7 on, these authors show, the mean of any number of draws that one can afford is off by more
than its error tells. It does not matter what the tail does beyond the range that was visited: a log-normal with 3 for
the standard deviation of its logarithm has all moments, and a mean of 50,000 draws of it is worth no more.

Measured over 200 runs of 5 quantities each with an autocorrelation time of 3, 128 chains of 400 draws and 4 of 1,000:
no alarm of a normal, of a log-normal with 1 for the standard deviation of its logarithm, of Student's t with 3 degrees
of freedom, whose variance exists; an alarm in all runs of Cauchy quantities, with one such quantity and 4 chains in
184.
"""

import numpy as np
from scipy.special import ndtri

from shoal.diagnostics.effective import MANY_CHAINS, ess_of_spread, geyer_ess
from shoal.diagnostics.rows import split

# Normal scores of the 5% and the 95% quantile.
EDGE = 1.6448536269514722
HEAVY = 0.7
# So many standard errors of k must it be above 1/2, too: of few draws it is not known well enough.
VARIANCE, ERRORS = 0.5, 2.5
FEWEST = 100
# Far less than the distance of two scores.
ROUNDING = 1e-12
# The mean of an exponential tail is 1.44 of its median, that of one with k = 0.7 2.7 to 3.7 times, by how many draws
# there are: below twice there is nothing to fit.
LIGHT = 2.0


def tail_ess(scores: np.ndarray) -> np.ndarray:
    """The smaller effective sample size of how much of the mass is below the 5% and beyond the 95% quantile.

    Args:
        scores: normal scores, `[quantity, chain, draw]`.

    Returns:
        `[quantity]`, infinite where nothing is out there, as for a quantity of two values.
    """
    return np.minimum(*(_ess(beyond) for beyond in (scores <= -EDGE, scores >= EDGE)))


def _ess(beyond: np.ndarray) -> np.ndarray:
    _, chains, count = beyond.shape
    if chains < MANY_CHAINS:
        found = geyer_ess(split(beyond.astype(np.float32)))
    else:
        share = np.count_nonzero(beyond, axis=2) / count
        found = ess_of_spread(share.var(axis=1, ddof=1), (share * (1 - share)).mean(axis=1), chains, count)
    return np.where(beyond.any(axis=(1, 2)), found, np.inf)


def heaviest(rows: np.ndarray, scores: np.ndarray, effective: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shape of the heavier tail of every quantity, where it is so heavy that its mean says nothing.

    Args:
        rows: `[quantity, chain, draw]`, finite.
        scores: their normal scores, which tell what is in a tail without another sort.
        effective: draws in the tails, as of `tail_ess`.

    Returns:
        `[quantity]` each: k, 0 where it is below 0.7 or may be by chance, and whether it is that of the upper tail.
    """
    shape, upper = np.zeros(len(rows)), np.zeros(len(rows), bool)
    draws = rows[0].size
    for quantity, (row, score) in enumerate(zip(rows, scores, strict=True)):
        share = min(1.0, effective[quantity] / draws)
        size = tail_size(draws, share)
        if not size * share >= FEWEST:
            continue
        # Of the draw before the tail, too.
        edge = ndtri((size + 1 - 3 / 8) / (draws + 1 / 4)) + ROUNDING
        for high, tail in ((False, -row[score <= edge]), (True, row[score >= -edge])):
            found = _shape(np.sort(tail.astype(float)), share)
            if found > shape[quantity]:
                shape[quantity], upper[quantity] = found, high
    return shape, upper


def tail_size(draws: int, share: float) -> int:
    """How many draws make a tail: those of arXiv:1507.02646.

    Args:
        draws: of all chains.
        share: of effective draws among them.

    Returns:
        At most a fifth of the draws.
    """
    return min(int(3 * np.sqrt(draws / share)) if draws * share > 225 else draws, draws // 5)


def _shape(tail: np.ndarray, share: float) -> float:
    """Of a sorted tail and the draw before it; 0 where it is light, or may be."""
    if len(tail) < FEWEST:  # Where many are one value.
        return 0.0
    excess = tail[1:] - tail[0]
    if not excess.mean() > LIGHT * excess[len(excess) // 2]:
        return 0.0
    k = pareto_k(excess)
    known = k - VARIANCE > ERRORS * (1 + k) / np.sqrt(len(excess) * share)
    return k if k >= HEAVY and known else 0.0


def pareto_k(excess: np.ndarray) -> float:
    """The shape of a generalized Pareto distribution.

    Args:
        excess: over the threshold, sorted.

    Returns:
        k; NaN where the smallest quarter are one value.
    """
    size = len(excess)
    points = 30 + int(np.sqrt(size))
    quartile = excess[int(size / 4 + 0.5) - 1]
    if quartile <= excess[0]:
        return np.nan
    b = (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile) + 1 / excess[-1]
    k = np.log1p(-b[:, None] * excess).mean(axis=1)
    log_weight = size * (np.log(-b / k) - k - 1)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    weight[weight < 10 * np.finfo(float).eps] = 0
    k = np.log1p(-(b @ weight) / weight.sum() * excess).mean()
    return float((size * k + 5) / (size + 10))
