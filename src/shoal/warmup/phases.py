r"""The phases of a warmup that ends by itself: burn-in, then settling.

Burn-in runs the unadjusted microcanonical sampler, one gradient a draw, under the law of LAPS (Robnik & Seljak, 2026,
arXiv:2601.16696) in stages; after each a metric is learned from the chains. It ends when the log density neither drifts
within a stage nor moves from one to the next, and the mean gradient is near zero, which the sampler's own measure of
bias cannot see. Settling does the same with Hamiltonian trajectories that are accepted or rejected, which removes the
bias that burn-in leaves, and ends when the price of the metric stays, too. Scouts go ahead, a few chains of every
start; then all chains go on from where they are, and settling ends with stages of all.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.adaptation import During, StepSize
from shoal.adaptation.laps import LAPS
from shoal.dynamics.integrators import MCLACHLAN, TWO_LEAPFROGS
from shoal.kernels import JitteredHMC
from shoal.kernels.microcanonical import Microcanonical
from shoal.warmup.setting import Setting, corrected, guessed, retuned
from shoal.warmup.stages import Stages
from shoal.warmup.trail import Trail
from shoal.warmup.whitening import WORTH, Choice, Whitening, choose, unit

# Draws of the stages of burn-in: short at first, when the metric is wrong.
BURN_IN_STAGE, BURN_IN_STAGES = 25, 24
# Scouts: enough for the spread of every coordinate, and more where the metric has more to learn.
SCOUTS, MOST_SCOUTS = 32, 64
# Draws of the stages of settling, by scouts and by all, and steps of the longest trajectory in the scouts' first.
STAGES = (10, 12, 14, 16, 20, 24, 30, 40, 50, 60)
FIRST_STEPS, STEPS_GROW = 8, 4
# Standard deviations by which the log density has moved since the stage before, from which chains are on their way.
MOVED = 1.0
# Draws with the other splitting, which is taken if it needs this many times less for a draw that is accepted.
DUEL_DRAWS, DUEL_MARGIN = 10, 1.1
# How much longer its first step is.
SMOOTHER = 1.5
# What counts as standing still: in standard deviations of the log density between chains, and of the gradient.
STILL, PULL = 0.3, 0.5
# At the target no metric costs less than 1, since the mean of -(x - Ex) times the gradient is 1 in every coordinate;
# chains that have not spread see less.
NARROW = 0.5
# The share of chains far behind that is waited for: one of 128, while heavy tails have as many among thousands.
STRAGGLERS = 0.007
# A metric that is dearer is a wrong one as a rule, learned from chains that are still on their way. It has not settled;
# but no more stages than these are waited for while all else stands still.
DEAR, PATIENCE = 100.0, 4
# The share of the starts that must have a scout in the bulk before those far below are given up: a minority does not
# say where the mass is, and nested R-hat could not say that it was wrong. Burn-in gives nobody up: there the best
# quarter leads the metric, however few its starts are.
QUORUM = 0.5
# A price that is this many times that of the stage before, of all chains and of scouts, still rises: chains that leave
# a wide region for a narrow one do so slowly at first. A stage more of scouts costs little; of all it costs much, and
# the prices of heavy tails change by as much from chance.
RISES = 2.0, 1.1
# What counts as the same price, and, of few draws, as the same length.
SAME_PRICE, SAME_LENGTH = 1.25, 2.0
# The share of a stage's draws in which the step size still adapts.
ADAPTING = 0.5


def burn_in_kernel() -> Microcanonical:
    """The kernel of burn-in, in more than one dimension."""
    return Microcanonical()


def settling_kernel(max_steps: int, retries: int = 0) -> JitteredHMC:
    """The kernel of settling, racing and sampling: two-stage splittings are its data, so it is one program."""
    return JitteredHMC(integrator=TWO_LEAPFROGS, max_steps=max(1, max_steps // 2), retries=retries)


def settling_adaptation(target_accept: float) -> During:
    """The step size adapts in the first part of every stage; what is looked at comes after it."""
    return During(0.0, ADAPTING, StepSize(target_accept, head_start=1.5, patience=0.0))


class Look(NamedTuple):
    """What a stage showed.

    Attributes:
        whole: what it left, but for chains of which nothing is learned.
        trail: the last part of it.
        choice: of the metric.
        drift: of the log density within the stage.
        shift: of the log density since the stage before.
        pull: of the mean gradient.
        behind: which chains were far behind.
        lost: which scouts were where next to none of the mass can be.
    """

    whole: Trail
    trail: Trail
    choice: Choice
    drift: float
    shift: float
    pull: float
    behind: np.ndarray
    lost: np.ndarray

    @property
    def price(self) -> float:
        """Of the best metric."""
        return self.choice.prices[self.choice.best]

    @property
    def lowest(self) -> float:
        """The lowest price of any metric."""
        return min(self.choice.prices.values())

    @property
    def centred(self) -> bool:
        """Whether the mean gradient is near zero."""
        return self.pull < min(1.0, max(PULL, 4.0 / self.trail.log_density.shape[1] ** 0.5))

    @property
    def still(self) -> bool:
        """Whether nothing moves."""
        # Halves of a few draws of a few chains differ by chance.
        bound = max(STILL, 3.0 * (2.0 / self.trail.log_density.size) ** 0.5)
        return abs(self.drift) < bound and self.shift < bound and self.centred and self.price > NARROW


def look(trail: Trail, before: "Look | None", stages: Stages, quorum: float = QUORUM, worth: float = WORTH) -> Look:
    """Look at a stage.

    Nothing is learned from scouts that are lost or far behind others of their start: a metric for all would suit
    nobody, and trajectories as long as it asks for would be paid for by all.

    Args:
        trail: what it left.
        before: the look at the one before.
        stages: the chains.
        quorum: share of the starts that must have a scout that is not lost for others to be.
        worth: how many times cheaper a metric with directions must be.
    """
    late = trail.late(1.0 - ADAPTING)
    behind, lost = late.behind, stages.lost(late, quorum)
    spare = stages.spare(behind) | lost
    if spare.any():
        trail = trail.chains(~spare)
    late = trail.late(1.0 - ADAPTING).thinned()
    shift = np.inf
    if before is not None:
        shift = abs(late.log_density.mean(dtype=float) - before.trail.log_density.mean(dtype=float)) / late.deviation
    choice = choose(late.position, late.gradient, worth)
    pull = choice.whitening.pull(late.gradient.reshape(-1, late.gradient.shape[-1]).astype(float))
    return Look(trail.thinned(), late, choice, trail.drift, float(shift), pull, behind, lost)


class Phase(NamedTuple):
    """How a phase ended.

    Attributes:
        name: "burn-in" or "settling".
        look: at its last stage, or None where it had none.
        setting: the tuning that the next one begins with.
        settled: whether it ended because everything stood still.
        draws: of every chain.
        gradients: of all chains.
    """

    name: str
    look: Look | None
    setting: Setting
    settled: bool
    draws: int
    gradients: int


def burn_in(stages: Stages, dim: int, dtype: DTypeLike) -> Phase:
    """From the starts to the bulk.

    In one dimension there is no microcanonical sampler, and settling begins at the starts.
    """
    begun, stages.phase = (stages.draws, stages.gradients), "burn-in"
    whitening, seen, patience = unit(dim), None, PATIENCE
    if dim > 1:
        kernel, adaptation = burn_in_kernel(), LAPS(precondition=False)
        tuning = _with_metric(kernel.tuning(dim, dtype), whitening, dtype)
        for _ in range(BURN_IN_STAGES):
            trail, tuning = stages.play(kernel, adaptation, tuning, BURN_IN_STAGE)
            # Chains that are on their way get there with the best metric, whatever its products take.
            seen = look(trail, seen, stages, quorum=0.0, worth=1.0)
            step = float(tuning.step_size) * _rescaling(whitening, seen)
            whitening = seen.choice.whitening
            tuning = eqx.tree_at(lambda t: t.step_size, tuning, jnp.asarray(step, dtype))
            tuning = _with_metric(tuning, whitening, dtype)
            # With lost ones whose steps are as long as the others', the law of LAPS does not let these stand still.
            held_up = seen.lost.any() and seen.centred and seen.price < DEAR
            patience -= int(seen.still or held_up)
            arrived = seen.price < DEAR and not (stages.spare(seen.behind) | seen.lost).any()
            if (seen.still and arrived) or patience <= 0 or stages.exhausted:
                break
    spent = stages.draws - begun[0], stages.gradients - begun[1]
    setting = Setting.first(dim) if seen is None else guessed(seen.choice.best, whitening, *_rows(seen))
    return Phase("burn-in", seen, setting, seen is None or seen.still, *spent)


def scouted(stages: Stages, burnt: Phase, kernel: JitteredHMC, target_accept: float, dtype: DTypeLike) -> Phase:
    """From the end of burn-in to a metric, a step size and a splitting, by the chains that went through it."""
    begun, stages.phase = (stages.draws, stages.gradients), "scouting"
    seen, setting, settled = _until_still(stages, burnt, kernel, target_accept, FIRST_STEPS, dtype)
    if settled and not stages.exhausted:
        setting = _smoother(stages, setting, kernel, target_accept, dtype)
    return Phase("scouting", seen, setting, settled, stages.draws - begun[0], stages.gradients - begun[1])


def settle(stages: Stages, before: Phase, kernel: JitteredHMC, target_accept: float, dtype: DTypeLike) -> Phase:
    """All chains to stationarity, with the metric and the step size that sampling can begin with."""
    begun, stages.phase = (stages.draws, stages.gradients), "settling"
    seen, setting, settled = _until_still(stages, before, kernel, target_accept, kernel.max_steps, dtype)
    return Phase("settling", seen, setting, settled, stages.draws - begun[0], stages.gradients - begun[1])


def _until_still(
    stages: Stages, before: Phase, kernel: JitteredHMC, target_accept: float, most_steps: int, dtype: DTypeLike
) -> tuple[Look, Setting, bool]:
    """Stages of settling until everything stands still, the draws are spent, or patience with a dear metric is.

    Trajectories are of up to `most_steps` steps in the first, and of up to four times as many in each after it; scouts
    begin anew with few after one in which they have moved far. Stages become longer when the chains stand still. While
    they move a metric is soon stale, and long trajectories in a stale metric are most of what a transition costs.

    Scouts that are lost twice in a row, or in the end, are given up: one that is stuck shortens the steps of all.
    """
    seen, setting, number, left, patience = before.look, before.setting, 0, sum(STAGES), PATIENCE
    lost = np.zeros(stages.num_chains, bool)
    while True:
        draws = STAGES[number]
        seen, setting, settled = _stage(stages, setting, seen, kernel, target_accept, draws, most_steps, dtype)
        most_steps = FIRST_STEPS if stages.scouting and seen.shift > MOVED else STEPS_GROW * most_steps
        left, patience = left - draws, patience - int(seen.still and seen.price >= DEAR)
        number = min(number + seen.still, len(STAGES) - 1)
        over = settled or stages.exhausted or left <= 0 or patience <= 0
        given_up = seen.lost if over else seen.lost & lost
        lost = seen.lost & ~given_up
        if given_up.any():
            stages.give_up(given_up, seen.lost | seen.behind)
        if over:
            return seen, setting, settled


def _stage(
    stages: Stages,
    setting: Setting,
    before: Look | None,
    kernel: JitteredHMC,
    target_accept: float,
    draws: int,
    most_steps: int,
    dtype: DTypeLike,
) -> tuple[Look, Setting, bool]:
    """A stage of settling: its look, the setting to go on with, and whether everything stood still.

    While nothing has changed much the metric stays what it was, and the step size what it was found to be with it.
    """
    # Short trajectories until the metric can be trusted: a long one in a wrong metric is paid for in full.
    longest = most_steps * setting.step_size
    cut, shorter = longest < setting.trajectory, setting._replace(trajectory=min(setting.trajectory, longest))
    trail, tuning = stages.play(kernel, settling_adaptation(target_accept), shorter.learning(dtype), draws)
    seen = look(trail, before, stages)
    adapted = setting._replace(step_size=float(tuning.step_size))
    setting = corrected(kernel, adapted, fixed(seen.trail), target_accept)
    if setting.whitening.price(*_rows(seen)) > SAME_PRICE * seen.price:
        return seen, relearned(seen, setting), False
    same = retuned(setting, setting.family, setting.whitening, *_rows(seen))
    if not 1.0 / SAME_LENGTH < same.trajectory / setting.trajectory < SAME_LENGTH:
        return seen, same, False
    rises = before is not None and seen.lowest > RISES[stages.scouting] * before.lowest
    waited_for = (seen.behind & ~seen.lost).mean() >= STRAGGLERS
    whole = most_steps >= kernel.max_steps or not cut
    return seen, setting, bool(seen.still and whole and seen.price < DEAR and not rises and not waited_for)


def _smoother(stages: Stages, setting: Setting, kernel: JitteredHMC, target_accept: float, dtype: DTypeLike) -> Setting:
    """The setting with the splitting that takes fewer gradients for a draw that is accepted: a short stage for each."""

    def tried(one: Setting) -> tuple[float, Setting]:
        trail, tuning = stages.play(kernel, settling_adaptation(target_accept), one.learning(dtype), DUEL_DRAWS)
        late = fixed(trail.late(1.0 - ADAPTING))
        one = corrected(kernel, one._replace(step_size=float(tuning.step_size)), late, target_accept)
        return one.gradients_per_draw(kernel) / one.acceptance(kernel, late), one

    other_cost, other = tried(setting._replace(integrator=MCLACHLAN, step_size=SMOOTHER * setting.step_size))
    own_cost, own = tried(setting)
    return other if DUEL_MARGIN * other_cost < own_cost else own


def fixed(late: Trail) -> Trail:
    """Of the late draws of a stage those with one step size: the first has that of the last observation."""
    return late.since(1)


def _rows(seen: Look) -> tuple[np.ndarray, np.ndarray]:
    """Draws and gradients of a look, `[n, dim]`."""
    rows = lambda values: values.reshape(-1, values.shape[-1]).astype(float)
    return rows(seen.trail.position), rows(seen.trail.gradient)


def relearned(seen: Look, before: Setting) -> Setting:
    """The setting for the metric of a look."""
    return retuned(before, seen.choice.best, seen.choice.whitening, *_rows(seen))


def _with_metric(tuning: Any, whitening: Whitening, dtype: DTypeLike) -> Any:
    return eqx.tree_at(lambda t: t.metric, tuning, whitening.metric(dtype))


def _rescaling(old: Whitening, seen: Look) -> float:
    """How the step size changes with the metric, for the stiffest direction to see the same."""
    gradient = seen.trail.gradient.reshape(-1, seen.trail.gradient.shape[-1]).astype(float)
    with np.errstate(all="ignore"):
        ratio = np.sqrt(old.stiffest(gradient) / seen.choice.whitening.stiffest(gradient))
    return float(np.clip(ratio, 1e-6, 1e6)) if np.isfinite(ratio) else 1.0
