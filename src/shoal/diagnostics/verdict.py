"""The judge: goes through a run and makes findings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from shoal.diagnostics import chains
from shoal.diagnostics.counts import Counts
from shoal.diagnostics.energy import LOW, fraction, partners, words
from shoal.diagnostics.estimates import MIN_DRAWS, superchain_index
from shoal.diagnostics.findings import Finding, count, name_chains
from shoal.diagnostics.mixing import mixing
from shoal.diagnostics.necks import HOPELESS, NECK, hopeless, worst_tail
from shoal.diagnostics.places import Place, places
from shoal.diagnostics.ridges import MOST, with_partner
from shoal.diagnostics.rows import row_of, variable
from shoal.diagnostics.sticking import MAX_LOST, stretches
from shoal.diagnostics.trial import Variable
from shoal.labels import labels

MIN_SUPERCHAINS = 4
# Not a sharp line: with the default sampler 0.05% of transitions diverge on breast_cancer and 0.2% on German
# credit, whose posteriors agree with their references, and 0.6% on centred eight schools, whose neck is missed.
MAX_DIVERGING = 0.005


def judge(
    draws: Mapping[str, np.ndarray],
    sample_stats: Mapping[str, np.ndarray],
    superchain: np.ndarray,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    counts: Counts | None = None,
) -> tuple[Finding, ...]:
    r"""Say what forbids to use the draws, and what is worth knowing.

    A run is converged when nothing here blocks. For every number of every variable, and the log density:

    - nested R-hat over halves of superchains is at most 1.01, on normal scores, for location and scale. The
      published threshold \(\sqrt{1 + 1/M + \tau}\) asks for one effective draw from each of the M chains of a
      superchain: with M = 8 it is 1.06 and passes superchains that are a third of a standard deviation apart.
      1.01 asks for about 50 effective draws in each half of a superchain, 1,600 with 16 superchains, whatever M;
    - no superchain is significantly and by more than a quarter of a standard deviation off the others, and
      the second half of the run is not off the first by more than a tenth, nor spreads without an end
      (`shoal.diagnostics.mixing`);
    - at least 400 effective draws, for location and for scale;
    - all draws are finite.

    Where superchains disagree, groups of them are looked for (`shoal.diagnostics.grouping`). Tails that are so heavy
    that a mean says nothing, or known less well than the middle (`shoal.diagnostics.tails`), are told and do not block.

    For chains: none stood still through the last half of the run, none is far away in log density, at
    most one transition in 200 diverged, and at most one draw in 200 is of a stretch on one value that rejections do not
    explain (`shoal.diagnostics.sticking`). From no tail of a quantity do proposals fail as from the neck of a funnel
    (`shoal.diagnostics.necks`). Runs with fewer than 4 draws per chain or 4 superchains cannot
    be judged, which blocks. Quantities that are constant are left out; when all are, that blocks.

    Args:
        draws: by variable, `[chain, draw, *shape]`; variables are read one at a time.
        sample_stats: `lp`, `diverging` and `acceptance_rate`, `[chain, draw]`; what is missing is not judged.
        superchain: `[chain]`, which superchain each chain belongs to.
        dims: the names of axes, by variable.
        coords: the names along an axis, by axis.
        counts: where these are not all draws, what was counted over all: divergences, draws that are not finite,
            chains that stood still.

    Returns:
        Findings, those that block first.
    """
    ids = superchain_index(superchain, len(superchain))
    lp = np.asarray(sample_stats["lp"]) if "lp" in sample_stats else None
    length = lp.shape[1] if lp is not None else next((draws[name].shape[1] for name in draws), 0)
    found = list(_too_few(length if counts is None else counts.draws, ids))
    if length:
        apart = [*_stuck(draws, lp, sample_stats, counts), *(_far(lp) if lp is not None else ())]
        label = partial(labels, dims=dims or {}, coords=coords or {})
        found += _quantities(draws, lp, ids, label, bool(apart), counts)
        stuck = {chain for finding in apart if finding.kind == "stuck" for chain in finding.chains}
        if not any(_shifts_energy(finding) for finding in found):
            found += _energy(draws, lp, sample_stats, label)
        found += [*apart, *_sticking(draws, lp, sample_stats, stuck, counts)]
        found += [*_neck(draws, sample_stats, label), *_diverging(draws, sample_stats, label, counts)]
    return tuple(sorted(found, key=lambda finding: not finding.blocking))


def _too_few(draws: int, ids: np.ndarray) -> Iterator[Finding]:
    groups = int(ids.max(initial=-1)) + 1
    if draws < MIN_DRAWS:
        yield Finding(
            kind="too_few",
            where="draws",
            number=draws,
            threshold=MIN_DRAWS,
            words=f"A chain has {count(draws, 'draw')}, too few to judge convergence, which takes at least "
            f"{MIN_DRAWS}.",
            remedy="Ask for more draws (num_samples).",
        )
    if groups < MIN_SUPERCHAINS:
        yield Finding(
            kind="too_few",
            where="superchains",
            number=groups,
            threshold=MIN_SUPERCHAINS,
            words=f"The chains make up {count(groups, 'superchain')} (chains that began at one point); when "
            f"fewer than {MIN_SUPERCHAINS} agree, that says little about convergence.",
            remedy="Run more chains, from more starting points (num_chains).",
        )


def _quantities(
    draws: Mapping[str, np.ndarray],
    lp: np.ndarray | None,
    ids: np.ndarray,
    label: Callable[[str, tuple[int, ...]], list[str]],
    troubled: bool,
    counts: Counts | None,
) -> Iterator[Finding]:
    anything, found, spreading = False, [], []
    for name in (*draws, *(() if lp is None or "lp" in draws else ("lp",))):
        values = variable(draws, name) if name in draws else lp
        assert values is not None
        numbers = mixing(values, ids) if counts is None else counts.correct(name, mixing(values, ids))
        anything = anything or bool(numbers.judged.any() or numbers.missing.any())
        names = label(name, values.shape[2:])
        found += Variable(name, names, values, ids, troubled).say(numbers)
        spreading += [(names[i], row_of(values, int(i))) for i in np.flatnonzero(numbers.growing)[:MOST]]
        if counts is not None:
            found += counts.unlike(name, names)
    yield from (with_partner(finding, spreading) for finding in found)
    if not anything:
        yield Finding(
            kind="constant",
            where="all",
            number=0.0,
            words="No quantity took more than one value in any chain: nothing was sampled.",
            remedy="Look at the acceptance rate; a smaller step size (or the sampler 'auto', which finds "
            "one) lets chains move.",
        )


def _stuck(
    draws: Mapping[str, np.ndarray],
    lp: np.ndarray | None,
    sample_stats: Mapping[str, np.ndarray],
    counts: Counts | None,
) -> Iterator[Finding]:
    if counts is None:
        stuck = chains.stuck(draws, lp, sample_stats.get("acceptance_rate"))
    else:
        stuck = chains.stuck_since(counts.moved, counts.draws, counts.acceptance)
    if stuck:
        total = len(lp) if lp is not None else next(iter(draws.values())).shape[0]
        yield Finding(
            kind="stuck",
            where=name_chains(stuck),
            number=len(stuck),
            threshold=0,
            chains=stuck,
            words=f"{len(stuck):,} of {total:,} chains did not move through the last half of the run: "
            f"{name_chains(stuck)}.",
            remedy="They sit where the step size is far too large, often a narrow neck or a far tail: raise "
            "target_accept, start elsewhere, or reparametrise.",
        )


def _sticking(
    draws: Mapping[str, np.ndarray],
    lp: np.ndarray | None,
    sample_stats: Mapping[str, np.ndarray],
    stuck: set[int],
    counts: Counts | None,
) -> Iterator[Finding]:
    if lp is None:
        return
    found, allowed = stretches(draws, lp, sample_stats.get("acceptance_rate"))
    found = sorted((s for s in found if s.chain not in stuck), key=lambda s: -s.length)
    if found:
        worst, members = found[0], tuple(sorted(s.chain for s in found))
        lost = sum(s.length for s in found) / lp.size
        blocking = lost > MAX_LOST
        others = f", the longest stay of {len(found):,} chains" if len(found) > 1 else ""
        kept = "" if counts is None or counts.draws == lp.shape[1] else " that were kept"
        yield Finding(
            kind="sticking",
            where=name_chains(members),
            number=lost,
            threshold=MAX_LOST,
            blocking=blocking,
            chains=members,
            words=f"Chain {worst.chain} stayed on one value for {worst.length:,} draws{kept} on end, from draw "
            f"{worst.begin:,} on{others}; rejections explain {allowed:,} at most. So went {lost:.2%} of all draws, "
            f"{'more than' if blocking else 'within'} the {MAX_LOST:.1%} that is let pass.",
            remedy="Look at where that is, as a rule a narrow neck or a far tail: the step is far too long there, and "
            "what is near it is visited seldom and left late. Raise target_accept (or make the step size smaller), or "
            "reparametrise.",
        )


def _far(lp: np.ndarray) -> Iterator[Finding]:
    far, distance = chains.far(lp)
    if far:
        yield Finding(
            kind="log_density",
            where=name_chains(far),
            number=distance,
            threshold=0,
            chains=far,
            words=f"{name_chains(far).capitalize()}: the log density stays away from where the other chains "
            f"have it, by {distance:,.1f} on average for the farthest.",
            remedy="They may sit in a mode of their own or be stuck in a tail: compare their draws with the "
            "others', warm up longer, or start elsewhere.",
        )


def _neck(
    draws: Mapping[str, np.ndarray],
    sample_stats: Mapping[str, np.ndarray],
    label: Callable[[str, tuple[int, ...]], list[str]],
) -> Iterator[Finding]:
    if "acceptance_rate" not in sample_stats:
        return
    found = worst_tail(draws, hopeless(np.asarray(sample_stats["acceptance_rate"])))
    if found:
        name, neck = found
        names = label(name, neck.shape)
        end = "lowest" if neck.lowest else "highest"
        yield Finding(
            kind="neck",
            where=names[neck.quantity],
            number=neck.share,
            threshold=NECK,
            words=f"From the {end} {neck.mass:.1%} of the draws of {names[neck.quantity]}, {neck.share:.0%} of the "
            f"proposals had an acceptance probability below {HOPELESS:.0%} (at most {NECK:.0%} is let pass): the "
            "posterior is far narrower there than elsewhere, and draws beyond are missing or too few.",
            remedy="Reparametrise, for instance without centring; or make the step size much smaller (raise "
            'target_accept). Where the sampler was auto and result.warmup["necks"] is empty, '
            'sampler=shoal.Auto(retry="always") tries such proposals again with finer steps.',
        )


def _shifts_energy(finding: Finding) -> bool:
    """Whether chains are at different log densities, or were: then the energy spreads because of that."""
    return finding.where == "lp" and (finding.kind in ("superchain", "drift", "improper") or bool(finding.chains))


def _energy(
    draws: Mapping[str, np.ndarray],
    lp: np.ndarray | None,
    sample_stats: Mapping[str, np.ndarray],
    label: Callable[[str, tuple[int, ...]], list[str]],
) -> Iterator[Finding]:
    if lp is None or "energy" not in sample_stats:
        return
    energy = np.asarray(sample_stats["energy"])
    seen = fraction(energy, lp)
    if seen.low:
        found = partners(draws, energy)
        named = found[0] if found else None
        where = label(named.name, named.shape)[named.quantity] if named else ""
        said, remedy = words(seen.value, named, where, len(found) - 1)
        yield Finding(
            kind="energy",
            where=where or "energy",
            number=seen.value,
            threshold=LOW,
            blocking=False,
            words=said,
            remedy=remedy,
        )


def _diverging(
    draws: Mapping[str, np.ndarray],
    sample_stats: Mapping[str, np.ndarray],
    label: Callable[[str, tuple[int, ...]], list[str]],
    counts: Counts | None,
) -> Iterator[Finding]:
    if "diverging" not in sample_stats:
        return
    diverging = np.asarray(sample_stats["diverging"], bool)
    each, length = (diverging.sum(axis=1), diverging.shape[1]) if counts is None else (counts.diverging, counts.draws)
    total, members = int(each.sum()), tuple(int(chain) for chain in np.flatnonzero(each))
    share = total / (len(each) * length)
    if total:
        blocking = share > MAX_DIVERGING
        allowed = "more than" if blocking else "within"
        found = [(place, label(place.name, place.shape)[place.quantity]) for place in places(draws, diverging)]
        where = f" They begin where {' and '.join(_at(place, name) for place, name in found)}." if found else ""
        names = " and ".join(name for _, name in found)
        those = f" what depends on {names} there" if found else ""
        yield Finding(
            kind="divergences",
            where=name_chains(members),
            number=share,
            threshold=MAX_DIVERGING,
            blocking=blocking,
            words=f"{count(total, 'transition')} diverged, {share:.2%} of all, {allowed} "
            f"the {MAX_DIVERGING:.1%} that is let pass: there the draws may miss a part of the posterior.{where}",
            remedy=f"Raise target_accept (or make the step size smaller), or reparametrise{those}, for instance "
            "without centring.",
            chains=members,
        )


def _at(place: Place, name: str) -> str:
    rank = f"{place.rank:.0%}" if place.rank > 0.0095 else f"{place.rank:.1%}"
    whose = {"far out": "from the nearer end", "in the middle": "by distance from the median"}
    of_all = whose.get(place.side, "of all draws" if place.side == "low" else "from above")
    return f"{name} is {place.side} (median rank {rank} {of_all})"
