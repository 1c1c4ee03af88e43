"""What sampling many data sets gives back: a result for each, and all of them at a glance."""

import dataclasses
import functools
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from shoal.diagnostics.findings import count
from shoal.extras import require
from shoal.results.result import Result
from shoal.results.summary import WIDTH, seconds

if TYPE_CHECKING:
    import pandas

# Data sets that are named in words.
SHOWN = 12


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ManyResults(Sequence[Result]):
    """The results of many data sets, in their order.

    Attributes:
        results: one for each data set, as `shoal.sample` gives it, with its own tuning, findings and verdict; of the
            times it knows nothing, since data sets run side by side.
        draws: by variable, `[data set, chain, draw, *shape]`, on the user's supports, float32 or float64; those of the
            results are views of them.
        sample_stats: `[data set, chain, draw]` each.
        settings: what was asked for.
        compile_seconds: that finding the starts and compiling took.
        seconds: that sampling took, all data sets together.
    """

    results: tuple[Result, ...]
    draws: Mapping[str, np.ndarray]
    sample_stats: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]
    compile_seconds: float
    seconds: float

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        return self.results[index]

    @functools.cached_property
    def converged(self) -> np.ndarray:
        """Whether each data set's run has converged, `[data set]`, bool; judged when first asked for.

        Judging goes through all draws, one data set after another: of small models it takes longer than sampling.
        """
        return np.array([result.converged for result in self.results])

    @property
    def lockstep(self) -> float:
        """The share of the gradients in sampling that a draw used: data sets of a block wait for each other."""
        used = sum(result.gradients.sampling for result in self.results)
        paid = sum(result.gradients.paid for result in self.results)
        return used / paid if paid else 1.0

    def summary(self, var_names: Sequence[str] | str | None = None) -> "pandas.DataFrame":
        """The summaries of all data sets, one under the other.

        Args:
            var_names: the variables to show; all when None.

        Returns:
            Rows by `data_set` and `quantity`, such as `(3, "theta[0]")`; columns as of `Result.summary`.

        Raises:
            ValueError: a name is not among the variables.
        """
        pandas = require("pandas", "A summary table", extra="diagnostics")
        tables = {number: result.summary(var_names) for number, result in enumerate(self.results)}
        return pandas.concat(tables, names=["data_set", "quantity"])

    def __repr__(self) -> str:
        settings, wrong = self.settings, np.flatnonzero(~self.converged)
        what = ", ".join(str(settings[key]) for key in ("model", "sampler", "precision"))
        draws = f"{count(settings['num_chains'], 'chain')} × {count(settings['num_samples'], 'draw')}"
        verdict = f"{len(self) - len(wrong):,} of {len(self):,} converged"
        if len(wrong):
            verdict += f"; not {listed(wrong)}"
        pairs = [("verdict", verdict)]
        kinds = Counter(kind for result in self.results for kind in {finding.kind for finding in result.findings})
        if kinds:
            words = ", ".join(f"{kind} ({number:,})" for kind, number in kinds.most_common())
            pairs.append(("findings", f"{words}: the kinds and in how many data sets; see [i].findings"))
        pairs.append(("time", f"compile {seconds(self.compile_seconds)}, sampling {seconds(self.seconds)}"))
        pairs.append(("gradients", f"{self.lockstep:.0%} of those computed were used: data sets waited for others"))
        lines = [f"{what}: {count(len(self), 'data set')}, {draws} of each"]
        for word, text in pairs:
            lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {word:<9}  ", subsequent_indent=" " * 13)
        return "\n".join(lines)


def listed(numbers: Sequence[int] | np.ndarray) -> str:
    """Data sets by number: "data set 3", "data sets 0, 1, 2 and 40 more".

    Args:
        numbers: at least one.

    Returns:
        Words.
    """
    some = [str(number) for number in numbers[:SHOWN]]
    if len(numbers) == 1:
        return f"data set {some[0]}"
    if len(numbers) > SHOWN:
        return f"data sets {', '.join(some)} and {len(numbers) - SHOWN:,} more"
    return f"data sets {', '.join(some[:-1])} and {some[-1]}"
