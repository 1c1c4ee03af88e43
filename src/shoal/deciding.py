"""Whether a run that may end by itself does so: looked at between chunks, on what is folded and on the draws."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np

from shoal.diagnostics.enough import Looks, Rule, next_look
from shoal.diagnostics.findings import Finding
from shoal.labels import labels
from shoal.results.draws import Header, MemoryDraws
from shoal.results.failure import imprecise
from shoal.results.folded_draws import MemoryFolds, ZarrFolds
from shoal.results.result import Result
from shoal.results.zarr_draws import ZarrDraws
from shoal.run import Run, on_host
from shoal.session import PRECISION, Session
from shoal.statistics import ChainMeans
from shoal.watching.record import Told, quantities

if TYPE_CHECKING:
    from shoal.until import Until

type Sink = MemoryDraws | MemoryFolds | ZarrDraws
# So few superchains are told of at the end, and no number of draws makes more of them.
FEW = ("too_few", "superchains")
# Nor do more draws mend these, where they are so much worse than what is let pass.
LASTING, WORSE = ("divergences", "neck", "non_finite"), 1.5


class Decision:
    """When a run ends, of one that is asked for a precision or for a number of draws.

    Attributes:
        lacks: what kept it from ending at its last look, in words; empty where nothing did.
        judged: what was found at the look at which it ended; None as long as it has not.
        given_up: whether it ended because more draws would not mend what was found.
    """

    def __init__(self, session: Session, header: Header, looks: Mapping[str, np.ndarray]) -> None:
        """Decide nothing yet.

        Args:
            session: of the run.
            header: of its draws.
            looks: that were remembered, by name.
        """
        self.lacks, self.judged, self.given_up = "", None, False
        self._is_due = False
        self._session, self._header, self._looks = session, header, Looks.restored(looks)
        program, request = session.sampling.program, session.request
        self._until: Until | None = request.until
        self._unit = math.lcm(program.kernel.draws_per_sweep, request.thinning)
        self._rule = None if request.until is None else _rule(session, request.until)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is to be remembered of the looks, by name."""
        return self._looks.arrays

    def next_end(self, done: int) -> int:
        """The number of draws at which a chunk ends next, whatever its time.

        Args:
            done: draws of each chain so far.
        """
        length = self._session.request.num_samples
        return length if self._rule is None else min(length, next_look(done, self._unit))

    def look(self, run: Run, done: int) -> None:
        """See what is folded, where that is due, before it is written down.

        Args:
            run: where it is.
            done: draws of each chain.
        """
        self._is_due = self._rule is not None and done > 0 and self.next_end(done - 1) == done
        if not self._is_due or self._rule is None:
            return
        fold: Any = self._session.sampling.program.statistics[PRECISION]
        memory = on_host(run.statistics[PRECISION], self._session.placement)
        count = int(memory.count[0])
        now = fold.precision(memory, self._rule.superchain)
        self.lacks = self._rule.lacks(now, count, self._looks.earlier, np.asarray(fold.centre, float))
        self._looks.add(count, now)

    def ends(self, done: int, draws: Sink, drain: Callable[[], None], told: Told | None) -> bool:
        """Whether the run ends here, by a look that was due and by the draws so far.

        Args:
            done: draws of each chain.
            draws: where they are.
            drain: waits until all of them are kept.
            told: of them.
        """
        if not self._is_due or self.lacks:
            return False
        drain()
        if draws.committed * self._session.request.thinning != done:  # a failure, which comes up elsewhere
            return False
        findings = () if told is None else self._session.unkept(told)
        moments = draws.moments() if isinstance(draws, MemoryFolds | ZarrFolds) else None
        header = self._header
        so_far = Result(
            draws.draws, draws.sample_stats, header.superchain, dims=header.dims, coords=header.coords, moments=moments
        )
        found = (*findings, *so_far.findings)
        against = [one for one in found if one.blocking and (one.kind, one.where) != FEW]
        self.given_up = bool(against) and all(_lasts(one) for one in against)
        self.lacks = f"the draws are not to be trusted yet. {against[0].words}" if against else self._tails(so_far)
        if self.given_up or not self.lacks:
            self.judged = found
        return self.judged is not None

    def concluded(self, done: int, length: int) -> tuple[Finding, ...]:
        """What is said of a run that ends before it is precise; nothing where it was not asked to be.

        Args:
            done: draws of each chain.
            length: the most that it may have.
        """
        if self._rule is None or (self.judged is not None and not self.given_up):
            return ()
        return (imprecise(done, length, "" if self.given_up else self.lacks, self.given_up),)

    def _tails(self, so_far: Result) -> str:
        assert self._until is not None
        if not self._until.quantiles:
            return ""
        least = self._until.least_ess or 0.0
        for name in self._session.model.parameter_names:
            if name in so_far.variables:
                ess = so_far.table[name]["ess_tail"].ravel()
                short = np.flatnonzero(ess < least)  # NaN is a constant's
                if short.size:
                    worst = short[ess[short].argmin()]
                    label = so_far.labels(name)[worst]
                    return f"a tail quantile of {label} has {ess[worst]:,.0f} of {least:,.0f} effective draws"
        return ""


def _lasts(finding: Finding) -> bool:
    return finding.kind in LASTING and finding.number > WORSE * (finding.threshold or 0.0)


def _rule(session: Session, until: "Until") -> Rule:
    model, request = session.model, session.request
    fold: Any = session.sampling.program.statistics[PRECISION]
    position = jax.ShapeDtypeStruct((1, model.dim), request.dtype)
    shapes = eqx.filter_eval_shape(session.target.constrained, position)
    names, variables = [], []
    for name in fold.names:
        own = labels(name, shapes[name].shape[1:], model.dims, model.coords)
        names += own
        variables += [name] * len(own)
    coordinates = [quantity.label for quantity in quantities(model)][:-1]
    groups = np.unique(session.starts.superchain, return_inverse=True)[1]
    return Rule(until, names, variables, coordinates, groups, np.dtype(request.dtype))


def centre(session: Session, run: Run) -> None:
    """Have the session's program fold about the middle of the chains.

    Args:
        session: of the run.
        run: at the start of sampling.
    """
    program = session.sampling.program
    fold = program.statistics.get(PRECISION)
    if isinstance(fold, ChainMeans):
        memory, position = on_host((run.statistics[PRECISION], run.ensemble.position), session.placement)
        folds = {**program.statistics, PRECISION: fold.centred(memory, position)}
        program = eqx.tree_at(lambda program: program.statistics, program, folds)
        session.sampling = session.sampling._replace(program=program)
