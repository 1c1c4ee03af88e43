r"""Where something happens: the quantities in which some draws differ most from all, by ranks.

Of each quantity the ranks of these draws among all are looked at, as shares \(u\): those of any draws would be uniform.
\(u\) low or high is a shift, \(2|u - 1/2|\) low or high says that they are all in the middle or all far out. Draws of
one chain and one tenth of the run count as one, since a chain that is at such a place stays a while; with
\(n_c\) of them in such a cluster, the sum of \(u - 1/2\) has a variance of at most \(\sum n_c^2 / 12\).

Measured with divergences at random, 0.05% and 1% of the transitions, 128 chains of 400 draws and 4 of 1,000 with an
autocorrelation time of 3, 5 and 60 quantities, 200 runs of each: no quantity named in 1,600.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from shoal.diagnostics.rows import blocks, moving, row_of, variable

# For all quantities of a run together.
LEVEL = 1e-3
# A place that is less clear than this, in shares of all draws, helps nobody to find it.
CLEAR = 0.15
STRETCHES = 10
FEWEST = 5
# Draws that others are ranked among, as many times as there are of those: a sample of all does.
AMONG = 16
LEAST_AMONG = 4096
NAMED = 2


class Place(NamedTuple):
    """Where draws are.

    Attributes:
        name: of the variable.
        shape: its shape.
        quantity: the number of the quantity, in C order.
        side: "low", "high", "far out", or "in the middle".
        rank: the median of their ranks, as a share of all draws: from below, from above, from the nearer end, and
            of the distance from the median.
    """

    name: str
    shape: tuple[int, ...]
    quantity: int
    side: str
    rank: float


def places(draws: Mapping[str, np.ndarray], marked: np.ndarray) -> tuple[Place, ...]:
    """The quantities that tell most of where some draws are, at most two.

    Args:
        draws: by variable, `[chain, draw, *shape]`; not read where too few are marked.
        marked: which draws, `[chain, draw]`.

    Returns:
        Places, the clearest first; none where chance explains them.
    """
    chain, draw = np.nonzero(marked)
    if len(chain) < FEWEST:
        return ()
    stretch = chain * STRETCHES + draw * STRETCHES // marked.shape[1]
    size = np.unique(stretch, return_counts=True)[1].astype(float)
    clusters = size.sum() ** 2 / (size**2).sum()
    step = max(1, marked.size // max(LEAST_AMONG, AMONG * len(chain)))
    effective = 1 / (1 / clusters + step / marked.size)
    shifts, tested = [], 0
    for name in draws:
        values = variable(draws, name)
        for place, rows in blocks(values):
            for quantity in np.flatnonzero(moving(rows)):
                tested += 1
                share = _ranks(rows[quantity][marked], rows[quantity].ravel()[::step])
                for folded in (False, True):
                    mean = float(np.mean(2 * np.abs(share - 0.5) if folded else share)) - 0.5
                    shifts.append((abs(mean), mean > 0, folded, name, place.start + int(quantity)))
    least = max(CLEAR, -float(ndtri(LEVEL / (4 * max(tested, 1)))) / math.sqrt(12 * effective))
    named: dict[tuple[str, int], Place] = {}
    for shift, up, folded, name, quantity in sorted(shifts, reverse=True):
        if shift < least or len(named) == NAMED:
            break
        if (name, quantity) not in named:
            values = variable(draws, name)
            named[name, quantity] = _place(row_of(values, quantity), marked, up, folded)._replace(
                name=name, shape=values.shape[2:], quantity=quantity
            )
    return tuple(named.values())


def _ranks(some: np.ndarray, among: np.ndarray) -> np.ndarray:
    ordered = np.sort(among)
    low, high = (np.searchsorted(ordered, some, side) for side in ("left", "right"))
    return (low + high) / (2 * len(ordered))


def _place(row: np.ndarray, marked: np.ndarray, up: bool, folded: bool) -> Place:
    share = _ranks(row[marked], row.ravel())
    ends = {
        (False, False): ("low", share),
        (True, False): ("high", 1 - share),
        (True, True): ("far out", np.minimum(share, 1 - share)),
        (False, True): ("in the middle", 2 * np.abs(share - 0.5)),
    }
    side, rank = ends[up, folded]
    return Place("", (), 0, side, float(np.median(rank)))
