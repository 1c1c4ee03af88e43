"""The draws of a run that is under way, as a result that does not change any more."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from shoal.diagnostics.findings import Finding
from shoal.diagnostics.unkept import not_judged_yet
from shoal.results.draws import MemoryDraws
from shoal.results.folded_draws import MemoryFolds
from shoal.results.result import Gradients, Result, Timing
from shoal.results.store import judged_at_the_end, load
from shoal.results.stored_draws import StoredDraws
from shoal.results.zarr_draws import ZarrDraws


@dataclasses.dataclass(frozen=True)
class SoFar:
    """Where the draws of a run go, to be looked at from another thread than the one that makes them.

    Attributes:
        draws: where they go.
        tuning: that they are made with.
        timing: of what came before them.
        gradients: evaluations in warmup.
        notes: findings made so far.
        keep: told of a result that reads from there.
    """

    draws: MemoryDraws | MemoryFolds | ZarrDraws
    tuning: Mapping[str, np.ndarray]
    timing: Timing
    gradients: int
    notes: tuple[Finding, ...]
    keep: Callable[[Result], None] = lambda result: None

    def result(self, seconds: float, gradients: int) -> Result | None:
        """The draws so far; None where there are none.

        Args:
            seconds: of sampling so far.
            gradients: evaluations in it.
        """
        if isinstance(self.draws, ZarrDraws):
            # As another process would: the arrays and the journal are written so that it may at any time.
            found = load(self.draws.path)
            self.keep(found)
        elif isinstance(self.draws, MemoryFolds):
            moments = self.draws.so_far()
            none = StoredDraws({}, 0 if moments is None else moments.count)
            found = Result(none, none, **vars(self.draws.header), moments=moments)
        else:
            draws, stats = self.draws.so_far()
            found = Result(draws, stats, **vars(self.draws.header))
        if not isinstance(self.draws, ZarrDraws) and judged_at_the_end(self.draws.header.settings):
            found.notes = (not_judged_yet(),)
        if not found.num_draws:
            return None
        return dataclasses.replace(
            found,
            tuning=self.tuning,
            timing=self.timing._replace(sampling=seconds),
            gradients=Gradients(self.gradients, gradients),
            notes=(*self.notes, *found.notes),
            interrupted=True,
            judged=None,
        )


def unwatched(so_far: SoFar) -> None:
    """Nobody looks."""
