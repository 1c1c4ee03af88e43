r"""The race: which metric, splitting and trajectory length give most effective draws per gradient, measured.

Candidates run one after another from where the last one left the chains, all chains each, so that one compiled program
serves them all and 128 chains tell a variance of means to 12%. A candidate's step size adapts first; then its effective
draws are counted, of the worst coordinate, by ranks. All gradients count. The price of the whole race is bounded
to a share of a run to `EFFECTIVE` effective draws at the measured rate of the setting that settling has ended with; an
easy target so has no race, and one that pays has. A later candidate must win by `MARGIN`, which chance alone rarely
gives. In the end the winner's own draws say whether its trajectories should be longer.
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
FIRST_DRAWS, LEAST_DRAWS, MOST_DRAWS = 24, 16, 96
# Of the budget, what the settled setting may use, which also says how large the budget is.
FIRST_SHARE = 0.5
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
        setting: to sample with: the winner's, with trajectories as long as its draws say that they should be.
        draws: of every chain.
        gradients: of all chains.
    """

    winner: Entry
    entries: tuple[Entry, ...]
    setting: Setting
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
    begun = stages.draws, stages.gradients

    def run(setting: Setting, draws: int) -> tuple[Entry, Trail]:
        trail, tuning = stages.play(kernel, settling_adaptation(target_accept), setting.tuning(dtype), draws)
        trail = trail.thinned()
        late = fixed(trail.late(1.0 - ADAPTING))
        adapted = setting._replace(step_size=float(tuning.step_size))
        return entered(kernel, corrected(kernel, adapted, late, target_accept), late), trail

    def budget(entry: Entry) -> float:
        return share * EFFECTIVE / max(entry.ess_per_gradient, 1e-9)

    assert settled.look is not None
    seen = settled.look
    first, draws = entered(kernel, settled.setting, seen.trail), FIRST_DRAWS
    # Where settling has not settled, its draws were made with another setting.
    of_best = seen.whole if settled.settled else None
    taken = lambda: stages.gradients - begun[1]
    asked = lambda: draws * first.gradients_per_draw * stages.num_chains
    # What moves slowly looks quicker the shorter one looks: longer, for as long as that leaves time for the others.
    while not stages.exhausted and FIRST_SHARE * budget(first) > taken() + asked():
        first, of_best = run(first.setting, draws)
        if draws == MOST_DRAWS:
            break
        draws = min(2 * draws, MOST_DRAWS)
    best, entries = first, [first]
    for setting in _candidates(settled):
        left = budget(first) - taken()
        draws = int(min(MOST_DRAWS, left / 3 / (setting.gradients_per_draw(kernel) * stages.num_chains)))
        if draws < LEAST_DRAWS or stages.exhausted:
            continue
        entry, trail = run(setting, draws)
        entries.append(entry)
        if entry.ess_per_gradient > MARGIN * best.ess_per_gradient:
            best, of_best = entry, trail
    setting = best.setting if of_best is None else _reaching(kernel, best.setting, of_best, target_accept)
    return Race(best, tuple(entries), setting, stages.draws - begun[0], taken())


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
