"""What calibration says: ranks, whether they are uniform, and where not, in which way and what that means."""

import dataclasses
import functools
import textwrap
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from shoal.calibration.ranks import LOG_DENSITY
from shoal.calibration.uniformity import TESTS
from shoal.diagnostics.findings import Finding, count
from shoal.extras import require
from shoal.many.results import ManyResults, listed
from shoal.results.summary import WIDTH

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

# The share of data sets that may not have converged.
UNCONVERGED = 0.1
# Ranks among fewer draws tell little.
FEWEST = 20


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Calibration:
    """Whether posteriors give back the parameters that their data were made with. Printed, it says so in words.

    Attributes:
        labels: of the quantities that were ranked: every number of what `simulate` gave, and the log density.
        ranks: of the true values among the draws, `[data set, quantity]`, whole numbers from 0 to `num_draws`.
        places: the ranks made continuous, in (0, 1), `[data set, quantity]`: uniform where all is well.
        num_draws: draws of each data set that ranks are among, about independent.
        p_values: of `location`, `spread` and `ecdf`, `[quantity, 3]`; see `shoal.calibration.uniformity`.
        false_alarm: the probability that a model and a sampler with nothing wrong are found fault with, at most: of
            all tests of all quantities together.
        truth: what was simulated, by variable, `[data set, *shape]`.
        results: of each data set.
    """

    labels: tuple[str, ...]
    ranks: np.ndarray
    places: np.ndarray
    num_draws: int
    p_values: np.ndarray
    false_alarm: float
    truth: dict[str, np.ndarray]
    results: ManyResults

    @property
    def level(self) -> float:
        """Below which a p value counts: `false_alarm` shared among all tests of all quantities (Bonferroni)."""
        return self.false_alarm / self.p_values.size

    @property
    def passed(self) -> bool:
        """Whether no finding blocks."""
        return not any(finding.blocking for finding in self.findings)

    @functools.cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, or worth knowing; those that block first.

        Kinds: `location`, `spread` and `ecdf` (ranks of a quantity are not uniform), `not_converged`, `few_draws`.
        """
        found = []
        for label, places, p_values in zip(self.labels, self.places.T, self.p_values, strict=True):
            # Mean and spread say what is wrong; the whole distribution is asked where they say nothing.
            worst = int(p_values[:2].argmin()) if p_values[:2].min() < self.level else 2
            if p_values[worst] < self.level:
                found.append(self._wrong(label, places, TESTS[worst], float(p_values[worst])))
        found.sort(key=lambda finding: finding.number)
        found += [*self._few(), *self._unconverged()]
        return tuple(sorted(found, key=lambda finding: not finding.blocking))

    def _wrong(self, label: str, places: np.ndarray, test: str, p_value: float) -> Finding:
        words, remedy = said(label, test, places)
        return Finding(
            kind=test,
            where=label,
            number=p_value,
            threshold=self.level,
            words=f"{label}: {words} The p value is {p_value:.1g}, where {self.level:.1g} counts.",
            remedy=remedy,
        )

    def _few(self) -> list[Finding]:
        if self.num_draws >= FEWEST:
            return []
        return [
            Finding(
                kind="few_draws",
                where="draws",
                number=self.num_draws,
                threshold=FEWEST,
                words=f"Only {count(self.num_draws, 'draw')} of a data set are about independent: ranks among fewer "
                f"than {FEWEST} tell little.",
                remedy="Ask for more draws (num_samples) or more chains (num_chains).",
            )
        ]

    def _unconverged(self) -> list[Finding]:
        wrong, total = np.flatnonzero(~self.results.converged), len(self.results)
        if not len(wrong):
            return []
        many = len(wrong) > UNCONVERGED * total
        verb = "has" if len(wrong) == 1 else "have"
        return [
            Finding(
                kind="not_converged",
                where=listed(wrong),
                number=len(wrong),
                threshold=UNCONVERGED * total,
                blocking=many,
                words=f"Of {total:,} data sets, {len(wrong):,} {verb} not converged: {listed(wrong)}. Their ranks "
                f"count like all others; more than {UNCONVERGED:.0%} of such data sets "
                f"{'are too many' if many else 'would be too many'} to say that model and sampler are right.",
                remedy="See results[i].findings: longer runs, a sampler with a higher target_accept, or another "
                "parametrisation; a prior that makes such data may be wider than was meant.",
            )
        ]

    def summary(self) -> "pandas.DataFrame":
        """One row for every quantity.

        Returns:
            Columns `mean_rank` (of 1; one half if uniform), `spread` (mean square of the normal scores; 1 if uniform,
            more if posteriors are too narrow), and the p values `location`, `spread_p`, `ecdf`.
        """
        pandas = require("pandas", "A summary table", extra="diagnostics")
        columns = {"mean_rank": self.places.mean(0), "spread": (ndtri(self.places) ** 2).mean(0)}
        tests = zip(("location", "spread_p", "ecdf"), self.p_values.T, strict=True)
        return pandas.DataFrame({**columns, **dict(tests)}, index=list(self.labels))

    def plot(self, labels: list[str] | None = None) -> "Figure":
        """The empirical distribution of the places less that of uniform ones, with simultaneous bands.

        The dark band is left anywhere by one panel in twenty where nothing is wrong, the light one by so few that it
        counts.

        Args:
            labels: quantities to show; by default all, and of more than 24 those with the smallest p values.

        Returns:
            A figure of matplotlib, a panel for each quantity.

        Raises:
            ModuleNotFoundError: matplotlib is missing; the message says how to install it.
            ValueError: there is no such quantity.
        """
        from shoal.calibration.figure import ecdf_differences

        return ecdf_differences(self, labels)

    def __repr__(self) -> str:
        settings, wrong = self.results.settings, [finding for finding in self.findings if finding.blocking]
        total = f"{count(len(self.results), 'data set')}, {len(self.labels):,} quantities"
        lines = [f"{settings['model']}, {settings['sampler']}: {total}, ranks among {count(self.num_draws, 'draw')}"]
        pairs = [
            ("verdict", "not calibrated" if wrong else "passed: ranks are as of a model and a sampler that are right")
        ]
        pairs += [("" if i else "findings", str(finding)) for i, finding in enumerate(self.findings)]
        at = np.unravel_index(self.p_values.argmin(), self.p_values.shape)
        pairs.append(
            (
                "tests",
                f"smallest p value {self.p_values[at]:.2g} ({TESTS[at[1]]} of {self.labels[at[0]]}) of "
                f"{self.p_values.size:,}; below {self.level:.1g} counts, so that a false alarm of any has a "
                f"probability of {self.false_alarm:.1%} at most",
            )
        )
        for word, text in pairs:
            lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {word:<9}  ", subsequent_indent=" " * 13)
        return "\n".join(lines)


def said(label: str, test: str, places: np.ndarray) -> tuple[str, str]:
    """What ranks that are not uniform look like, and what that is a sign of.

    Args:
        label: of the quantity.
        test: that tells.
        places: `[data set]`.

    Returns:
        Words and a remedy.
    """
    if label == LOG_DENSITY:
        return (
            f"its ranks are not uniform (mean {places.mean():.2f} of 1): what the model calls likely is not what the "
            "simulated parameters and data are.",
            "Compare every prior and the likelihood with simulate; the log density tells of priors that are too wide "
            "or too narrow, and of data that are counted twice, before single parameters do.",
        )
    if test == "location":
        low = places.mean() > 0.5
        return (
            f"true values stand too {'high' if low else 'low'} among the draws, at {places.mean():.2f} of 1 on "
            f"average: the posteriors are shifted to {'small' if low else 'large'} values.",
            "Look for a Jacobian that is missing or counted twice (Shoal adds that of a support by itself, and not "
            "that of a transform in the log density), a prior that differs from that of simulate, or a wrong sign.",
        )
    if test == "spread":
        narrow = (ndtri(places) ** 2).mean() > 1
        return (
            f"true values stand {'at the ends of' if narrow else 'amid'} the draws too often: the posteriors are too "
            f"{'narrow' if narrow else 'wide'}.",
            "Compare the scales of priors and noise with those of simulate (a variance for a standard deviation?), and "
            f"look for data that are counted {'twice' if narrow else 'in part'}.",
        )
    return (
        "ranks are not uniform, though neither their mean nor their spread tells: see plot().",
        "Compare priors and likelihood with simulate; a wrong tail or a wrong mode looks like this.",
    )
