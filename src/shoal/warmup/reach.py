r"""Whether trajectories are long enough, from draws whose trajectories differ in length.

The pace of a metric is for Gaussian directions. Long tails and curved ridges take longer than their standard deviations
say. Trajectories of one stage have lengths from short to long, so its draws tell how many effective ones the slowest
quantity gets from the longer half, and by which power of the length that has grown since the shorter half: for a
coordinate $x$ and for $(x - \mathrm{E} x)^2$ a draw leaves a correlation of $1 - D$,
$D = \mathrm{E}(x' - x)^2 / 2 \mathrm{Var}\, x$, and gives about $D / (2 - D)$ effective draws. Where they are few and
grow with the length, longer trajectories are worth their gradients; where the log density itself holds chains back, as
in funnels, they do not grow.
"""

from typing import NamedTuple

import numpy as np

from shoal.warmup.setting import Setting
from shoal.warmup.stages import Trail

# Trajectories become longer where a draw with one of the longer half gives fewer effective draws than the first (a
# Gaussian gives 0.8), and these grow by a power of the length above the second; shorter again, for good, where they
# grow by one below the third.
SLOW, WORTH, WASTE = 0.25, 1.0, 0.6
# By this factor, up to the most.
LONGER, MOST = 1.5, 2.25
# The longer half of the trajectories must be on average this many times as long as the others to say anything.
APART = 1.3
# D is at most 2, but for noise.
MOST_MOVED = 1.9


class Growth(NamedTuple):
    """What the lengths of a stage's trajectories say of its slowest quantity; NaN where they say nothing.

    Attributes:
        effective: draws, for a draw with one of the longer trajectories.
        power: of the length, with which they have grown.
    """

    effective: float
    power: float


def extended(setting: Setting, seen: Growth) -> Setting:
    """The setting with another reach, where draws made with it say so."""
    if setting.reach_tried:
        return setting
    if seen.effective < SLOW and seen.power > WORTH:
        return setting._replace(reach=min(LONGER * setting.reach, MOST))
    if setting.reach > 1.0 and seen.power < WASTE:
        return setting._replace(reach=setting.reach / LONGER, reach_tried=True)
    return setting


def growth(trail: Trail) -> Growth:
    """Of the draws of a stage."""
    length = (trail.step_size * trail.gradients)[1:].mean(1, dtype=float)
    long = length > np.median(length)
    if not 0 < long.sum() < long.size or length[long].mean() < APART * length[~long].mean():
        return Growth(np.nan, np.nan)
    position = trail.position.astype(float)
    off = position - position.mean((0, 1))
    with np.errstate(all="ignore"):
        moved = np.concatenate([_moved(values, long) for values in (off, np.square(off))], axis=1)
        effective = moved / (2.0 - np.minimum(moved, MOST_MOVED))
        before, now = effective[:, np.argmin(np.nan_to_num(effective[1], nan=np.inf))]
        power = np.log(now / before) / np.log(length[long].mean() / length[~long].mean())
    return Growth(float(now), float(power))


def _moved(values: np.ndarray, long: np.ndarray) -> np.ndarray:
    """D of every coordinate, of draws with shorter and with longer trajectories, `[2, dim]`."""
    squares = np.square(values[1:] - values[:-1]).mean(1) / (2.0 * values.var((0, 1)))
    return np.stack([squares[~long].mean(0), squares[long].mean(0)])
