"""One variable on trial: its numbers in words."""

import math
from collections.abc import Iterator

import numpy as np

from shoal.diagnostics.estimates import MIN_DRAWS
from shoal.diagnostics.findings import Finding, name_chains
from shoal.diagnostics.mixing import APART, DRIFT, Mixing

MAX_R_HAT = 1.01
MIN_ESS = 400
LONGER = (
    "warm up longer (num_warmup; where the warmup ends by itself, go on from the last draws, with this run's tuning= "
    "and initial_positions=)"
)


class Variable:
    """One variable on trial: its findings, at most one of each kind, about its worst number.

    Args:
        name: the variable.
        names: labels of its numbers, in C order.
        draws: draws per chain.
        ids: `[chain]`, superchains from 0.
        troubled: whether single chains stand apart, which spoils every number.
    """

    def __init__(self, name: str, names: list[str], draws: int, ids: np.ndarray, troubled: bool) -> None:
        self.name, self.names, self.draws, self.ids, self.troubled = name, names, draws, ids, troubled
        self.groups = int(ids.max()) + 1

    def say(self, numbers: Mixing) -> Iterator[Finding]:
        """Find.

        Args:
            numbers: of this variable.

        Yields:
            What forbids to use its draws.
        """
        if numbers.missing.any():
            yield self._missing(numbers)
        if self.draws < MIN_DRAWS or not numbers.judged.any():
            return
        # "Not at most" and "not at least", so that what cannot be computed blocks too.
        bad = numbers.judged & ~(numbers.r_hat <= MAX_R_HAT)
        if self.groups > 1 and bad.any():
            yield self._r_hat(numbers, bad)
        elif (numbers.apart > 0).any():
            yield self._apart(numbers)
        if (numbers.drift > 0).any():
            yield self._drift(numbers)
        # Where superchains disagree, there are few effective draws because of it: one finding is enough.
        bad = numbers.judged & ~(numbers.ess >= MIN_ESS) & (numbers.apart == 0)
        if bad.any():
            yield self._ess(numbers, bad)

    def _more(self, bad: np.ndarray, one: str, many: str) -> str:
        count = int(np.count_nonzero(bad)) - 1
        verb = one if count == 1 else many
        return f" {verb} {count:,} more of the {len(self.names):,} numbers of {self.name}." if count > 0 else ""

    def _missing(self, numbers: Mixing) -> Finding:
        worst = int(numbers.missing.argmax())
        count = int(numbers.missing[worst])
        others = self._more(numbers.missing > 0, "So has", "So have")
        return Finding(
            kind="non_finite",
            where=self.names[worst],
            number=count,
            threshold=0,
            words=f"{self.names[worst]} has {count:,} draws that are NaN or infinite.{others}",
            remedy="The way from the sampler's space to this quantity overflows or divides by zero: keep it "
            "in a range that the precision can hold, or run with precision='float64'.",
        )

    def _r_hat(self, numbers: Mixing, bad: np.ndarray) -> Finding:
        worst = int(np.argmax(np.where(bad, np.nan_to_num(numbers.r_hat, nan=np.inf), 0)))
        others = self._more(bad, "So does", "So do")
        if numbers.apart[worst] > 0:
            distance = numbers.apart[worst]
            why = f"superchains disagree about it, the farthest by {distance:.2f} standard deviations."
            remedy = (
                f"More draws alone will hardly help: {LONGER}. If it stays, the posterior "
                "has several modes, or a direction that mixes slowly and wants another parametrisation."
            )
        else:
            needed = math.ceil(3 * self.groups / (MAX_R_HAT**2 - 1) / 100) * 100
            why = "superchains, or the two halves of the run, differ by more than that allows."
            remedy = (
                f"With {self.groups} superchains this takes some {needed:,} effective draws, and there are "
                f"about {numbers.ess[worst]:,.0f}: draw more (num_samples). If it stays, warm up longer."
            )
        return Finding(
            kind="r_hat",
            where=self.names[worst],
            number=float(numbers.r_hat[worst]),
            threshold=MAX_R_HAT,
            words=f"{self.names[worst]} has a nested R-hat of {numbers.r_hat[worst]:.3f} (at most "
            f"{MAX_R_HAT} is asked for): {why}{others}",
            remedy=remedy,
        )

    def _apart(self, numbers: Mixing) -> Finding:
        worst = int(numbers.apart.argmax())
        group = int(numbers.farthest[worst])
        members = tuple(int(chain) for chain in np.flatnonzero(self.ids == group))
        others = self._more(numbers.apart > 0, "The like holds for", "The like holds for")
        return Finding(
            kind="superchain",
            where=self.names[worst],
            number=float(numbers.apart[worst]),
            threshold=APART,
            words=f"One superchain ({name_chains(members)}) is {numbers.apart[worst]:.2f} standard "
            f"deviations away from all others in {self.names[worst]}, far more than chance allows.{others}",
            remedy=f"It may sit in a mode of its own, or still be on its way: {LONGER}, "
            "then look at where these chains are.",
            chains=members,
        )

    def _drift(self, numbers: Mixing) -> Finding:
        worst = int(numbers.drift.argmax())
        others = self._more(numbers.drift > 0, "So did", "So did")
        return Finding(
            kind="drift",
            where=self.names[worst],
            number=float(numbers.drift[worst]),
            threshold=DRIFT,
            words=f"{self.names[worst]} moved by {numbers.drift[worst]:.2f} standard deviations from the "
            f"beginning of the run to its second half, in all chains together.{others}",
            remedy=f"The chains had not arrived when sampling began: {LONGER}; with tuning= of "
            "another run, begin where its chains ended (initial_positions) or ask for some num_warmup.",
        )

    def _ess(self, numbers: Mixing, bad: np.ndarray) -> Finding:
        worst = int(np.argmin(np.where(bad, np.nan_to_num(numbers.ess, nan=0.0), np.inf)))
        value = float(numbers.ess[worst])
        longer = 1.25 * MIN_ESS / max(value, 1.0)
        others = self._more(bad, "So has", "So have")
        return Finding(
            kind="ess",
            where=self.names[worst],
            number=value,
            threshold=MIN_ESS,
            words=f"{self.names[worst]} has {value:,.0f} effective draws (at least {MIN_ESS} are asked for).{others}",
            remedy="Look first at the chains that stand apart: without them there may be enough."
            if self.troubled
            else f"Draw more: {longer:.2g} times as many (num_samples) should do.",
        )
