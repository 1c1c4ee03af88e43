"""Whether a run that may end by itself does so: looked at between chunks, on what is folded and on the draws."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np

from shoal.diagnostics.effective import MANY_CHAINS
from shoal.diagnostics.enough import Lack, Looks, Rule, next_look
from shoal.diagnostics.findings import Finding
from shoal.diagnostics.precision import Precision
from shoal.diagnostics.verdict import MAX_DIVERGING
from shoal.labels import labels
from shoal.models.layout import Layout
from shoal.results.draws import Header, MemoryDraws
from shoal.results.failure import doubtful, imprecise
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
# Nor do more draws mend these: draws that are not finite; a neck that is so much worse than what is let pass, of as
# many draws as its tail wants; and more divergences than are let pass, by so many of the errors of their share. As long
# as it may be more, by so many, it is not known well enough.
WORSE, SURE, ENOUGH = 2.0, (3.0, 2.0), 10_000


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
        self._lack = Lack("")
        self._is_due = False
        self._session, self._header, self._looks = session, header, Looks.restored(looks)
        program, request = session.sampling.program, session.request
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
        now = _plain(fold.precision(memory, self._rule.superchain), self._session.model.layout)
        self._lack = self._rule.lacks(now, count, self._looks.earlier, np.asarray(fold.centre, float))
        self.lacks = self._lack.words
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
        findings = () if told is None else self._session.beside_draws(told)
        moments = draws.moments() if isinstance(draws, MemoryFolds | ZarrFolds) else None
        header = self._header
        so_far = Result(
            draws.draws, draws.sample_stats, header.superchain, dims=header.dims, coords=header.coords, moments=moments
        )
        found = (*findings, *so_far.findings)
        against = [one for one in found if one.blocking and (one.kind, one.where) != FEW]
        least, most = _diverging(so_far)
        self.given_up = bool(against) and all(_lasts(one, least, done * header.num_chains) for one in against)
        if against:
            self.lacks = f"the draws are not to be trusted yet. {against[0].words}"
        elif most > MAX_DIVERGING:
            self.lacks = f"whether more than {MAX_DIVERGING:.1%} of the transitions diverge is not known well enough"
        else:
            self.lacks = self._short(so_far)
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
        lack = self._lack
        in_doubt = (doubtful(lack.doubt, lack.why),) if lack.doubt and self.judged is None else ()
        return (*in_doubt, imprecise(done, length, "" if self.given_up else self.lacks, self.given_up))

    def _short(self, so_far: Result) -> str:
        """What parameters lack by their draws: in the tails, if that was asked for, and few chains in the mean.

        Stretches may be too short to know the error of a mean by, autocorrelations hardly.
        """
        assert self._rule is not None
        until, few = self._rule.until, self._header.num_chains < MANY_CHAINS
        looks = {"of a tail": lambda column: column["ess_tail"]} if until.quantiles else {}
        if few:
            looks["by the error that is reported"] = lambda column: (column["sd"] / column["mcse_mean"]) ** 2
        least = until.least_ess or 0.0
        for what, effective in looks.items():
            for name in self._session.model.parameter_names:
                if name not in so_far.variables:
                    continue
                with np.errstate(all="ignore"):
                    ess = effective(so_far.table[name]).ravel()
                short = np.flatnonzero(ess < least)  # NaN is a constant's
                if short.size:
                    worst = short[ess[short].argmin()]
                    label = so_far.labels(name)[worst]
                    return f"{label} has {ess[worst]:,.0f} of {least:,.0f} effective draws {what}"
        return ""


def _lasts(finding: Finding, least: float, draws: int) -> bool:
    """Whether more draws would not mend what was found.

    Args:
        finding: that blocks.
        least: the share of transitions that diverge, at least.
        draws: of all chains.
    """
    if finding.kind == "neck":
        return draws >= ENOUGH and finding.number > WORSE * (finding.threshold or 0.0)
    return finding.kind == "non_finite" or (finding.kind == "divergences" and least > MAX_DIVERGING)


def _diverging(so_far: Result) -> tuple[float, float]:
    """The share of transitions that diverge, at least and at most, by the spread of chains."""
    if so_far.moments is None:
        shares = np.mean(so_far.sample_stats["diverging"], axis=1)
    else:
        shares = so_far.moments.divergences / max(so_far.moments.count, 1)
    chains, draws = len(shares), max(so_far.num_draws if so_far.moments is None else so_far.moments.count, 1)
    by_chains = shares.std(ddof=1) / np.sqrt(chains) if chains > 1 else 0.0
    error = max(by_chains, np.sqrt(max(shares.mean(), 0.0) / (chains * draws)))
    return float(shares.mean() - SURE[0] * error), float(shares.mean() + SURE[1] * error)


def _plain(now: Precision, layout: Layout) -> Precision:
    """The same, with what is of coordinates in the order of the parameters, and of these alone: two numbers of each."""
    first = len(now.mean) - 2 * layout.dim
    of_both = lambda values: layout.plain(values[first:].reshape(2, layout.dim)).reshape(-1)
    mean, sd, mcse, ess, r_hat = (np.append(part[:first], of_both(part)) for part in now[:5])
    return Precision(mean, sd, mcse, ess, r_hat, now.freedom)


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
