r"""Where chains stayed in warmup, far from all draws: how much of the mass may be there.

That sampling has not been somewhere says that little is there only if it would have come there otherwise. How easily,
the warmup has seen: $n$ chains were there, for $E$ draws or evaluations of the gradient together, and left, at a rate
of $n / E$ for each that is there. In equilibrium as many enter as leave, so where a share $m$ of the mass is, $S$ draws
of sampling bring $m S n / E$ chains there, and none comes with a probability of more than 5% only if

$$m \le \frac{3 E}{n S}.$$

Kernels that differ in their trajectories cross in some draws or in some evaluations: what allows more mass counts.
Chains that come from afar to the bulk, as all do that begin anywhere, stay for a few draws; and where the log density
is so far below that no region can be as wide as it would have to be, nothing is held against anybody. Burn-in, which
goes downhill, does not count.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

from shoal.diagnostics.findings import Finding, count

# So many standard deviations of the draws from their mean in some coordinate is elsewhere.
FAR = 8.0
# Chains are lost where the log density is this many times the dimension below that of others: a region there would have
# to be a thousand times as wide in every direction to hold as much of the mass. In few dimensions that would be nothing
# unusual, so they count as more.
LOST, LOST_DIMENSIONS = 7.0, 10
# Of the mass: so much is let pass. Where a fiftieth of it is elsewhere, as much sampling as that misses it once in 150
# thousand times.
MOST_MASS = 0.005
# No event was seen where so many were expected: 95% surely fewer are.
NONE_SEEN = 3.0
# Numbers that are remembered of a stage, and the draws of a chain that are thinned no further for more chains.
NUMBERS, FEW_DRAWS = 2**18, 8


class Rows(NamedTuple):
    """Points, in order of time for each chain.

    Attributes:
        position: unconstrained.
        log_density: there.
        draws: that each stands for.
        gradients: evaluations for these.
        chain: whose they are.
    """

    position: np.ndarray
    log_density: np.ndarray
    draws: np.ndarray
    gradients: np.ndarray
    chain: np.ndarray


class Visited:
    """Points at which chains were in warmup, after burn-in."""

    def __init__(self, stages: Sequence[Rows] = ()) -> None:
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
        draws, chains, dim = position.shape
        some = np.linspace(0, chains - 1, np.clip(NUMBERS // (dim * min(draws, FEW_DRAWS)), 1, chains)).astype(int)
        stride = -(-draws * len(some) * dim // NUMBERS)
        rows = np.arange(draws - 1, -1, -stride)[::-1]
        taken = np.ix_(rows, some)
        self._stages.append(
            Rows(
                position[taken].reshape(-1, dim),
                log_density[taken].ravel(),
                np.full(taken[0].size * taken[1].size, float(stride)),
                gradients[taken].ravel() * float(stride),
                np.tile(members[some], len(rows)),
            )
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is remembered, by name."""
        if not self._stages:
            return {}
        return dict(zip(Rows._fields, map(np.concatenate, zip(*self._stages, strict=True)), strict=True))

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """From what `arrays` of another were."""
        return cls([Rows(*(arrays[name] for name in Rows._fields))] if arrays else ())

    def left_behind(
        self,
        mean: np.ndarray,
        sd: np.ndarray,
        log_density: float,
        spent: tuple[int, int],
        labels: Sequence[str],
    ) -> tuple[Finding, ...]:
        """A finding that blocks, as long as much of the mass may be where chains stayed in warmup.

        Args:
            mean: of all draws, `[dim]`.
            sd: of them.
            log_density: their mean.
            spent: draws of sampling and evaluations of the gradient, of all chains.
            labels: of the coordinates.
        """
        if not self._stages:
            return ()
        rows = Rows(**self.arrays)
        dim = len(mean)
        with np.errstate(all="ignore"):
            off = np.abs(rows.position - mean) / sd
        off = np.where(np.isfinite(off), off, 0.0)
        there = (off.max(axis=1) > FAR) & (rows.log_density > log_density - LOST * max(dim, LOST_DIMENSIONS))
        if not there.any():
            return ()
        stayed = rows.draws[there].sum(), rows.gradients[there].sum()
        # For good: on its way through the bulk of the draws a chain of a wide region has not left it.
        members = np.unique(rows.chain[there])
        mass = max(NONE_SEEN * time / (len(members) * max(took, 1)) for time, took in zip(stayed, spent, strict=True))
        if mass <= MOST_MASS:
            return ()
        coordinate = int(np.bincount(off[there].argmax(axis=1)).argmax())
        where = rows.position[there][:, coordinate]
        below = log_density - float(np.median(rows.log_density[there]))
        least, most = np.quantile(where, [0.05, 0.95])
        unconstrained = f"{labels[coordinate]}, unconstrained,"
        return (
            Finding(
                kind="left_behind",
                where=labels[coordinate],
                number=mass,
                threshold=MOST_MASS,
                chains=tuple(int(chain) for chain in members),
                words=f"In warmup {count(len(members), 'chain')} stayed more than {FAR:g} standard deviations from the "
                f"mean of the draws, with {unconstrained} between {least:.3g} and {most:.3g} (the draws are "
                f"{mean[coordinate]:.3g} ± {sd[coordinate]:.2g}), for {count(round(stayed[0]), 'draw')} together, at a "
                f"log density that is {below:,.0f} below that of the others. They left, and the "
                f"{count(spent[0], 'draw')} of sampling are too few to have come back: up to {min(mass, 1.0):.1%} of "
                f"the mass may be there ({MOST_MASS:.1%} is let pass).",
                remedy=f"Draw on, {mass / MOST_MASS:,.1f} times as long: chains then come there, or it is known that "
                "next to nothing is. Or begin some chains there (initial_positions), more of them.",
            ),
        )
