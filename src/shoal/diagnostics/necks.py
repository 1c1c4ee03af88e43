"""Necks: tails of a quantity from which proposals hardly ever succeed, so that what lies beyond is missed.

Where the posterior is much narrower than elsewhere, as in the neck of a funnel, a step that fits the rest is too long:
proposals from there are hopeless, and those that would lead there are as rare. Chains then agree with each other on a
posterior without its neck, and neither R-hat nor the number of effective draws says so. But the draws that have come
nearest to the neck know: they are the most extreme ones of some quantity, and proposals from them fail.

Measured with `auto`, the shares of hopeless proposals from the worst 1% of the draws: 0.3 to 0.6 where a neck is
missed (the funnel, centred eight schools, the Brownian motion of the inference gym, radon), at most 0.03 on
`breast_cancer`, sparse German credit and eight schools without centring, whose draws agree with their references.
"""

from typing import NamedTuple

import numpy as np

from shoal.diagnostics.rows import blocks, moving

# An acceptance probability below this is no chance.
HOPELESS = 0.02
# The share of the draws that makes a tail, and of hopeless proposals in it that makes a neck of it.
TAIL, NECK = 0.01, 0.2


class Neck(NamedTuple):
    """The worst tail of a variable.

    Attributes:
        quantity: its number, in C order.
        lowest: whether it is the tail of the lowest draws.
        share: of the proposals from there that were hopeless.
    """

    quantity: int
    lowest: bool
    share: float


def worst_tail(draws: np.ndarray, acceptance: np.ndarray) -> Neck | None:
    """The tail with the largest share of hopeless proposals, where that share makes a neck of it.

    A hopeless proposal is rejected, so that its draw is where it began.

    Args:
        draws: `[chain, draw, *shape]`.
        acceptance: the acceptance probability of every draw, `[chain, draw]`.
    """
    hopeless = acceptance < HOPELESS
    if not np.count_nonzero(hopeless) >= NECK * TAIL * hopeless.size:
        return None
    worst = None
    for place, rows in blocks(draws):
        for quantity in np.flatnonzero(moving(rows)):
            values = rows[quantity]
            low, high = np.quantile(values, (TAIL, 1.0 - TAIL))
            for lowest, tail in ((True, values <= low), (False, values >= high)):
                share = float(np.mean(hopeless[tail]))
                if share > NECK and (worst is None or share > worst.share):
                    worst = Neck(place.start + int(quantity), lowest, share)
    return worst
