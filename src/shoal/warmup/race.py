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
from shoal.warmup.stages import Stages
from shoal.warmup.trail import Trail

EFFECTIVE = 4000
MARGIN = 1.2
FIRST_DRAWS, LEAST_DRAWS, MOST_DRAWS = 10, 16, 96
# No trail of a candidate has more draws.
LONGEST = 2 * MOST_DRAWS
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
        ahead: how many times as many effective draws a gradient as the best before it, in as many draws; None for the
            first.
    """

    setting: Setting
    ess_per_gradient: float
    gradients_per_draw: float
    acceptance: float
    ahead: float | None = None

    @property
    def ess_per_draw(self) -> float:
        """Of one chain."""
        return self.ess_per_gradient * self.gradients_per_draw

    def as_dict(self) -> dict[str, float | str | None]:
        """The numbers for a record."""
        return {
            "candidate": _label(self.setting),
            "step_size": self.setting.step_size,
            "trajectory": self.setting.trajectory,
            "acceptance": self.acceptance,
            "gradients_per_draw": self.gradients_per_draw,
            "ess_per_gradient": self.ess_per_gradient,
            "ahead": self.ahead,
        }


class Tried(NamedTuple):
    """A candidate's draws.

    Attributes:
        entry: what they say.
        late: those with a frozen step size.
        whole: those and the ones before, in which it adapted.
    """

    entry: Entry
    late: Trail
    whole: Trail

    @property
    def told(self) -> bool:
        """Whether they are enough to tell how many of them are effective, or as many as it gets."""
        draws = len(self.late.log_density)
        return draws * self.entry.ess_per_draw > TOLD or draws >= MOST_DRAWS


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
    begun, stages.phase = (stages.draws, stages.gradients), "race"
    adaptation = settling_adaptation(target_accept)
    taken = lambda: stages.gradients - begun[1]
    budget = lambda entry: share * EFFECTIVE / max(entry.ess_per_gradient, 1e-9)
    asks = lambda setting, draws: draws * setting.gradients_per_draw(kernel) * stages.num_chains

    def adapted(setting: Setting, draws: int) -> Tried:
        trail, tuning = stages.play(kernel, adaptation, setting.learning(dtype), draws)
        whole = trail.thinned(LONGEST)
        return made(setting._replace(step_size=float(tuning.step_size)), fixed(whole.late(1.0 - ADAPTING)), whole)

    def made(setting: Setting, late: Trail, whole: Trail) -> Tried:
        return Tried(entered(kernel, corrected(kernel, setting, late, target_accept), late), late, whole)

    look = settled.look
    # Where settling has not settled, its draws were made with another setting.
    own = settled.settled
    first = Tried(entered(kernel, settled.setting, look.trail), fixed(look.trail), look.whole)
    if not own and not stages.exhausted and budget(first.entry) > asks(settled.setting, LEAST_DRAWS):
        first, own = adapted(settled.setting, LEAST_DRAWS), True
    setting, draws = first.entry.setting, FIRST_DRAWS
    # Parts of one trail are of the same chains: what has been thinned for fewer draws is left out.
    trail = first.late.thinned(LONGEST) if first.late.log_density.shape[1] == stages.num_chains else None
    while own and not stages.exhausted and not first.told:
        if taken() + asks(setting, draws) > budget(first.entry):
            break
        later = stages.play(kernel, adaptation, setting.learning(dtype), draws, learning=False)[0].thinned(LONGEST)
        trail = later if trail is None else trail.joined(later)
        # Always from the step size of the draws: what one stuck chain takes off it, it takes off once.
        first = made(setting, trail, trail)
        draws = 2 * draws
    best, entries = first, [first.entry]
    for setting in _candidates(settled._replace(setting=first.entry.setting)):
        # Two thirds of the draws that the best has; half of them adapt the step size.
        least = min(max(LEAST_DRAWS, 2 * len(best.late.log_density) // 3), MOST_DRAWS)
        draws = int(min(MOST_DRAWS, (budget(first.entry) - taken()) / 3 / asks(setting, 1)))
        if draws < least or stages.exhausted:
            continue
        tried = adapted(setting, draws)
        as_long = min(len(tried.late.log_density), len(best.late.log_density))
        rate, before = (
            entered(kernel, one.entry.setting, one.late.latest(as_long)).ess_per_gradient for one in (tried, best)
        )
        ahead = rate / max(before, 1e-12)
        entries.append(tried.entry._replace(ahead=ahead))
        if ahead > MARGIN:
            best = Tried(entries[-1], tried.late, tried.whole)
    # Trajectories do not become longer for chains that are still on their way.
    setting = _reaching(kernel, best, target_accept) if settled.settled else best.entry.setting
    return Race(best.entry, tuple(entries), setting, best.late if own else None, stages.draws - begun[0], taken())


def _reaching(kernel: JitteredHMC, best: Tried, target_accept: float) -> Setting:
    """The best setting with trajectories as long as its own draws say, and with steps that fit them."""
    setting = best.entry.setting
    most = kernel.max_steps * (1.0 - kernel.step_jitter) * setting.step_size
    longest = min(growth(best.whole).reach * setting.trajectory, max(most, setting.trajectory))
    if longest <= setting.trajectory:
        return setting
    return corrected(kernel, setting._replace(trajectory=longest), best.late, target_accept)


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
