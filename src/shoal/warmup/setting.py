"""A choice of metric, splitting, step size and trajectory length, and how draws change it."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.dynamics.integrators import TWO_LEAPFROGS, Integrator
from shoal.kernels import JitteredHMC
from shoal.kernels.jittered_hmc import JitteredHMCTuning
from shoal.warmup.pace import pace
from shoal.warmup.stages import Trail
from shoal.warmup.whitening import Whitening, unit

# The step of two leapfrogs that a standard normal law in d dimensions accepts four times in five is this over the
# fourth root of d; adaptation moves on from there, and begins with no more than the longest.
FIRST_STEP, LONGEST_STEP = 2.8, 1.8
# What the draws after it say of the step size may change it by these factors at most. A draw's acceptance counts as
# no less than this: one stuck chain of 128 shortens steps by a fifth.
CORRECTION, FLOOR = (0.5, 1.1), 0.02
# The jitter of `JitteredHMC`, at the middle of 16 cells, for lengths and for sizes.
PHASES = (np.arange(16) + 0.5) / 16


class Setting(NamedTuple):
    """A choice for `JitteredHMC`, on the host.

    Attributes:
        family: of the metric.
        whitening: the metric.
        integrator: a two-stage splitting.
        step_size: in whitened units.
        trajectory: the longest, in whitened units.
        shortest: of the trajectories, as a fraction of the longest.
    """

    family: str
    whitening: Whitening
    integrator: Integrator
    step_size: float
    trajectory: float
    shortest: float

    @classmethod
    def first(cls, dim: int) -> "Setting":
        """What to begin with when nothing is known."""
        return cls("unit", unit(dim), TWO_LEAPFROGS, 0.1, 0.1, 0.0)

    @property
    def longest_step(self) -> float:
        """A longer one counts as this: every trajectory is one step, jitter or not."""
        return self.trajectory / (1.0 - JitteredHMC.step_jitter)

    @property
    def schedule(self) -> tuple[np.ndarray, np.ndarray]:
        """Sizes and numbers of steps of all draws, as `JitteredHMC` makes them."""
        reach = min(self.step_size, self.longest_step)
        lengths = self.trajectory * (self.shortest + (1.0 - self.shortest) * PHASES)[:, None]
        longest = reach * (1.0 - JitteredHMC.step_jitter * PHASES)
        steps = np.maximum(1.0, np.ceil(lengths / longest))
        return np.clip(lengths / steps, 0.5 * longest, longest), steps

    @property
    def steps(self) -> float:
        """Of a draw, on average."""
        return float(self.schedule[1].mean())

    def tuning(self, dtype: DTypeLike) -> JitteredHMCTuning:
        step, longest, shortest = (jnp.asarray(x, dtype) for x in (self.step_size, self.trajectory, self.shortest))
        metric, integrator = self.whitening.metric(dtype), self.integrator.as_arrays(dtype)
        return JitteredHMCTuning(step, longest, shortest, metric, integrator)


def guessed(family: str, whitening: Whitening, position: np.ndarray, gradient: np.ndarray) -> Setting:
    """The setting for a metric when no step size is known, from draws `[n, dim]` and gradients there."""
    dim = len(whitening.scale)
    step_size = min(LONGEST_STEP, FIRST_STEP / dim**0.25 / np.sqrt(whitening.stiffest(gradient)))
    first = Setting.first(dim)._replace(family=family, whitening=whitening, step_size=float(step_size))
    return _paced(first, position, gradient)


def retuned(before: Setting, family: str, whitening: Whitening, position: np.ndarray, gradient: np.ndarray) -> Setting:
    """The setting for another metric, from draws `[n, dim]` and gradients there."""
    step_size = before.step_size * np.sqrt(before.whitening.stiffest(gradient) / whitening.stiffest(gradient))
    return _paced(before._replace(family=family, whitening=whitening, step_size=float(step_size)), position, gradient)


def corrected(setting: Setting, trail: Trail, target_accept: float) -> Setting:
    """The setting with the step size that draws made with it ask for.

    What the inverse of the acceptance has beyond 1 grows about as the fourth power of the step size, since the variance
    of the energy error does. Adaptation is too short to see every part of the jitter, and less patient with chains that
    are stuck; this sees the sizes that the draws had.

    Args:
        setting: with the step size of the draws.
        trail: draws for which it did not change.
        target_accept: harmonic mean to aim at.
    """
    lacking = np.mean(1.0 / np.maximum(trail.acceptance.astype(float), FLOOR)) - 1.0
    allowed = (1.0 / target_accept - 1.0) * np.mean(trail.step_size.astype(float) ** 4) / max(lacking, 1e-6)
    sizes = setting.step_size * np.geomspace(*CORRECTION, 32)
    fitting = [size for size in sizes if np.mean(setting._replace(step_size=size).schedule[0] ** 4) <= allowed]
    return setting._replace(step_size=min(float(max(fitting, default=sizes[0])), setting.longest_step))


def _paced(setting: Setting, position: np.ndarray, gradient: np.ndarray) -> Setting:
    """The setting with trajectories as long as its metric asks for."""
    slowest = np.sqrt(setting.whitening.slowest(position))
    lengths = pace(slowest * np.sqrt(setting.whitening.stiffest(gradient)))
    setting = setting._replace(trajectory=float(lengths.longest * slowest), shortest=lengths.shortest)
    return setting._replace(step_size=float(np.clip(setting.step_size, 1e-6, setting.longest_step)))
