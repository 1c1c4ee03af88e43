"""Necks that the last draws of a race tell of.

Where the posterior is far narrower than elsewhere, as in the neck of a funnel, a step that fits the rest is too long,
and nothing that is learned from all chains says so: few of them are there at one time. What gives a neck away is that
proposals without a chance begin in one tail of one coordinate. A few dozen draws of every chain hold too few of them
for `shoal.diagnostics.necks`, which speaks of the whole run; but that a fifth of them or more, and of several chains,
lie in the same hundredth of the draws, hardly happens by chance.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import bdtrc

from shoal.diagnostics.necks import TAILS, Neck, hopeless, worst_tail
from shoal.warmup.trail import Trail

# Of the hopeless proposals, the share that must begin in one tail.
GATHERED = 0.2
# How likely that may be by chance in any of the tails: a neck that is missed is a run that has not converged.
CHANCE = 0.1


class Tail(NamedTuple):
    """One hundredth of the draws.

    Attributes:
        coordinate: its number.
        lowest: whether it is that of the lowest draws.
    """

    coordinate: int
    lowest: bool


def narrow(trail: Trail) -> list[Tail]:
    """The tails that hopeless proposals come from: so many as make a neck of a run, or a good part of them.

    Of a good part every chain counts once, and it takes two: one that is stuck makes many.
    """
    failed = hopeless(trail.acceptance)
    found = set(_gathered(trail, failed))
    if worst := _neck_of_a_run(trail, failed):
        found.add(Tail(worst.quantity, worst.lowest))
    return sorted(found)


def _neck_of_a_run(trail: Trail, failed: np.ndarray) -> Neck | None:
    """The worst tail, by the rule of the finding."""
    worst = worst_tail({"position": np.swapaxes(trail.position, 0, 1)}, failed.T)
    return worst[1] if worst else None


def _gathered(trail: Trail, failed: np.ndarray) -> Iterator[Tail]:
    """Tails from which a good part of hopeless proposals comes, of two chains or more, more than by chance in any."""
    with_some = int(failed.any(axis=0).sum())
    if with_some < 2:
        return
    low, high = np.quantile(trail.position, (TAILS[0], 1.0 - TAILS[0]), axis=(0, 1))
    at, chain = trail.position[failed], np.nonzero(failed)[1]
    for lowest, inside, tail in (
        (True, at <= low, trail.position <= low),
        (False, at >= high, trail.position >= high),
    ):
        for coordinate in np.flatnonzero(inside.mean(axis=0) >= GATHERED):
            there = np.unique(chain[inside[:, coordinate]]).size
            # Of few draws a tail is more than a hundredth; of a coordinate that hardly moves it may be all.
            chance = bdtrc(there - 1, with_some, tail[..., coordinate].mean())
            if there > 1 and 2 * inside.shape[1] * chance < CHANCE:
                yield Tail(int(coordinate), lowest)
