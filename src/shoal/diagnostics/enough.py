r"""Whether a run may end: what it has said at the ends of windows, and what is asked of it.

Looks are at \(n = 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, \dots\) draws of each chain: four to a doubling, so that the
fourth before the last was at half as many. Only there a decision is made, and only if all hold:

1. every mean rests on at least five autocorrelation times of draws of each chain, \(\mathrm{ESS} \ge 5 C\), and nested
   R-hat is at most \(\sqrt{1 + 1/M + \tau}\), \(\tau = 10^{-4}\) (Margossian et al., arXiv:2110.13017, whose rule with
   one draw of each chain passes 50 parameters with probability 3e-13 at exact stationarity);
2. no mean has moved, from the first part of the draws to the rest, by more than three of the errors of both, after
   Bonferroni for the number of means;
3. Stein's identities hold within four errors: \(E[\partial_i \log p] = 0\), \(E[-(x_i - c_i)\,\partial_i \log p] = 1\);
4. the precision is reached that was asked for.

What all draws say by ranks comes after that (`shoal.diagnostics.verdict.judge`). Errors have few degrees of freedom
where chains are few: thresholds are quantiles of Student's t with the tail of the normal one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

from shoal.diagnostics.precision import Precision
from shoal.until import Until

FIRST_LOOK, LOOKS = 4, 4
TIMES, TAU = 5.0, 1e-4
DRIFT_ERRORS, STEIN_ERRORS = 3.0, 4.0
# What varies less than so many roundings of its own size is a constant.
ROUNDINGS = 8


def next_look(done: int, unit: int) -> int:
    """The number of draws of each chain at which a decision comes next.

    Args:
        done: draws so far.
        unit: looks are at multiples of it: of the draws of a sweep, and of those of which one is kept.
    """
    size = FIRST_LOOK
    while True:
        for look in range(size, 2 * size, size // LOOKS):
            if (look := -(-look // unit) * unit) > done:
                return look
        size *= 2


class Earlier(NamedTuple):
    """What is remembered of a look.

    Attributes:
        draws: of each chain.
        mean: of each quantity.
        mcse: the errors of these.
        freedom: degrees of freedom of the errors.
    """

    draws: int
    mean: np.ndarray
    mcse: np.ndarray
    freedom: float


@dataclass(frozen=True)
class Rule:
    """What is asked of a run.

    Attributes:
        until: in the user's words.
        labels: of the numbers of the parameters and of what errors were asked for, in order.
        variables: that these are numbers of.
        coordinates: labels of the unconstrained coordinates.
        superchain: `[chain]`, from 0.
        dtype: of the numbers; for what is a constant but for rounding.
    """

    until: Until
    labels: Sequence[str]
    variables: Sequence[str]
    coordinates: Sequence[str]
    superchain: np.ndarray
    dtype: np.dtype

    def lacks(self, now: Precision, draws: int, before: Sequence[Earlier], centre: np.ndarray) -> "Lack":
        """What keeps the run from ending.

        Args:
            now: what all draws say.
            draws: of each chain.
            before: the looks before this, in order.
            centre: that was taken off each number and the log density, which come first in it.
        """
        if len([look for look in before if look.draws < draws]) < LOOKS:
            return Lack("there was no earlier look to compare with")
        wrong = {"stein": self._stein(now), "drift": self._drift(now, draws, before)}
        doubt = next(((kind, words) for kind, words in wrong.items() if words), ("", ""))
        return Lack(self._precision(now, centre) or self._agreement(now) or doubt[1], *doubt)

    def _means(self) -> tuple[slice, list[str]]:
        """Of the numbers, their squares and the log density."""
        squares = [f"the square of {label}" for label in self.labels]
        return slice(0, 2 * len(self.labels) + 1), [*self.labels, *squares, "the log density"]

    def _vary(self, now: Precision, centre: np.ndarray) -> np.ndarray:
        """Which of the means are of no constant."""
        numbers, sd = len(self.labels), now.sd[: 2 * len(self.labels) + 1]
        sizes = np.abs(np.concatenate([centre[:numbers], centre[: numbers + 1]]))
        least = ROUNDINGS * np.finfo(self.dtype).eps * sizes
        least[numbers : 2 * numbers] **= 2
        varies = ~(sd <= least)
        # Of a number that is a constant the square is one, too, whatever its rounding makes of it.
        varies[numbers : 2 * numbers] &= varies[:numbers]
        return varies

    def _precision(self, now: Precision, centre: np.ndarray) -> str:
        place, labels = self._means()
        varies = self._vary(now, centre)
        if not varies.any():
            return "no quantity takes more than one value"
        for at, (label, variable) in enumerate(zip(self.labels, self.variables, strict=True)):
            if variable in self.until.mcse and now.sd[at] > 0 and not varies[at]:
                return f"{label} varies by its rounding only: no error of it can be told (precision='float64' may)"
        asked = np.zeros(len(varies))
        asked[:-1] = self.until.least_ess or 0.0
        for name, error in self.until.mcse.items():
            own = np.array([variable == name for variable in self.variables])
            with np.errstate(all="ignore"):
                needed = (now.sd[: len(own)] / error) ** 2
            asked[: len(own)] = np.where(own, np.maximum(asked[: len(own)], np.nan_to_num(needed)), asked[: len(own)])
        times = TIMES * len(self.superchain)
        short = varies & ~(now.ess[place] >= np.maximum(asked, times))
        if not short.any():
            return ""
        needed = np.maximum(asked, times)
        worst = int(np.argmin(np.where(short, np.nan_to_num(now.ess[place]) / needed, np.inf)))
        why = "" if asked[worst] >= times else f", {TIMES:g} for each chain"
        return f"{labels[worst]} has {np.nan_to_num(now.ess[worst]):,.0f} of {needed[worst]:,.0f} effective draws{why}"

    def _agreement(self, now: Precision) -> str:
        groups = int(self.superchain.max(initial=0)) + 1
        if groups < 2:
            return ""
        place, labels = self._means()
        most = float(np.sqrt(1 + groups / len(self.superchain) + TAU))
        r_hat = np.nan_to_num(now.r_hat[place], nan=0.0)  # a constant's
        worst = int(r_hat.argmax())
        return (
            "" if r_hat[worst] <= most else f"{labels[worst]} has a nested R-hat of {r_hat[worst]:.3f} above {most:.3f}"
        )

    def _drift(self, now: Precision, draws: int, before: Sequence[Earlier]) -> str:
        place, labels = self._means()
        then = [look for look in before if look.draws < draws][-LOOKS]
        late = draws - then.draws
        moved = draws / late * np.abs(now.mean - then.mean)[place]
        # The error of the rest is that of the first part, as much smaller as there are more draws.
        error = then.mcse[place] * np.sqrt(1 + then.draws / late)
        level = 2 * ndtr(-DRIFT_ERRORS) / len(labels)
        most = -stdtrit(min(now.freedom, then.freedom), level / 2)
        with np.errstate(all="ignore"):
            errors = np.where(moved > 0, moved / error, 0.0)
        # Where the first part knows no error of a quantity, nothing is known of how far it has moved.
        errors = np.where(np.isnan(errors) & (now.sd[place] > 0), np.inf, np.nan_to_num(errors, posinf=np.inf))
        worst = int(errors.argmax())
        return "" if errors[worst] <= most else f"{labels[worst]} is still moving"

    def _stein(self, now: Precision) -> str:
        dim = len(self.coordinates)
        truth = np.concatenate([np.zeros(dim), np.ones(dim)])
        place = slice(len(now.mean) - 2 * dim, None)
        most = -stdtrit(now.freedom, ndtr(-STEIN_ERRORS))
        off = np.abs(now.mean[place] - truth)
        # A sum of float32 numbers is off by some roundings, however small its error.
        error = now.mcse[place] + np.finfo(self.dtype).eps * np.sqrt(now.sd[place] ** 2 + truth)
        bad = ~(off <= most * error)
        if not bad.any():
            return ""
        with np.errstate(all="ignore"):
            worst = int(np.argmax(np.where(bad, np.nan_to_num(off / error, nan=np.inf, posinf=np.inf), 0)))
        what = "the mean of the gradient" if worst < dim else "the mean of -(x - c) times the gradient"
        said = "0" if worst < dim else "1"
        number = f"{now.mean[place][worst]:.3g}, with an error of {error[worst]:.1g}, and not {said}"
        return (
            f"{what} along {self.coordinates[worst % dim]} is {number}: chains are not yet everywhere as often as they "
            "should be, or the density has an edge there (a support that is not declared)"
        )


class Lack(NamedTuple):
    """What keeps a run from ending.

    Attributes:
        words: what; empty where nothing does.
        doubt: the kind of a finding, "stein" or "drift", where there is one that more precision does not settle.
        why: what is in doubt, in words.
    """

    words: str
    doubt: str = ""
    why: str = ""


class Looks:
    """The looks of a run, of which the last few are remembered."""

    def __init__(self, earlier: Sequence[Earlier] = ()) -> None:
        """Go on from some.

        Args:
            earlier: in order.
        """
        self.earlier = list(earlier)

    def add(self, draws: int, now: Precision) -> None:
        """Remember what was seen."""
        if not self.earlier or self.earlier[-1].draws < draws:
            self.earlier = [*self.earlier[-LOOKS:], Earlier(draws, now.mean, now.mcse, now.freedom)]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is remembered, by name."""
        if not self.earlier:
            return {}
        fields = zip(Earlier._fields, zip(*self.earlier, strict=True), strict=True)
        return {name: np.stack([np.asarray(value) for value in values]) for name, values in fields}

    @classmethod
    def restored(cls, arrays: Mapping[str, Any]) -> "Looks":
        """From what `arrays` of others were."""
        if not arrays:
            return cls()
        return cls(
            [Earlier(int(draws), *rest) for draws, *rest in zip(*(arrays[n] for n in Earlier._fields), strict=True)]
        )
