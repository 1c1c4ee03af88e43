"""What was counted over all draws of a run that keeps only some of them: the verdict goes by it where it can."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from shoal.diagnostics.findings import Finding
from shoal.diagnostics.mixing import Mixing, beyond_rounding, half_drift

# How far the mean of all draws may be from that of the draws that are kept, in standard deviations, and their mean
# square, in variances: a twentieth of a standard deviation, in location as in scale.
UNLIKE = 0.05, 0.1


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
        precision: of the draws, by variable.
        off: where not all draws are kept, how far the mean of all is from that of those that are, by variable,
            `[2, number, chain]`: in standard deviations of these, and of the squared distance from their mean in
            variances.
    """

    draws: int
    moved: np.ndarray
    diverging: np.ndarray
    acceptance: float
    missing: Mapping[str, np.ndarray]
    low: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]
    precision: Mapping[str, np.dtype]
    off: Mapping[str, np.ndarray]

    def correct(self, name: str, numbers: Mixing) -> Mixing:
        """What some draws of a variable say, with what is known of all of them.

        A number that all the draws that were looked at have in common, but not all there were, has no effective draws.
        """
        missing = self.missing[name]
        varies = beyond_rounding(self.low[name], self.high[name], self.precision[name]) & (missing == 0)
        unseen = varies & ~numbers.judged
        return numbers._replace(
            missing=missing,
            judged=numbers.judged | unseen,
            r_hat=np.where(unseen, 1.0, numbers.r_hat),
            ess=np.where(unseen, 0.0, numbers.ess),
        )

    def unlike(self, name: str, labels: Sequence[str]) -> Iterator[Finding]:
        """A finding that blocks where the draws that are kept are not like all, and the verdict on them not on these.

        That is so where chains were on their way at first: the draws before the first that is kept are in all sums.

        Args:
            name: the variable.
            labels: of its numbers.
        """
        if name not in self.off:
            return
        varies = (self.low[name] < self.high[name]) & (self.missing[name] == 0)
        off = np.where(varies[:, None], np.nan_to_num(self.off[name]), 0.0)
        found = [half_drift(part, least) / least for part, least in zip(off, UNLIKE, strict=True)]
        worst = int(np.max(found, axis=0).argmax())
        which = int(np.argmax([part[worst] for part in found]))
        if found[which][worst] > 0:
            what = ("mean", "standard deviations") if which == 0 else ("mean squared deviation", "variances")
            yield Finding(
                kind="drift",
                where=labels[worst],
                number=float(found[which][worst] * UNLIKE[which]),
                threshold=UNLIKE[which],
                words=f"The {what[0]} of all draws of {labels[worst]} is {found[which][worst] * UNLIKE[which]:.2f} "
                f"{what[1]} away from that of the draws that were kept to be judged (at most {UNLIKE[which]} is let "
                "pass): others, most likely the first ones, are elsewhere.",
                remedy="The chains had not arrived when sampling began, as a rule: warm up longer, or begin where "
                "another run has ended (initial_positions). Where all draws are kept the verdict tells more.",
            )
