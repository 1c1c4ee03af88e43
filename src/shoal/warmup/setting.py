"""A choice of metric, splitting, step size and trajectory length, and how draws change it."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.dynamics.integrators import TWO_LEAPFROGS, Integrator
from shoal.kernels import JitteredHMC
from shoal.kernels.jittered_hmc import JitteredHMCTuning
from shoal.warmup.pace import pace
from shoal.warmup.trail import Trail
from shoal.warmup.whitening import Whitening, unit

# The step of two leapfrogs that a standard normal law in d dimensions accepts four times in five is this over the
# fourth root of d; adaptation moves on from there, and begins with no more than the longest.
FIRST_STEP, LONGEST_STEP = 2.8, 1.8
# Steps do not become shorter than this, whatever has overflowed.
LEAST_STEP = 1e-6
# What draws say of their step size shortens it, by this factor at most; longer steps than were seen may be unstable.
MOST_SHORTER = 0.5
# What the inverse of the acceptance has beyond 1 grows as this power of the step size where it is about a quarter: for
# normal energy errors, whose standard deviation is proportional to the square.
POWER = 3.0
# An acceptance counts as no less than this, so that one stuck chain of 128 shortens steps by a quarter; of fewer chains
# as so much more.
FLOOR, FLOOR_CHAINS = 0.02, 128
# The jitter of `JitteredHMC`, at the middle of 16 cells, for lengths and for sizes.
JITTER = (np.arange(16) + 0.5) / 16


class Setting(NamedTuple):
    """A choice for `JitteredHMC`, on the host.

    Attributes:
        family: of the metric.
        whitening: the metric.
        integrator: a two-stage splitting.
        step_size: in whitened units.
        trajectory: the longest, in whitened units.
        shortest: of the trajectories, as a fraction of the longest.
        finer: how many times as fine steps become where a proposal has no chance; 1 where none is tried again.
    """

    family: str
    whitening: Whitening
    integrator: Integrator
    step_size: float
    trajectory: float
    shortest: float
    finer: float = 1.0

    @classmethod
    def first(cls, dim: int) -> "Setting":
        """What to begin with when nothing is known."""
        return cls("unit", unit(dim), TWO_LEAPFROGS, 0.1, 0.1, 0.0)

    @property
    def longest_step(self) -> float:
        """With which every trajectory is one step, jitter or not."""
        return self.trajectory / (1.0 - JitteredHMC.step_jitter)

    def schedule(self, kernel: JitteredHMC) -> tuple[np.ndarray, np.ndarray]:
        """Sizes and numbers of steps of all draws, as the kernel makes them."""
        lengths = self.trajectory * (self.shortest + (1.0 - self.shortest) * JITTER)[:, None]
        longest = self.step_size * (1.0 - kernel.step_jitter * JITTER)
        steps = np.clip(np.ceil(lengths / longest), 1, kernel.max_steps)
        return np.clip(lengths / steps, 0.5 * longest, longest), steps

    def gradients_per_draw(self, kernel: JitteredHMC) -> float:
        """Of one chain, on average."""
        return kernel.integrator.gradients_per_step * float(self.schedule(kernel)[1].mean())

    def acceptance(self, kernel: JitteredHMC, trail: Trail) -> float:
        """The harmonic mean of acceptance to expect, from draws with another step size."""
        floor = min(1.0, FLOOR * max(1.0, FLOOR_CHAINS / trail.acceptance.shape[1]))
        lacking = np.mean(1.0 / np.maximum(trail.acceptance.astype(float), floor)) - 1.0
        with np.errstate(all="ignore"):
            longer = np.mean(self.schedule(kernel)[0] ** POWER) / np.mean(trail.step_size.astype(float) ** POWER)
            return float(1.0 / (1.0 + lacking * longer))

    def tuning(self, dtype: DTypeLike) -> JitteredHMCTuning:
        numbers = self.step_size, self.trajectory, self.shortest, self.finer
        step, longest, shortest, finer = (jnp.asarray(number, dtype) for number in numbers)
        metric, integrator = self.whitening.metric(dtype), self.integrator.as_arrays(dtype)
        return JitteredHMCTuning(step, longest, shortest, metric, integrator, finer)

    def learning(self, dtype: DTypeLike) -> JitteredHMCTuning:
        """The tuning for draws from which it is learned: none is tried again."""
        return dataclasses.replace(self.tuning(dtype), finer=None)


def guessed(family: str, whitening: Whitening, position: np.ndarray, gradient: np.ndarray) -> Setting:
    """The setting for a metric when no step size is known, from draws `[n, dim]` and gradients there."""
    dim = len(whitening.scale)
    step_size = min(LONGEST_STEP, FIRST_STEP / dim**0.25 / np.sqrt(whitening.stiffest(gradient)))
    first = Setting.first(dim)._replace(family=family, whitening=whitening, step_size=float(step_size))
    return _paced(first, position, gradient)


def retuned(before: Setting, family: str, whitening: Whitening, position: np.ndarray, gradient: np.ndarray) -> Setting:
    """The setting for another metric, from draws `[n, dim]` and gradients there."""
    step_size = before.step_size * np.sqrt(before.whitening.stiffest(gradient) / whitening.stiffest(gradient))
    setting = before._replace(family=family, whitening=whitening, step_size=float(step_size))
    return _paced(setting, position, gradient)


def corrected(kernel: JitteredHMC, setting: Setting, trail: Trail, target_accept: float) -> Setting:
    """The setting with the step size that draws made with it allow, and no longer than makes one step.

    Adaptation is too short to see every part of the jitter, and less patient with chains that are stuck; this sees the
    sizes that the draws had.

    Args:
        kernel: of the draws.
        setting: with their step size.
        trail: draws for which it did not change.
        target_accept: harmonic mean to aim at.
    """
    begun = max(setting.step_size, LEAST_STEP) if np.isfinite(setting.step_size) else LEAST_STEP
    sizes = begun * np.geomspace(MOST_SHORTER, 1.0, 32)
    others = [setting._replace(step_size=float(size)) for size in sizes]
    fitting = [other for other in others if other.acceptance(kernel, trail) >= target_accept]
    found = fitting[-1] if fitting else others[0]
    return found._replace(step_size=min(found.step_size, found.longest_step))


def _paced(setting: Setting, position: np.ndarray, gradient: np.ndarray) -> Setting:
    """The setting with trajectories as long as its metric asks for."""
    slowest = np.sqrt(setting.whitening.slowest(position))
    lengths = pace(slowest * np.sqrt(setting.whitening.stiffest(gradient)))
    longest = float(lengths.longest * slowest)
    setting = setting._replace(trajectory=longest, shortest=lengths.shortest)
    return setting._replace(step_size=float(np.clip(setting.step_size, LEAST_STEP, setting.longest_step)))
