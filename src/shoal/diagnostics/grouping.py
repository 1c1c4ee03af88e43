"""Groups that chains fall into where superchains disagree: modes, between which they hardly go.

Chains are put in order by the medians of the second half of their draws, and cut where two neighbours are farther
apart than three times the width of the chains there. Groups count where the chains within each agree with each other,
nearly all chains are in one, and each has the chains of half a superchain at least: chains that hardly move are strewn
all over a posterior of one mode, and make no such groups.

Measured where superchains disagree since chains of one normal mode are slow, with autocorrelations of 0.95, 0.99, 0.999
and 0.9999 and random walks, 200 runs of each: taken for groups in none of 1,000 with 128 chains of 400 draws in 16
superchains, in one of 1,000 with 4 chains of 1,000 draws.
"""

from typing import NamedTuple

import numpy as np

# In standard deviations within a chain: two normals that far apart have hardly a twentieth of either in the other.
GAP = 3.0
# Of an interquartile range in a standard deviation, for a normal.
RANGE = 1.349
STRAYS = 0.05
# Chains on each side of a gap whose median width counts: a chain that went from mode to mode is as wide as the gap.
BESIDE = 9
# Two of four chains are near each other by chance: the fewer there are, the better those of a group have to agree. From
# so many more than there are groups, within the standard deviation of a chain.
MANY = 16


class Groups(NamedTuple):
    """Of chains.

    Attributes:
        centres: the median of each group, from low to high.
        width: the standard deviation within the chains, by their quartiles, of the widest group.
        superchains: how many superchains have all their chains in it, strays left out.
        divided: superchains with chains in several.
        members: which group each chain belongs to, -1 for strays.
    """

    centres: np.ndarray
    width: float
    superchains: tuple[int, ...]
    divided: int
    members: np.ndarray

    @property
    def smaller(self) -> tuple[int, ...]:
        """Chains that are not in the largest group."""
        largest = np.bincount(self.members[self.members >= 0]).argmax()
        return tuple(int(chain) for chain in np.flatnonzero((self.members != largest) & (self.members >= 0)))


def groups(row: np.ndarray, ids: np.ndarray) -> Groups | None:
    """The groups that chains fall into in one quantity.

    Args:
        row: `[chain, draw]`, finite.
        ids: `[chain]`, superchains from 0.

    Returns:
        Two groups or more; None where there are none that are clear.
    """
    late = row[:, row.shape[1] // 2 :]
    low, medians, high = np.quantile(late, (0.25, 0.5, 0.75), axis=1)
    widths = (high - low) / RANGE
    order = np.argsort(medians)
    number = np.zeros(len(row), int)
    number[order[1:]] = np.cumsum(np.diff(medians[order]) > GAP * _widths_beside_gaps(widths[order]))
    least = max(2, len(row) / (ids.max() + 1) / 2)
    sizes = np.bincount(number)
    kept = np.flatnonzero(sizes >= least)
    if len(kept) < 2 or sizes[kept].sum() < (1 - STRAYS) * len(row):
        return None
    inside = [number == group for group in kept]
    agree = min(1.0, (len(row) - len(kept)) / MANY)
    if any(medians[some].std() > agree * np.median(widths[some]) for some in inside):
        return None
    members = np.full(len(row), -1)
    for group, some in enumerate(inside):
        members[some] = group
    visited = [set(members[ids == superchain].tolist()) - {-1} for superchain in range(ids.max() + 1)]
    return Groups(
        centres=np.array([np.median(late[some]) for some in inside]),
        width=float(max(np.median(widths[some]) for some in inside)),
        superchains=tuple(sum(where == {group} for where in visited) for group in range(len(inside))),
        divided=sum(len(where) > 1 for where in visited),
        members=members,
    )


def _widths_beside_gaps(widths: np.ndarray) -> np.ndarray:
    """Of chains in order, for each gap that of the side that is wider."""
    padded = np.pad(widths, BESIDE, constant_values=np.nan)
    medians = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, BESIDE)[1:-1], axis=1)
    return np.maximum(medians[: len(widths) - 1], medians[BESIDE:])
