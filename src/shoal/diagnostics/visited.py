r"""Where chains stayed in warmup, far from all draws: how much of the mass may be there.

That sampling has not been somewhere says that little is there only if it would have come there otherwise. How easily,
the warmup has seen: chains were there for $E$ draws or evaluations of the gradient together, and left $n$ times, at a
rate of $n / E$ for each that is there. In equilibrium as many enter as leave, so where a share $m$ of the mass is, $S$
draws of sampling bring $m S n / E$ chains there. If $c$ chains were seen to come, more of the mass is there than the
draws have, with 95% probability, by at most

$$(U_c - c) \frac{E}{n S},$$

where $U_c$ is the mean of the Poisson law that is at most $c$ in one of twenty cases: 3 where none came. How much is
there is known, as all else is, once some chains came.

Kernels that differ in their trajectories cross in some draws or in some evaluations: what allows more mass counts.

Chains that come from afar to the bulk, as all do that begin anywhere, were not at home there. What they do before the
warmup says that burn-in is over does not count, nor a stage in which the log density of most still rises. Of single
ones that were on their way, how low it is tells. A region whose log density is lower by $\Delta$ holds about
$e^{-\Delta} \prod_i w_i$ of the mass if it is $w_i$ times as wide along each coordinate, and where that is next to
nothing, nobody was at home. A place that some chains have come near to in sampling is no other place: it has to be
beyond their range by half of that.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from scipy.special import chdtri

from shoal.diagnostics.findings import Finding, count

# Of the range of the draws along a coordinate, from its end on.
BEYOND = 0.5
# So many chains reach the ends of that range, or a third of them where they are few: fewer may do so by chance.
SOME = 10
# Chains are lost where the log density is this many times the dimension below that of others: a region there would have
# to be a thousand times as wide in every direction to hold as much of the mass. In few dimensions that would be nothing
# unusual, so they count as more.
LOST, LOST_DIMENSIONS = 7.0, 10
# Of the mass: so much is let pass. Where a fiftieth of it is elsewhere, as much sampling as that misses it once in 400
# times.
MOST_MASS = 0.01
# So many standard deviations of the log density of a normal law may the logarithm of such an estimate be off.
SPREADS = 3.0
# The log density of most chains rises where it does in the median, by so many of its standard deviations within a chain
# from the first half of a stage to the second.
RISING = 0.7
SURELY = 0.95
# A chain has left that is not there again for so many of the draws that are remembered: on its way through the bulk it
# has not.
AWAY = 5
# Numbers that are remembered of a stage, and the draws of a chain that are thinned no further for more chains.
NUMBERS, FEW_DRAWS = 2**18, 8


class Stage(NamedTuple):
    """Some of the draws of a stage.

    Attributes:
        position: unconstrained, `[draw, chain, dim]`.
        log_density: there, `[draw, chain]`.
        gradients: evaluations for each of them, `[draw, chain]`.
        chain: whose they are, `[chain]`.
        each: draws that each stands for.
    """

    position: np.ndarray
    log_density: np.ndarray
    gradients: np.ndarray
    chain: np.ndarray
    each: np.ndarray


class Visited:
    """Points at which chains were in warmup, after burn-in."""

    def __init__(self, stages: Sequence[Stage] = ()) -> None:
        """Go on from some.

        Args:
            stages: in order.
        """
        self._stages = list(stages)

    def add(self, position: np.ndarray, log_density: np.ndarray, gradients: np.ndarray, members: np.ndarray) -> None:
        """Remember some of the draws of a stage.

        Args:
            position: `[draw, member, dim]`.
            log_density: `[draw, member]`.
            gradients: `[draw, member]`, evaluations for each draw.
            members: the chains' numbers.
        """
        if _rising(log_density):
            return
        draws, chains, dim = position.shape
        some = np.linspace(0, chains - 1, np.clip(NUMBERS // (dim * min(draws, FEW_DRAWS)), 1, chains)).astype(int)
        stride = min(draws, -(-draws * len(some) * dim // NUMBERS))
        rows = np.arange(draws - 1, -1, -stride)[::-1]
        taken = np.ix_(rows, some)
        each = np.array(draws / len(rows))
        self._stages.append(
            Stage(position[taken], log_density[taken], np.asarray(gradients[taken], float), members[some], each)
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is remembered, by name."""
        return {
            f"{number}.{name}": part
            for number, stage in enumerate(self._stages)
            for name, part in zip(Stage._fields, stage, strict=True)
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """From what `arrays` of another were."""
        numbers = range(len(arrays) // len(Stage._fields))
        return cls([Stage(*(arrays[f"{number}.{name}"] for name in Stage._fields)) for number in numbers])

    def left_behind(
        self, low: np.ndarray, high: np.ndarray, log_density: float, spent: tuple[int, int], labels: Sequence[str]
    ) -> tuple[Finding, ...]:
        """A finding that blocks, as long as much of the mass may be where chains stayed in warmup.

        Args:
            low: the least of all draws, `[chain, dim]`.
            high: the greatest.
            log_density: the mean of the draws.
            spent: draws of sampling and evaluations of the gradient, of all chains.
            labels: of the coordinates.
        """
        some = int(np.clip(len(low) // 3, 1, SOME))
        ends = low, high
        low, high = np.partition(low, some - 1, axis=0)[some - 1], -np.partition(-high, some - 1, axis=0)[some - 1]
        came = int(np.count_nonzero(np.max([_off(end, low, high) for end in ends], axis=(0, 2)) > BEYOND))
        stays = [stay for stage in self._stages for stay in _stays(stage, low, high, log_density)]
        if came >= some or not stays:
            return ()
        more = chdtri(2 * (came + 1), 1 - SURELY) / 2 - came
        there = np.concatenate([stay.position for stay in stays])
        below = log_density - float(np.median(np.concatenate([stay.log_density for stay in stays])))
        if below > _room(np.ptp(there, axis=0), high - low):
            return ()
        left = sum(stay.left for stay in stays)
        stayed = sum(stay.draws for stay in stays), sum(stay.gradients for stay in stays)
        mass = max(more * time / (max(left, 1) * max(took, 1)) for time, took in zip(stayed, spent, strict=True))
        if not mass > MOST_MASS:
            return ()
        coordinate = int(np.bincount(np.concatenate([stay.furthest for stay in stays])).argmax())
        members = np.unique(np.concatenate([stay.chains for stay in stays]))
        least, most = np.quantile(there[:, coordinate], [0.05, 0.95])
        most_mass = f"up to {min(mass, 1.0):.1%} of the mass may be there"
        said = f"none came there: {most_mass}"
        if came:
            said = (
                f"{count(came, 'chain')} came there, too few to tell how much it has: {most_mass} beyond what they say"
            )
        return (
            Finding(
                kind="left_behind",
                where=labels[coordinate],
                number=mass,
                threshold=MOST_MASS,
                chains=tuple(int(chain) for chain in members),
                words=f"In warmup {count(len(members), 'chain')} stayed far from the draws, with {labels[coordinate]}, "
                f"unconstrained, between {least:.3g} and {most:.3g} (the draws are between {low[coordinate]:.3g} and "
                f"{high[coordinate]:.3g}), for {count(round(stayed[0]), 'draw')} together, at a log density that is "
                f"{below:,.0f} below that of the draws, and left {count(left, 'time')}. In the "
                f"{count(spent[0], 'draw')} of sampling {said} ({MOST_MASS:.0%} is let pass).",
                remedy=f"Draw on, {mass / MOST_MASS:,.1f} times as long: more chains then come there, or it is known "
                "that next to nothing is. Or begin some chains there (initial_positions), more of them.",
            ),
        )


class _Stay(NamedTuple):
    """What a stage has of points far from all draws.

    Attributes:
        draws: that they stand for.
        gradients: evaluations for these.
        left: how often a chain went from there for good.
        position: of the points, `[point, dim]`.
        log_density: there.
        furthest: the coordinate in which each is furthest out.
        chains: whose they are.
    """

    draws: float
    gradients: float
    left: int
    position: np.ndarray
    log_density: np.ndarray
    furthest: np.ndarray
    chains: np.ndarray


def _stays(stage: Stage, low: np.ndarray, high: np.ndarray, log_density: float) -> Iterator[_Stay]:
    off = _off(stage.position, low, high)
    elsewhere = off.max(axis=2) > BEYOND
    there = elsewhere & (stage.log_density > log_density - LOST * max(len(low), LOST_DIMENSIONS))
    if there.any():
        yield _Stay(
            draws=float(stage.each * np.count_nonzero(there)),
            gradients=float(stage.each * stage.gradients[there].sum()),
            left=_left(there, elsewhere),
            position=stage.position[there],
            log_density=stage.log_density[there],
            furthest=off[there].argmax(axis=1),
            chains=np.broadcast_to(stage.chain, there.shape)[there],
        )


def _rising(log_density: np.ndarray) -> bool:
    """Whether the log density of most chains `[draw, chain]` does."""
    half = len(log_density) // 2
    if not half:
        return False
    level = log_density.astype(float)
    with np.errstate(all="ignore"):
        rise = (level[-half:].mean(axis=0) - level[:half].mean(axis=0)) / level.std(axis=0)
    return float(np.median(np.nan_to_num(rise, nan=0.0))) > RISING


def _off(position: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How far positions `[..., dim]` are beyond a range, in units of its width; 0 along what does not vary."""
    with np.errstate(all="ignore"):
        off = np.maximum(low - position, position - high) / (high - low)
    return np.where(np.isfinite(off), off, 0.0)


def _room(there: np.ndarray, draws: np.ndarray) -> float:
    """By how much the log density may be lower where as much mass may be as is not let pass, from widths."""
    with np.errstate(all="ignore"):
        wider = np.log(there / draws)
    wider = np.where(np.isfinite(wider), np.maximum(wider, 0.0), 0.0)
    return float(wider.sum() + SPREADS * np.sqrt(len(wider) / 2) - np.log(MOST_MASS))


def _left(there: np.ndarray, elsewhere: np.ndarray) -> int:
    """How often a chain goes from there to where draws are, and is not elsewhere again soon; within the stage."""
    stays = np.zeros_like(there)
    for later in range(1, min(AWAY + 1, len(there))):
        stays[:-later] |= elsewhere[later:]
    return int(np.count_nonzero((there & ~stays)[:-1]))
