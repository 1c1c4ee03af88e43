"""Effective sample size of the mean, from autocorrelations or from the spread of the means of chains.

`rows` are `[quantity, chain, draw]`.
"""

import numpy as np
import scipy.fft

from shoal.diagnostics.rows import split

# From this many chains on, the spread of their means tells the error of the mean to 18% and better, without
# autocovariances, for chains of any length.
MANY_CHAINS = 64


def geyer_ess(rows: np.ndarray) -> np.ndarray:
    """Effective sample size of the mean over chains and draws, by Geyer's initial monotone sequence.

    Args:
        rows: `[quantity, chain, draw]`, at least two draws.

    Returns:
        `[quantity]`; all draws for a constant, as in ArviZ (an indicator of a tail can be).
    """
    _, chains, count = rows.shape
    means = rows.mean(axis=2, dtype=float)
    length = scipy.fft.next_fast_len(2 * count, real=True)
    spectrum = np.asarray(scipy.fft.rfft(rows - means[:, :, None], n=length, axis=2))
    power = (np.real(spectrum) ** 2 + np.imag(spectrum) ** 2).mean(axis=1)
    covariance = np.asarray(scipy.fft.irfft(power, n=length, axis=1))[:, :count] / count
    within = covariance[:, 0] * count / (count - 1)
    total = covariance[:, 0] + (means.var(axis=1, ddof=1) if chains > 1 else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = 1 - (within[:, None] - covariance) / total[:, None]
    correlation[:, 0] = 1
    draws = chains * count
    time = np.maximum(_geyer_time(correlation), 1 / np.log10(draws))
    return np.where(total > 0, draws / time, draws)


def _geyer_time(correlation: np.ndarray) -> np.ndarray:
    """Integrated autocorrelation time from `[quantity, lag]`, lag 0 first: ArviZ's sum, without its loops."""
    count = correlation.shape[1]
    pairs = max(1, (count - 1) // 2)  # ArviZ looks at no pair beyond lag count - 2
    even, odd = correlation[:, 0 : 2 * pairs : 2], correlation[:, 1 : 2 * pairs : 2]
    sums = even + odd
    negative = sums <= 0
    last = np.where(negative.any(axis=1), negative.argmax(axis=1), pairs - 1)
    monotone = np.minimum.accumulate(sums, axis=1)
    kept = np.where(np.arange(pairs) < last[:, None], monotone, 0.0).sum(axis=1)
    at = (np.arange(len(last)), last)
    rest = np.where((even[at] > 0) | (sums[at] >= 0), even[at], 0.0)
    return -1 + 2 * kept + rest


def many_chain_ess(rows: np.ndarray) -> np.ndarray:
    """`ess_replicated` of rows.

    Args:
        rows: `[quantity, chain, draw]`, at least four draws.

    Returns:
        `[quantity]`.
    """
    _, chains, count = rows.shape
    if chains < MANY_CHAINS:
        return geyer_ess(split(rows))
    spread, within = rows.mean(axis=2, dtype=float).var(axis=1, ddof=1), rows.var(axis=2, dtype=float).mean(axis=1)
    return ess_of_spread(spread, within, chains, count)


def ess_of_spread(spread: np.ndarray, within: np.ndarray, chains: int, count: int) -> np.ndarray:
    """Effective sample size of the mean from the spread of the means of chains.

    Args:
        spread: `[quantity]`, the variance of the means of chains, by chains less one.
        within: `[quantity]`, the mean over chains of the variance about the chain's own mean, by draws.
        chains: how many there are, at least two.
        count: of draws of each chain.

    Returns:
        `[quantity]`.
    """
    draws = chains * count
    total = spread + within
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.minimum(chains * total / spread, draws * np.log10(draws))
