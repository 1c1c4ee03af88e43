"""One variable on trial: its numbers in words."""

import math
from collections.abc import Iterator

import numpy as np

from shoal.diagnostics.estimates import MIN_DRAWS
from shoal.diagnostics.findings import Finding, count, name_chains
from shoal.diagnostics.grouping import Groups, groups
from shoal.diagnostics.mixing import APART, DRIFT, Mixing
from shoal.diagnostics.rows import InParts, row_of
from shoal.diagnostics.tails import HEAVY

MAX_R_HAT = 1.01
MIN_ESS = 400
LONGER = (
    "warm up longer (num_warmup; where the warmup ends by itself, go on from the last draws, with this run's tuning= "
    "and initial_positions=)"
)
SPREADS = "More draws will not help while it spreads: look at that first."
GROUPED = "More draws will not help while chains are in groups: look at that first."
WEIGHTS = (
    "These look like modes, and more draws will not help. Their weights cannot be trusted, since a group has as many "
    "chains as began near it, and neither can means and quantiles over all; within a group they can. Compare the "
    "groups in log density (lp) and in the other quantities: if they differ by the order of labels alone, order these "
    "(shoal.ordered); if one is absurd, rule it out by the prior or by starts (initial_positions); if both are meant, "
    "reparametrise so that there is a way between them."
)


class Variable:
    """One variable on trial: its findings, at most one of each kind, about its worst number.

    Args:
        name: the variable.
        names: labels of its numbers, in C order.
        values: its draws, `[chain, draw, *shape]`; a number that is in trouble is looked at again.
        ids: `[chain]`, superchains from 0.
        troubled: whether single chains stand apart, which spoils every number.
    """

    def __init__(
        self, name: str, names: list[str], values: np.ndarray | InParts, ids: np.ndarray, troubled: bool
    ) -> None:
        self.name, self.names, self.values, self.ids, self.troubled = name, names, values, ids, troubled
        self.groups = int(ids.max()) + 1
        # Numbers whose modes have been told of: once is enough.
        self.told: set[int] = set()

    def say(self, numbers: Mixing) -> Iterator[Finding]:
        """Find.

        Args:
            numbers: of this variable.

        Yields:
            What forbids to use its draws, then what is worth knowing about its tails.
        """
        if numbers.missing.any():
            yield self._missing(numbers)
        if self.values.shape[1] < MIN_DRAWS or not numbers.judged.any():
            return
        # "Not at most" and "not at least", so that what cannot be computed blocks too.
        bad = numbers.judged & ~(numbers.r_hat <= MAX_R_HAT)
        if self.groups > 1 and bad.any():
            yield self._r_hat(numbers, bad)
        elif (numbers.apart > 0).any():
            yield self._apart(numbers)
        if numbers.growing.any():
            yield self._improper(numbers)
        moved = numbers._replace(drift=np.where(numbers.growing, 0, numbers.drift))
        if (moved.drift > 0).any():
            yield self._drift(moved)
        # Where superchains disagree, there are few effective draws because of it: one finding is enough.
        bad = numbers.judged & ~(numbers.ess >= MIN_ESS) & (numbers.apart == 0)
        if bad.any():
            yield self._ess(numbers, bad)
        # Nobody asks for the mean of the log density.
        if self.name != "lp":
            yield from self._tails(numbers)

    def _tails(self, numbers: Mixing) -> Iterator[Finding]:
        # Chains that are elsewhere, or on their way, make a tail of what is none.
        sound = numbers._replace(heavy=np.where((numbers.apart == 0) & (numbers.drift == 0), numbers.heavy, 0))
        if (sound.heavy > 0).any():
            yield self._heavy(sound)
        # Where the middle is not known well enough the tails are not, and draws for it do for them.
        poor = numbers.judged & (numbers.ess >= MIN_ESS) & (numbers.tail_ess < MIN_ESS)
        if poor.any():
            yield self._tail_ess(numbers, poor)

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
        modes = self._modes(worst)
        if modes is not None:
            why, remedy = _seen(modes), WEIGHTS
        elif numbers.growing[worst]:
            why, remedy = "superchains, or the two halves of the run, differ by more than that allows.", SPREADS
        elif numbers.apart[worst] > 0:
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
            chains=() if modes is None else modes.smaller,
        )

    def _modes(self, number: int) -> Groups | None:
        found = groups(np.asarray(row_of(self.values, number), float), self.ids)
        if found is not None:
            self.told.add(number)
        return found

    def _apart(self, numbers: Mixing) -> Finding:
        worst = int(numbers.apart.argmax())
        group = int(numbers.farthest[worst])
        members = tuple(int(chain) for chain in np.flatnonzero(self.ids == group))
        others = self._more(numbers.apart > 0, "The like holds for", "The like holds for")
        modes = self._modes(worst)
        return Finding(
            kind="superchain",
            where=self.names[worst],
            number=float(numbers.apart[worst]),
            threshold=APART,
            words=f"One superchain ({name_chains(members)}) is {numbers.apart[worst]:.2f} standard "
            f"deviations away from all others in {self.names[worst]}, far more than chance allows"
            f"{'.' if modes is None else f': {_seen(modes)}'}{others}",
            remedy=f"It may sit in a mode of its own, or still be on its way: {LONGER}, "
            "then look at where these chains are."
            if modes is None
            else WEIGHTS,
            chains=members if modes is None else modes.smaller,
        )

    def _improper(self, numbers: Mixing) -> Finding:
        worst = int(np.where(numbers.growing, numbers.drift, 0).argmax())
        quarters = np.array_split(np.asarray(row_of(self.values, worst), float), 4, axis=1)
        first, _, third, fourth = (float(np.subtract(*np.quantile(part, (0.75, 0.25)))) for part in quarters)
        label, others = self.names[worst], self._more(numbers.growing, "So does", "So do")
        return Finding(
            kind="improper",
            where=label,
            number=float(numbers.drift[worst]),
            threshold=DRIFT,
            words=f"{label} spreads for as long as the run lasts: its quartiles are {fourth / first:.2f} times as far "
            f"from each other in the last quarter of the run as in the first, and {fourth / third:.2f} times as far as "
            f"in the third. Nothing says that it ends: a posterior that is flat there cannot be normalised, and has "
            f"no mean.{others}",
            remedy=f"Look whether the data say anything about {label}, or only about its sum or product with another, "
            "and give it a prior that does, or fix one of the two (model.check() sees a parameter without a prior). If "
            "its posterior is proper after all, chains take longer than this run to see the width of it: "
            f"{LONGER}, or reparametrise.",
        )

    def _heavy(self, numbers: Mixing) -> Finding:
        worst = int(numbers.heavy.argmax())
        k, label = float(numbers.heavy[worst]), self.names[worst]
        end = "upper" if numbers.upper[worst] else "lower"
        others = self._more(numbers.heavy > 0, "So has", "So have")
        exists = "neither its mean nor its variance exists" if k >= 1 else "its variance does not exist"
        return Finding(
            kind="heavy_tail",
            where=label,
            number=k,
            threshold=HEAVY,
            blocking=False,
            words=f"{label} has a heavy {end} tail (Pareto k {k:.2f}; from {HEAVY} on means are not to be trusted): as "
            f"far as these draws tell, {exists}, so that neither its mean and standard deviation nor the error of the "
            f"mean (mcse_mean) can be believed. Its quantiles can.{others}",
            remedy=f"Report the median and other quantiles of {label}, or the mean of its logarithm; and ask whether a "
            "prior with such a tail is what was meant, since the data do not cut it off.",
        )

    def _tail_ess(self, numbers: Mixing, poor: np.ndarray) -> Finding:
        worst = int(np.argmin(np.where(poor, numbers.tail_ess, np.inf)))
        value, label = float(numbers.tail_ess[worst]), self.names[worst]
        others = self._more(poor, "So has", "So have")
        error = math.sqrt(0.05 * 0.95 / max(value, 1.0))
        return Finding(
            kind="tail_ess",
            where=label,
            number=value,
            threshold=MIN_ESS,
            blocking=False,
            words=f"{label} has {value:,.0f} effective draws of one of its tails (at least {MIN_ESS} are asked for), "
            "and enough in the middle: its mean is known, but beyond its 5% or its 95% quantile may be 5% of the mass "
            f"give or take {2 * error:.1%}.{others}",
            remedy=f"Where intervals of {label} matter, draw {1.25 * MIN_ESS / max(value, 1.0):.2g} times as many "
            "(num_samples).",
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
        known = worst in self.told
        modes = None if known else self._modes(worst)
        if known:
            remedy = GROUPED
        elif modes is not None:
            remedy = WEIGHTS
        elif numbers.growing[worst]:
            remedy = SPREADS
        elif self.troubled:
            remedy = "Look first at the chains that stand apart: without them there may be enough."
        else:
            remedy = f"Draw more: {longer:.2g} times as many (num_samples) should do."
        return Finding(
            kind="ess",
            where=self.names[worst],
            number=value,
            threshold=MIN_ESS,
            words=f"{self.names[worst]} has {value:,.0f} effective draws (at least {MIN_ESS} are asked for)"
            f"{'.' if modes is None else f': {_seen(modes)}'}{others}",
            remedy=remedy,
            chains=() if modes is None else modes.smaller,
        )


def _seen(modes: Groups) -> str:
    """The groups in words: of superchains, or where some are in several, of chains."""
    sizes, what, divided = modes.superchains, "superchains", ""
    if modes.divided:
        sizes, what = np.bincount(modes.members[modes.members >= 0]).tolist(), "chains"
        divided = f"; {count(modes.divided, 'superchain')} with chains in several"
    each = zip(sizes, modes.centres.tolist(), strict=True)
    *some, last = (f"{size:,} around {_about(centre, modes.width)}" for size, centre in each)
    return (
        f"the {what} fall into {len(sizes)} groups between which chains hardly go, {', '.join(some)} and {last}"
        f"{divided} (the standard deviation within a chain is {modes.width:.2g})."
    )


def _about(value: float, width: float) -> str:
    """A value to a small part of the width of what it is the middle of."""
    rounded = round(value, -math.floor(math.log10(width / 3))) if width > 0 else value
    return f"{rounded + 0.0:.6g}"
