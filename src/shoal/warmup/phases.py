r"""The phases of a warmup that ends by itself: burn-in, then settling.

Burn-in runs the unadjusted microcanonical sampler, one gradient a draw, under the law of LAPS (Robnik & Seljak, 2026,
arXiv:2601.16696) in stages; after each a metric is learned from all chains. It ends when the log density neither drifts
within a stage nor moves from one to the next, and the mean gradient is near zero, which the sampler's own measure of
bias cannot see. Settling does the same with Hamiltonian trajectories that are accepted or rejected, which removes the
bias that burn-in leaves, and ends when the price of the metric stays, too.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.adaptation import During, StepSize
from shoal.adaptation.laps import LAPS
from shoal.dynamics.integrators import LEAPFROG, TWO_LEAPFROGS, Integrator
from shoal.kernels import NUTS, JitteredHMC
from shoal.kernels.jittered_hmc import JitteredHMCTuning
from shoal.kernels.microcanonical import Microcanonical
from shoal.kernels.nuts import NUTSTuning
from shoal.warmup.stages import Stages, Trail
from shoal.warmup.whitening import Choice, Whitening, choose, unit

# Draws of the stages of burn-in: short at first, when the metric is wrong.
BURN_IN_STAGE, BURN_IN_STAGES = 25, 24
# Draws of the stages of settling, and steps of the longest trajectory in them.
SETTLE_DRAWS, SETTLE_STAGES = (10, 12, 14, 16, 20, 24, 30, 40, 50, 60), 10
FIRST_STEPS, STEPS_GROW = 10, 2
# Draws of the stages of a few chains, and of the last one, which only settles the step size.
FEW_CHAINS_DRAWS, FEW_CHAINS_LAST = (30, 30, 40, 60, 80, 120), 60
# What counts as standing still: in standard deviations of the log density between chains, and, for the mean
# gradient, of one over those of the coordinates.
STILL, PULL = 0.3, 1.0
# What counts as the same price.
SAME_PRICE = 1.25
# A trajectory of this many time scales of the slowest direction; see `shoal.adaptation.trajectory`.
TRAJECTORY = 2.2
# Of the time scale of the stiffest direction: a first step size, from which adaptation moves on.
FIRST_STEP = 1.2
# The share of a stage's draws in which the step size still adapts.
ADAPTING = 0.5


def settling_kernel(max_steps: int) -> JitteredHMC:
    """The kernel of settling, racing and sampling: two-stage splittings are its data, so it is one program."""
    return JitteredHMC(integrator=TWO_LEAPFROGS, max_steps=max(1, max_steps // 2))


def settling_adaptation(target_accept: float) -> During:
    """The step size adapts in the first part of every stage; what is looked at comes after it."""
    return During(0.0, ADAPTING, StepSize(target_accept, head_start=2.0, patience=0.0))


class Setting(NamedTuple):
    """A choice for `JitteredHMC`, on the host.

    Attributes:
        family: of the metric.
        whitening: the metric.
        integrator: a two-stage splitting.
        step_size: in whitened units.
        trajectory: in whitened units.
    """

    family: str
    whitening: Whitening
    integrator: Integrator
    step_size: float
    trajectory: float

    def tuning(self, dtype: DTypeLike) -> JitteredHMCTuning:
        step_size, trajectory = jnp.asarray(self.step_size, dtype), jnp.asarray(self.trajectory, dtype)
        metric, integrator = self.whitening.metric(dtype), self.integrator.as_arrays(dtype)
        return JitteredHMCTuning(step_size, trajectory, metric, integrator)


class Look(NamedTuple):
    """What a stage showed.

    Attributes:
        trail: its last part.
        choice: of the metric.
        drift: of the log density within the stage.
        shift: of the log density since the stage before.
    """

    trail: Trail
    choice: Choice
    drift: float
    shift: float

    @property
    def still(self) -> bool:
        # Halves of a few draws of a few chains differ by chance.
        bound = max(STILL, 3.0 * (2.0 / self.trail.log_density.size) ** 0.5)
        return abs(self.drift) < bound and self.shift < bound and self.trail.pull < PULL


def look(trail: Trail, before: "Look | None") -> Look:
    """Look at a stage."""
    late = trail.late(1.0 - ADAPTING).thinned()
    shift = np.inf
    if before is not None:
        shift = abs(late.log_density.mean(dtype=float) - before.trail.log_density.mean(dtype=float)) / late.deviation
    return Look(late, choose(late.position, late.gradient), trail.drift, float(shift))


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
    begun = stages.draws, stages.gradients
    whitening, seen, family = unit(dim), None, "unit"
    if dim > 1:
        kernel, adaptation = Microcanonical(), LAPS(precondition=False)
        tuning = _with_metric(kernel.tuning(dim, dtype), whitening, dtype)
        for _ in range(BURN_IN_STAGES):
            trail, tuning = stages.play(kernel, adaptation, tuning, BURN_IN_STAGE)
            seen = look(trail, seen)
            step = float(tuning.step_size) * _rescaling(whitening, seen)
            whitening, family = seen.choice.whitening, seen.choice.best
            tuning = eqx.tree_at(lambda t: t.step_size, tuning, jnp.asarray(step, dtype))
            tuning = _with_metric(tuning, whitening, dtype)
            if seen.still or stages.exhausted:
                break
    spent = stages.draws - begun[0], stages.gradients - begun[1]
    first = Setting(family, whitening, TWO_LEAPFROGS, 0.1, 0.1)
    setting = first if seen is None else _setting(seen, first)
    return Phase("burn-in", seen, setting, seen is None or seen.still, *spent)


def settle(stages: Stages, setting: Setting, kernel: JitteredHMC, adaptation: During, dtype: DTypeLike) -> Phase:
    """From the bulk to stationarity, with the metric and the step size that sampling can begin with."""
    begun = stages.draws, stages.gradients
    seen, price, settled, most = None, np.inf, False, FIRST_STEPS
    for draws in SETTLE_DRAWS[:SETTLE_STAGES]:
        # Short trajectories until the metric can be trusted: a long one in a wrong metric is paid for in full.
        shorter = setting._replace(trajectory=min(setting.trajectory, 2 * most * setting.step_size))
        trail, tuning = stages.play(kernel, adaptation, shorter.tuning(dtype), draws)
        seen = look(trail, seen)
        setting = _setting(seen, setting._replace(step_size=float(tuning.step_size)))
        last, price = price, seen.choice.prices[seen.choice.best]
        settled = seen.still and price < SAME_PRICE * last
        most *= STEPS_GROW
        if settled or stages.exhausted:
            break
    return Phase("settling", seen, setting, settled, stages.draws - begun[0], stages.gradients - begun[1])


def few_chains(
    stages: Stages, kernel: NUTS, adaptation: During, tuning: NUTSTuning, dtype: DTypeLike
) -> tuple[Phase, NUTSTuning]:
    """The whole warmup of a few chains, from their starts: NUTS in stages, the metric learned anew after each."""
    begun = stages.draws, stages.gradients
    dim = stages.position.shape[1]
    setting, seen, price, settled = Setting("unit", unit(dim), LEAPFROG, 0.1, 0.1), None, np.inf, False
    for draws in FEW_CHAINS_DRAWS:
        trail, tuning = stages.play(kernel, adaptation, tuning, draws)
        seen = look(trail, seen)
        setting = _setting(seen, setting._replace(step_size=float(tuning.step_size)))
        tuning = NUTSTuning(jnp.asarray(setting.step_size, dtype), setting.whitening.metric(dtype))
        last, price = price, seen.choice.prices[seen.choice.best]
        settled = seen.still and price < SAME_PRICE * last
        if settled or stages.exhausted:
            break
    # The metric is new: its step size is found with it, and neither changes afterwards.
    _, tuning = stages.play(kernel, adaptation, tuning, FEW_CHAINS_LAST)
    return Phase("settling", seen, setting, settled, stages.draws - begun[0], stages.gradients - begun[1]), tuning


def _setting(seen: Look, before: Setting) -> Setting:
    """The setting for the metric of a look."""
    rows = lambda values: values.reshape(-1, values.shape[-1]).astype(float)
    position, gradient = rows(seen.trail.position), rows(seen.trail.gradient)
    return retuned(before, seen.choice.best, seen.choice.whitening, position, gradient)


def retuned(before: Setting, family: str, whitening: Whitening, position: np.ndarray, gradient: np.ndarray) -> Setting:
    """The setting for another metric, from draws `[n, dim]` and gradients there."""
    stiffest = np.sqrt(whitening.stiffest(gradient))
    if before.family == "unit":
        step_size = FIRST_STEP / stiffest
    else:
        step_size = before.step_size * np.sqrt(before.whitening.stiffest(gradient)) / stiffest
    step_size = float(np.clip(step_size, 1e-6, 1.5 * FIRST_STEP))
    trajectory = TRAJECTORY * float(np.sqrt(whitening.slowest(position)))
    return Setting(family, whitening, before.integrator, step_size, max(trajectory, step_size))


def _with_metric(tuning: Any, whitening: Whitening, dtype: DTypeLike) -> Any:
    return eqx.tree_at(lambda t: t.metric, tuning, whitening.metric(dtype))


def _rescaling(old: Whitening, seen: Look) -> float:
    """How the step size changes with the metric, for the stiffest direction to see the same."""
    gradient = seen.trail.gradient.reshape(-1, seen.trail.gradient.shape[-1]).astype(float)
    with np.errstate(all="ignore"):
        ratio = np.sqrt(old.stiffest(gradient) / seen.choice.whitening.stiffest(gradient))
    return float(np.clip(ratio, 1e-6, 1e6)) if np.isfinite(ratio) else 1.0
