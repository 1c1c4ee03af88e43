r"""How long trajectories should be, from draws whose trajectories differ in length.

The pace of a metric is for Gaussian directions. Long tails and curved ridges take longer than their standard deviations
say. Trajectories of one stage have lengths from short to long, so its draws tell by which power of the length effective
draws grow: for a coordinate $x$ and for $(x - \mathrm{E} x)^2$ a draw leaves a correlation of $1 - D$,
$D = \mathrm{E}(x' - x)^2 / 2 \mathrm{Var}\, x$, and gives about $D / (2 - D)$ effective draws. Where the slowest
quantity has few, and those of the slow ones together grow faster than the length, longer trajectories are worth their
gradients; where the log density itself holds chains back, as in funnels, they do not grow. Squares of heavy tails have
no variance, and any draw that comes back from there seems to be a gain; so the slowest by ranks must gain as well.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from shoal.diagnostics.rows import blocks, moving, normal_scores
from shoal.warmup.trail import Trail

# Trajectories become longer where a draw with one of the longer half gives fewer effective draws than this of the
# slowest quantity (of the slowest direction of a Gaussian it gives 0.8).
SLOW = 0.3
# Those of the slowest tenth of the quantities together, two at least, must grow by a power of the length above the
# first, in moments or by ranks: of one alone the power is noise, or that of a neck, in which no length helps. Those of
# the slowest by ranks must grow by one above the second.
TENTH, FEWEST, STEEP, RISING = 0.1, 2, 1.0, 0.0
# Until, at that power, a draw gives so many effective draws; but no more than so many times, what is beyond is a guess.
ENOUGH, MOST = 0.5, 2.5
# The longer half of the trajectories must be on average this many times as long as the others to say anything.
APART = 1.3
# D is at most 2, but for noise.
MOST_MOVED = 1.9


class Growth(NamedTuple):
    """What the lengths of a stage's trajectories say of its slow quantities; NaN where they say nothing.

    Attributes:
        effective: draws of the slowest, for a draw with one of the longer trajectories.
        power: of the length, with which those of slow coordinates and squares have grown.
        power_by_ranks: the same of normal scores, and of those of distances from the median.
        power_of_slowest: of the slowest of these alone.
    """

    effective: float
    power: float
    power_by_ranks: float
    power_of_slowest: float

    @property
    def reach(self) -> float:
        """How many times as long trajectories should be."""
        steepest = float(np.maximum(self.power, self.power_by_ranks))  # NaN stays NaN
        if not (self.effective < SLOW and steepest > STEEP and self.power_of_slowest > RISING):
            return 1.0
        return min((ENOUGH / max(self.effective, 1e-9)) ** (1.0 / steepest), MOST)


def growth(trail: Trail) -> Growth:
    """Of the draws of a stage."""
    length = (trail.step_size * trail.gradients).mean(1, dtype=float)[1:]
    long = length > np.median(length)
    nothing = Growth(np.nan, np.nan, np.nan, np.nan)
    if not 0 < long.sum() < long.size or length[long].mean() < APART * length[~long].mean():
        return nothing
    with np.errstate(all="ignore"):
        found = list(_effective(trail, long))
        if not found:
            return nothing
        moments, ranks = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        slow, by_ranks = _slowest(moments), _slowest(ranks)
        times = np.log(length[long].mean() / length[~long].mean())
        powers = (_gain(one) / times for one in (slow, by_ranks, by_ranks[:, :1]))
        return Growth(float(slow[1].min()), *map(float, powers))


def _effective(trail: Trail, long: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Effective draws for a draw with a shorter and with a longer trajectory, `[2, quantity]`: moments, then ranks."""
    for _, rows in blocks(np.swapaxes(trail.position, 0, 1)):
        kept = rows[moving(rows)].astype(float)
        if kept.size:
            off = kept - kept.mean((1, 2), keepdims=True)
            yield _rates(np.concatenate([off, np.square(off)]), long), _rates(np.concatenate(normal_scores(kept)), long)


def _rates(values: np.ndarray, long: np.ndarray) -> np.ndarray:
    """D / (2 - D) of every quantity, `[2, quantity]`."""
    squares = np.square(np.diff(values, axis=2)).mean(1)
    each = np.stack([squares[:, ~long].mean(1), squares[:, long].mean(1)])
    moved = each / (2.0 * values.var((1, 2)))
    return moved / (2.0 - np.minimum(moved, MOST_MOVED))


def _slowest(effective: np.ndarray) -> np.ndarray:
    """The slowest tenth of the quantities, the slowest first; NaN is not slow."""
    # Slow with both halves together: those that happen to have few with one would seem to gain or lose.
    together = effective.sum(0)
    return effective[:, np.argsort(together)[: max(FEWEST, round(TENTH * together.size))]]


def _gain(effective: np.ndarray) -> float:
    """The logarithm of how many times as many effective draws they have together with longer trajectories."""
    before, now = effective.sum(1)
    return np.log(now / before)
