r"""How long trajectories should be, from the price of the metric.

A trajectory of time $t$ turns a Gaussian direction of standard deviation $\sigma$ by the angle $t / \sigma$: with
lengths uniform on $(s\tau, \tau)$ a draw's autocorrelation is $a = E \cos(t / \sigma)$ for the coordinate and
$b = E \cos^2(t / \sigma)$ for its square, and the effective draws of each are $(1 - a) / (1 + a)$ and
$(1 - b) / (1 + b)$ of the draws. The pace is the $(\tau, s)$ that gives the worst direction most effective draws per
time, directions taken to be anywhere between the slowest and the fastest. Where all are alike that is nearly a
quarter of a period for every draw, which is worth 1.5 times what lengths on $(0, 2.2\,\sigma)$ are; where they differ
much, lengths must differ too.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

LENGTHS = np.arange(1.2, 2.61, 0.1)
SHORTEST = np.arange(0.0, 0.91, 0.1)
PHASES = (np.arange(64) + 0.5) / 64


class Pace(NamedTuple):
    """The lengths of trajectories.

    Attributes:
        longest: in standard deviations of the slowest direction.
        shortest: as a fraction of the longest.
    """

    longest: float
    shortest: float


def efficiency(pace: Pace, deviations: np.ndarray) -> float:
    """Effective draws per time of the worst direction or square, in standard deviations of the slowest direction."""
    times = pace.longest * (pace.shortest + (1.0 - pace.shortest) * PHASES)
    turns = np.cos(times / deviations[:, None])
    worst = max(turns.mean(1).max(), np.square(turns).mean(1).max())
    return float((1.0 - worst) / (1.0 + worst) / times.mean())


def pace(price: float) -> Pace:
    """The best lengths where the slowest direction is `price` times as slow as the fastest; far apart, as for 10."""
    return _pace(round(float(np.clip(price, 1.0, 10.0)), 1))


@cache
def _pace(price: float) -> Pace:
    deviations = np.geomspace(1.0 / price, 1.0, 24)
    paces = (Pace(float(longest), float(shortest)) for longest in LENGTHS for shortest in SHORTEST)
    return max(paces, key=lambda one: efficiency(one, deviations))
