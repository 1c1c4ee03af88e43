"""Whether draws are enough and converged, by ArviZ for everybody: the worst over x and x² of every parameter.

Rank-normalised R-hat of many short chains says how short they are. Chains are therefore joined to at most eight groups,
one after another, before R-hat is computed of them, which a peer of many chains gains by.

Reference: Vehtari et al. (2021), Rank-normalization, folding, and localization, arXiv:1903.08008.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from shoal.extras import require

ESS, R_HAT = 1_000.0, 1.01
GROUPS = 8
FEWEST = 4  # draws of a chain, that an effective sample size can be computed of


class Judged(NamedTuple):
    """The worst bulk effective sample size, and the worst R-hat; NaN of what is not finite."""

    ess: float
    r_hat: float

    @property
    def enough(self) -> bool:
        """Whether there are 1,000 effective draws that agree."""
        return self.ess >= ESS and self.r_hat < R_HAT


class Judge:
    """Says how good draws are; what was not good enough last is looked at first, and mostly alone."""

    def __init__(self) -> None:
        self._stats = require("arviz_stats.base", "Judging the draws of peers", extra="diagnostics").array_stats
        self._last = 0

    def judged(self, draws: Mapping[str, Any], whole: bool = False) -> Judged:
        """The worst of draws `{name: [chain, draw, *shape]}` on the supports.

        Args:
            draws: of every parameter.
            whole: whether to look on when something is not enough; otherwise the worst is that of what was looked at.
        """
        made = columns(draws)
        if made is None:
            return Judged(float("nan"), float("nan"))
        ess, r_hat = float("inf"), float("nan")
        for number in [self._last, *(number for number in range(len(made)) if number != self._last)]:
            one = self._judged(made[number], whole)
            ess, r_hat = min(ess, one.ess), float(np.fmax(r_hat, one.r_hat))
            if not one.enough and not whole:
                self._last = number
                break
        return Judged(ess, r_hat)

    def _judged(self, column: np.ndarray, whole: bool) -> Judged:
        ess = self._stats.ess(column, chain_axis=0, draw_axis=1, method="bulk")
        if ess < ESS and not whole:  # R-hat, which sorts all draws, takes longer
            return Judged(float(ess), float("nan"))
        r_hat = self._stats.rhat(grouped(column), chain_axis=0, draw_axis=1, method="rank")
        return Judged(float(ess), float(r_hat))


def columns(draws: Mapping[str, Any]) -> list[np.ndarray] | None:
    """X and x² of every number of every parameter, `[chain, draw]` each; None of what cannot be judged."""
    each = [np.asarray(values, np.float64) for values in draws.values()]
    x = np.concatenate([values.reshape(*values.shape[:2], -1) for values in each], axis=-1)
    if not np.isfinite(x).all() or x.shape[1] < FEWEST:
        return None
    return [column for both in (x, x**2) for column in np.moveaxis(both, -1, 0)]


def grouped(column: np.ndarray) -> np.ndarray:
    """`[chain, draw]` with the chains of each group as one, draw by draw, so that its halves are those of the run."""
    chains, draws = column.shape
    if chains <= GROUPS or chains % GROUPS:
        return column
    return column.reshape(GROUPS, -1, draws).swapaxes(1, 2).reshape(GROUPS, -1)
