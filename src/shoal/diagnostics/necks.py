"""Necks: tails of a quantity from which proposals hardly ever succeed, so that what lies beyond is missed.

Where the posterior is much narrower than elsewhere, as in the neck of a funnel, a step that fits the rest is too long:
proposals from there are hopeless, and those that would lead there are as rare. Chains then agree with each other on a
posterior without its neck, and neither R-hat nor the number of effective draws says so. But the draws that have come
nearest to the neck know: they are the most extreme ones of some quantity, proposals from them fail, and they come in a
few visits of a few chains, so that hardly anything is known of how often the chains should be there.

Measured with `auto`, 128 chains and 500 draws, shares of hopeless proposals from the worst 1% of the draws, and
relative errors of how much of the mass is there: 0.3 to 0.9 and 0.17 to 0.7 where a neck is missed (centred eight
schools, the Brownian motion of the inference gym); shares of at most 0.05 on `breast_cancer`, German credit and other
regressions of the panel; 0.06 to 0.3 and 0.08 to 0.11 in most runs on the gym's eight schools, whose draws are right.
Shorter steps go further down a neck, and fail in a thinner tail: on the Brownian motion with half the steps 0.09 to
0.19 of the worst 1%, but 0.3 to 0.5 of the worst 0.3%, whose mass is known to 0.33 to 0.55 of itself, with a standard
deviation that is 5% too small in one of five runs. On the regressions it is at most 0.05, and known to 0.08; on the
gym's eight schools 0.3 to 0.7 and 0.16 to 0.62.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from shoal.diagnostics.effective import many_chain_ess
from shoal.diagnostics.rows import InParts, blocks, moving, variable

# An acceptance probability below this is no chance.
HOPELESS = 0.02
# The shares of the draws that make a tail, and of hopeless proposals in it that makes a neck of it; by how much it
# exceeds their share of all draws, since a neck differs from the rest.
TAILS, NECK, UNLIKE = (0.01, 0.003), 0.2, 3.0
# A thinner tail of fewer draws is not looked at. Of a right kernel that rejects two in five moves from or to its lowest
# 0.3%, an autoregression with a correlation of 0.5, 24 runs each: with 24 and 38 draws there 7 and 6 gave alarm, with
# 48 one, with 58 and more none.
ENOUGH = 100
# In so many draws and chains at least: one stuck chain says less.
FEWEST, FEWEST_CHAINS = 10, 3
# A tail whose mass is known better than to this share of itself is visited often enough; a thinner tail of as many
# visits is known less well.
UNKNOWN = 0.15


class Neck(NamedTuple):
    """The worst tail of a variable.

    Attributes:
        shape: of the variable.
        quantity: the number of the quantity, in C order.
        lowest: whether it is the tail of the lowest draws.
        mass: the share of the draws that it is, more than asked for where there are ties.
        share: of the proposals from there that were hopeless.
    """

    shape: tuple[int, ...]
    quantity: int
    lowest: bool
    mass: float
    share: float


def hopeless(acceptance: np.ndarray) -> np.ndarray:
    """Which draws were proposals without a chance: rejected, so that the draw is where they began."""
    return acceptance < HOPELESS


def worst_tail(draws: Mapping[str, np.ndarray], failed: np.ndarray) -> tuple[str, Neck] | None:
    """The variable and its tail with the largest share of hopeless proposals, where one is a neck.

    Args:
        draws: by variable, `[chain, draw, *shape]`; read only where there are enough hopeless proposals.
        failed: which were, `[chain, draw]`.
    """
    count = np.count_nonzero(failed)
    if count < max(FEWEST, NECK * min(_masses(failed.size)) * failed.size) or failed.any(axis=1).sum() < FEWEST_CHAINS:
        return None
    found = {name: neck for name in draws if (neck := _worst_of(variable(draws, name), failed))}
    name = max(found, key=lambda name: found[name].share, default=None)
    return None if name is None else (name, found[name])


def _worst_of(values: np.ndarray | InParts, failed: np.ndarray) -> Neck | None:
    worst = None
    for place, rows in blocks(values):
        for quantity in np.flatnonzero(moving(rows)):
            for lowest, tail in _tails(rows[quantity]):
                share = _share(tail, failed)
                if share > (NECK if worst is None else worst.share) and _is_neck(tail, failed, share):
                    worst = Neck(values.shape[2:], place.start + int(quantity), lowest, float(np.mean(tail)), share)
    return worst


def _masses(draws: int) -> list[float]:
    """Of the tails that so many draws can tell something of."""
    return [mass for mass in TAILS if mass == max(TAILS) or mass * draws >= ENOUGH]


def _tails(row: np.ndarray) -> Iterator[tuple[bool, np.ndarray]]:
    """Whether they are those of the lowest draws, and which draws are in them."""
    masses = np.array(_masses(row.size))
    for low, high in zip(np.quantile(row, masses), np.quantile(row, 1.0 - masses), strict=True):
        yield True, row <= low
        yield False, row >= high


def _share(tail: np.ndarray, failed: np.ndarray) -> float:
    return float(np.mean(failed[tail]))


def _is_neck(tail: np.ndarray, failed: np.ndarray, share: float) -> bool:
    both = tail & failed
    if np.count_nonzero(both) < FEWEST or both.any(axis=1).sum() < FEWEST_CHAINS or share < UNLIKE * np.mean(failed):
        return False
    mass = float(np.mean(tail))
    error = np.sqrt((1.0 - mass) / (mass * many_chain_ess(tail[None].astype(float))[0]))
    return bool(error > UNKNOWN * np.sqrt(max(1.0, max(TAILS) / mass)))
