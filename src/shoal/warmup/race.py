r"""The race: which metric, splitting and trajectory length give most effective draws per gradient, measured.

Candidates run one after another from where the last one left the chains, all chains each, so that one compiled program
serves them all and 128 chains tell a variance of means to 12%. The setting that settling has ended with goes first.
What moves slowly looks quicker the shorter one looks, so it goes on until its draws can tell how many effective ones
they are worth. A candidate's step size adapts before its draws count, of the worst coordinate, by ranks, and it is
compared with as many draws of the best so far. All gradients count. The price of the whole race is bounded to a share
of a run to `EFFECTIVE` effective draws at the measured rate of the first; an easy target so has no race, and one that
pays has. A later candidate must win by `MARGIN`, which chance alone rarely gives. In the end the winner's own draws say
whether its trajectories should be longer (`reach`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import DTypeLike

from shoal.diagnostics.effective import many_chain_ess
from shoal.diagnostics.rows import blocks, moving, normal_scores
from shoal.dynamics.integrators import MCLACHLAN, TWO_LEAPFROGS
from shoal.kernels import JitteredHMC
from shoal.warmup.phases import ADAPTING, Phase, fixed, settling_adaptation
from shoal.warmup.reach import growth
from shoal.warmup.setting import Setting, corrected, retuned
from shoal.warmup.stages import Stages, Trail

EFFECTIVE = 4000
MARGIN = 1.2
FIRST_DRAWS, LEAST_DRAWS, MOST_DRAWS = 10, 16, 96
# Effective draws of a chain from which draws can tell how many they are worth.
TOLD = 3.0
# A metric that is predicted to cost this many times the best is not tried.
HOPELESS = 3.0
LONGER = 2.0


class Entry(NamedTuple):
    """What a candidate did.

    Attributes:
        setting: the candidate, with the step size that it settled on.
        ess_per_gradient: of the worst coordinate, by ranks.
        gradients_per_draw: of one chain, with the step size of the setting.
        acceptance: its mean over the draws, with the step size that they had.
    """

    setting: Setting
    ess_per_gradient: float
    gradients_per_draw: float
    acceptance: float

    @property
    def ess_per_draw(self) -> float:
        """Of one chain."""
        return self.ess_per_gradient * self.gradients_per_draw

    def told_by(self, trail: Trail) -> bool:
        """Whether its draws are enough to tell how many of them are effective, or as many as it gets."""
        draws = len(trail.log_density)
        return draws * self.ess_per_draw > TOLD or draws >= MOST_DRAWS

    def as_dict(self) -> dict[str, float | str]:
        """The numbers for a record."""
        return {
            "candidate": _label(self.setting),
            "step_size": self.setting.step_size,
            "trajectory": self.setting.trajectory,
            "acceptance": self.acceptance,
            "gradients_per_draw": self.gradients_per_draw,
            "ess_per_gradient": self.ess_per_gradient,
        }


class Race(NamedTuple):
    """How it ended.

    Attributes:
        winner: the best.
        entries: of all, in the order in which they ran.
        setting: to go on with: the winner's, with trajectories as long as its draws say that they should be.
        trail: the winner's draws; None where there are none with its setting.
        draws: of every chain.
        gradients: of all chains.
    """

    winner: Entry
    entries: tuple[Entry, ...]
    setting: Setting
    trail: Trail | None
    draws: int
    gradients: int

    @property
    def reach(self) -> float:
        """How many times as long as the winner's its trajectories are."""
        return self.setting.trajectory / self.winner.setting.trajectory


def race(
    stages: Stages, settled: Phase, kernel: JitteredHMC, target_accept: float, share: float, dtype: DTypeLike
) -> Race:
    """Run the candidates for as long as the budget lasts.

    Args:
        stages: the chains.
        settled: the phase of settling.
        kernel: of all candidates.
        target_accept: harmonic mean of acceptance that their step sizes aim at.
        share: of the gradients of a run to `EFFECTIVE` effective draws that the race may take.
        dtype: of the run.
    """
    assert settled.look is not None
    begun = stages.draws, stages.gradients
    adaptation = settling_adaptation(target_accept)
    taken = lambda: stages.gradients - begun[1]
    budget = lambda entry: share * EFFECTIVE / max(entry.ess_per_gradient, 1e-9)

    def played(setting: Setting, draws: int) -> Trail:
        return stages.play(kernel, adaptation, setting.tuning(dtype), draws, learning=False)[0].thinned()

    def adapted(setting: Setting, draws: int) -> tuple[Entry, Trail]:
        trail, tuning = stages.play(kernel, adaptation, setting.tuning(dtype), draws)
        setting, late = setting._replace(step_size=float(tuning.step_size)), fixed(trail.late(1.0 - ADAPTING)).thinned()
        return entered(kernel, corrected(kernel, setting, late, target_accept), late), late

    first, trail = entered(kernel, settled.setting, settled.look.trail), fixed(settled.look.trail)
    own = settled.settled
    if not own and not stages.exhausted:
        # Where settling has not settled, its draws were made with another setting.
        (first, trail), own = adapted(settled.setting, LEAST_DRAWS), True
    draws = FIRST_DRAWS
    while own and not stages.exhausted and not first.told_by(trail):
        if taken() + draws * first.gradients_per_draw * stages.num_chains > budget(first):
            break
        trail = trail.joined(played(first.setting, draws))
        first = entered(kernel, corrected(kernel, first.setting, trail, target_accept), trail)
        draws = min(2 * draws, MOST_DRAWS)
    best, entries = first, [first]
    for setting in _candidates(settled._replace(setting=first.setting)):
        # As many draws as the first needed to say something of itself; half of them adapt the step size.
        least = min(max(LEAST_DRAWS, 2 * len(trail.log_density) // 3), MOST_DRAWS)
        left = budget(first) - taken()
        draws = int(min(MOST_DRAWS, left / 3 / (setting.gradients_per_draw(kernel) * stages.num_chains)))
        if draws < least or stages.exhausted:
            continue
        entry, late = adapted(setting, draws)
        entries.append(entry)
        as_long = entered(kernel, best.setting, trail.since(max(0, len(trail.log_density) - len(late.log_density))))
        if entry.ess_per_gradient > MARGIN * as_long.ess_per_gradient:
            best, trail = entry, late
    setting = _reaching(kernel, best.setting, trail, target_accept) if own else best.setting
    return Race(best, tuple(entries), setting, trail if own else None, stages.draws - begun[0], taken())


def _reaching(kernel: JitteredHMC, setting: Setting, trail: Trail, target_accept: float) -> Setting:
    """The setting with trajectories as long as its own draws say, and with steps that fit them."""
    most = kernel.max_steps * (1.0 - kernel.step_jitter) * setting.step_size
    longest = min(growth(trail).reach * setting.trajectory, max(most, setting.trajectory))
    if longest <= setting.trajectory:
        return setting
    longer, late = setting._replace(trajectory=longest), fixed(trail.late(1.0 - ADAPTING))
    return corrected(kernel, longer, late, target_accept)


def _candidates(settled: Phase) -> Iterator[Setting]:
    """The others, the likeliest winners first."""
    setting, seen = settled.setting, settled.look
    assert seen is not None
    longer = setting._replace(trajectory=LONGER * setting.trajectory)
    other = TWO_LEAPFROGS if setting.integrator is MCLACHLAN else MCLACHLAN
    yield longer
    yield setting._replace(integrator=other)
    prices = seen.choice.prices
    rows = lambda values: values.reshape(-1, values.shape[-1]).astype(float)
    position, gradient = rows(seen.trail.position), rows(seen.trail.gradient)
    for family in sorted(prices, key=lambda name: prices[name]):
        if family != setting.family and prices[family] < HOPELESS * prices[seen.choice.best]:
            yield retuned(setting, family, seen.choice.found[family], position, gradient)


def _label(setting: Setting) -> str:
    name = "leapfrog" if setting.integrator is TWO_LEAPFROGS else "McLachlan"
    shortest = setting.shortest * setting.trajectory
    return f"{name}, {setting.family}, trajectories of {shortest:.2g} to {setting.trajectory:.2g}"


def entered(kernel: JitteredHMC, setting: Setting, trail: Trail) -> Entry:
    """A candidate, measured by its draws; what a draw costs is that of its setting, whose step size they corrected."""
    draws, chains = trail.log_density.shape
    cost = setting.gradients_per_draw(kernel)
    return Entry(setting, worst_ess(trail) / (draws * chains * cost), cost, float(trail.acceptance.mean()))


def worst_ess(trail: Trail) -> float:
    """The smallest effective sample size over coordinates; 0 where it cannot be told.

    Of normal scores of ranks, and of those of distances from the median: squares of heavy tails have no variance.

    The spread of the means of chains cannot tell less than one draw for every chain, however slow they are; how much
    draws resemble the next ones can. Each is an upper bound where chains are slower than it sees.
    """
    sizes = []
    with np.errstate(all="ignore"):
        for _, rows in blocks(np.swapaxes(trail.position, 0, 1)):
            if not moving(rows).all():
                return 0.0
            sizes += [bound(scores) for scores in normal_scores(rows) for bound in (many_chain_ess, resemblance_ess)]
    worst = float(np.min(np.concatenate(sizes)))
    return worst if np.isfinite(worst) else 0.0


def resemblance_ess(values: np.ndarray) -> np.ndarray:
    """Effective sample sizes from the correlation of draws that are 1, 2, 4, ... apart, as if it went on to fall so.

    Args:
        values: `[quantity, chain, draw]`.

    Returns:
        `[quantity]`, the smallest over the distances. A correlation counts for what it is beyond chance, twice its
        standard error.
    """
    _, chains, draws = values.shape
    off = values - values.mean((1, 2), keepdims=True)
    variance, rate = np.square(off).mean((1, 2)), np.ones(len(values))
    for apart in 2 ** np.arange(10):
        if 2 * apart > draws:
            break
        alike = (off[..., apart:] * off[..., :-apart]).mean((1, 2)) / variance
        step = np.clip(alike - 2.0 / np.sqrt(chains * (draws - apart)), 0.0, 1.0) ** (1.0 / apart)
        rate = np.minimum(rate, (1.0 - step) / (1.0 + step))
    return chains * draws * rate
