"""The numbers that all samplers are compared by, from draws `[chain, draw, quantity]`; ArviZ counts for all."""

from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats

SMALL = 0.01  # the squared bias to reach: an error of a tenth of a standard deviation


class Estimates(NamedTuple):
    """Means and standard deviations of quantities, and their Monte Carlo errors, `[quantity]` each."""

    mean: np.ndarray
    sd: np.ndarray
    mean_se: np.ndarray
    sd_se: np.ndarray
    kurtosis: np.ndarray


def estimates(values: np.ndarray) -> Estimates:
    """What draws say; errors from ArviZ's effective sample sizes of x and (x - mean)²."""
    made = [_estimate(values[..., index].astype(np.float64)) for index in range(values.shape[-1])]
    return Estimates(*np.array(made, float).reshape(-1, 5).T)


def _estimate(x: np.ndarray) -> tuple[float, ...]:
    if not np.isfinite(x).all():
        return (np.nan,) * 5
    mean = x.mean()
    squares = (x - mean) ** 2
    variance = squares.mean()
    if variance == 0.0:
        return mean, 0.0, 0.0, 0.0, 3.0
    fourth = np.mean(squares**2) - variance**2
    mean_se = np.sqrt(variance / _ess(x))
    sd_se = np.sqrt(fourth / _ess(squares) / variance) / 2.0
    return mean, np.sqrt(variance), mean_se, sd_se, np.mean(squares**2) / variance**2


def _ess(x: np.ndarray) -> float:
    """ArviZ's effective sample size of the mean of `[chain, draw]`; of a constant, none."""
    if not np.isfinite(x).all() or x.shape[1] < 4 or np.ptp(x) == 0.0:
        return 0.0
    return float(array_stats.ess(x, chain_axis=0, draw_axis=1, method="mean"))


def smallest_ess(values: np.ndarray) -> float:
    """The smallest effective sample size over x and x²."""
    columns = (values[..., index].astype(np.float64) for index in range(values.shape[-1]))
    return min(min(_ess(x), _ess(x**2)) for x in columns)


def largest_r_hat(values: np.ndarray) -> float:
    """The largest rank-normalised R-hat."""
    if not np.isfinite(values).all() or values.shape[1] < 4:
        return float("nan")
    columns = (values[..., index].astype(np.float64) for index in range(values.shape[-1]))
    return max(float(array_stats.rhat(x, chain_axis=0, draw_axis=1, method="rank")) for x in columns)


def draws_to_small_bias(values: np.ndarray, means: np.ndarray, spreads: np.ndarray) -> int | None:
    """How many draws of every chain make the bias small, and keep it small.

    Args:
        values: `[chain, draw, quantity]`.
        means: the true means.
        spreads: the true standard deviations.

    Returns:
        The smallest t such that the mean over all chains and the first s draws is within a tenth of a standard
        deviation of the truth, for every quantity and every s from t on; None where no t is.
    """
    count = np.arange(1, values.shape[1] + 1)[:, None]
    running = np.cumsum(values.mean(axis=0, dtype=np.float64), axis=0) / count
    worst = (((running - means) / spreads) ** 2).max(axis=1)
    large = np.flatnonzero(~(worst < SMALL))
    first = 1 if large.size == 0 else int(large[-1]) + 2
    return first if first <= values.shape[1] else None
