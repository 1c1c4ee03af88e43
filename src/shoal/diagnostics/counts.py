"""What was counted over all draws of a run that keeps only some of them: the verdict goes by it where it can."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from shoal.diagnostics.mixing import Mixing, beyond_rounding


class Counts(NamedTuple):
    """Over all draws.

    Attributes:
        draws: of each chain.
        moved: for each chain, the number of the last draw that was not as the one before.
        diverging: divergent transitions of each chain.
        acceptance: the mean acceptance rate.
        missing: draws that are not finite, by variable, of each of its numbers.
        low: the smallest draw, alike; of no meaning where some are missing.
        high: the largest.
        precision: of the draws.
    """

    draws: int
    moved: np.ndarray
    diverging: np.ndarray
    acceptance: float
    missing: Mapping[str, np.ndarray]
    low: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]
    precision: np.dtype

    def correct(self, name: str, numbers: Mixing) -> Mixing:
        """What some draws of a variable say, with what is known of all of them.

        A number that all the draws that were looked at have in common, but not all there were, has no effective draws.
        """
        missing = self.missing[name]
        varies = beyond_rounding(self.low[name], self.high[name], self.precision) & (missing == 0)
        unseen = varies & ~numbers.judged
        return numbers._replace(
            missing=missing,
            judged=numbers.judged | unseen,
            r_hat=np.where(unseen, 1.0, numbers.r_hat),
            ess=np.where(unseen, 0.0, numbers.ess),
        )
