r"""Microcanonical Langevin dynamics without correction: one gradient per draw, biased, for burn-in only.

A draw is one leapfrog step of length $\epsilon$ of the isokinetic dynamics, whose velocity keeps unit length, and then
a partial refresh $u \leftarrow (u + \nu z) / |u + \nu z|$, $\nu^2 = (e^{2 \epsilon / L} - 1) / d$, $z \sim N(0, I)$.
The continuous dynamics leave $\pi(x)$ times the uniform density of directions invariant for any decoherence length
$L$; a step of finite length leaves a bias that goes with the variance of the energy error (Robnik & Seljak, 2026,
arXiv:2601.16696).

A step that is right for most chains is too long where the target is stiff, and one chain that began there would make
all of them crawl. So a chain takes steps half as long after an energy error above a bound and a twentieth of the change
of the log density, and a fifth longer after any other, up to those of the tuning; a proposal with ten times that error
is not taken. Without a bound all have one step.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from shoal.dynamics.integrators import LEAPFROG
from shoal.dynamics.isokinetic import Heading, Isokinetic, check_dim, direction, refreshed
from shoal.dynamics.metrics import Diagonal, Metric
from shoal.dynamics.metropolis import unadjusted
from shoal.ensemble import Ensemble, Info
from shoal.kernels.base import Kernel
from shoal.kernels.hmc import Proposal, told
from shoal.randomness import Keys
from shoal.target import Target

REFRESH = 0

# The largest energy error and this share of the change of the log density, which is much of the way down to the bulk,
# are not too large; with this many times as much a proposal is not taken.
SHARE, WORST = 0.05, 10.0
# By how much a chain's steps become shorter after one that was too long, and longer after others.
SHORTER, LONGER = 0.5, 1.2


class MicrocanonicalTuning(eqx.Module):
    """What may be tuned of `Microcanonical`.

    Attributes:
        step_size: length of a step, in whitened units.
        trajectory: length after which the direction is forgotten, in whitened units.
        metric: the whitening map.
        largest_error: of the energy, beyond which a chain takes shorter steps.
    """

    step_size: Float[Array, ""]
    trajectory: Float[Array, ""]
    metric: Metric
    largest_error: Float[Array, ""]


class Moving(eqx.Module):
    """What a chain remembers.

    Attributes:
        velocity: of unit length, whitened.
        share: of the step size of the tuning, what its own energy errors let its steps be; at most 1.
    """

    velocity: Float[Array, "*block chains dim"]
    share: Float[Array, "*block chains"]


class Microcanonical(Kernel[MicrocanonicalTuning]):
    """Unadjusted microcanonical Langevin dynamics; the memory of a chain is `Moving`."""

    exact: ClassVar[bool] = False
    reference: ClassVar[str] = "Robnik & Seljak (2026), arXiv:2601.16696"

    Tuning: ClassVar[type[MicrocanonicalTuning]] = MicrocanonicalTuning

    @property
    def even(self) -> bool:
        return True

    def tuning(self, dim: int, dtype: DTypeLike) -> MicrocanonicalTuning:
        """The first guess of LAPS, for a target of unit variances.

        Raises:
            ValueError: `dim` is 1.
        """
        check_dim("Microcanonical", dim)
        step_size, trajectory = jnp.asarray(0.01 * dim**0.5, dtype), jnp.asarray(2.0 * dim**0.5, dtype)
        return self.Tuning(step_size, trajectory, Diagonal(jnp.ones(dim, dtype)), jnp.asarray(jnp.inf, dtype))

    @property
    def starts_anywhere(self) -> bool:
        return True

    def init(self, position: Float[Array, "chains dim"], target: Target) -> Ensemble:
        """The ensemble at these positions, on its way up the gradient; where that is zero, along the diagonal."""
        dim = position.shape[-1]
        check_dim("Microcanonical", dim)
        log_density, gradient = target(position)
        uphill, size = direction(gradient)
        velocity = jnp.where((size > 0.0)[:, None], uphill, jnp.full_like(uphill, dim**-0.5))
        return Ensemble(position, log_density, gradient, Moving(velocity, jnp.ones_like(position[:, 0])))

    def step(
        self, keys: Keys, ensemble: Ensemble, tuning: MicrocanonicalTuning, target: Target
    ) -> tuple[Ensemble, Info]:
        """One step of every chain; one whose end is not finite, or far off in energy, turns round where it is."""
        dim, dtype = ensemble.position.shape[-1], ensemble.position.dtype
        length = tuning.step_size * ensemble.memory.share
        flow = Isokinetic(target, tuning.metric, LEAPFROG, length)
        start = Heading(ensemble.memory.velocity, ensemble.nothing)
        begun = flow.kick(LEAPFROG.kicks[0], (ensemble.position, start, ensemble.gradient))
        (position, end, gradient), log_density = flow.finish(begun)
        gain = ensemble.rise(log_density)
        error, most = end.kinetic - gain, tuning.largest_error + SHARE * jnp.abs(gain)
        error = jnp.where(jnp.abs(error) <= WORST * most, error, jnp.inf)
        moved = Ensemble(position, log_density, gradient, end.velocity)
        turned_round = eqx.tree_at(lambda e: e.memory, ensemble, -ensemble.memory.velocity)
        after, taken, error = unadjusted(turned_round, moved, error)
        velocity = refreshed(after.memory, keys.normal(REFRESH, dim, dtype), length * (1.0 / tuning.trajectory))
        too_long = jnp.isfinite(tuning.largest_error) & ~(jnp.isfinite(error) & (jnp.abs(error) <= most))
        change = jnp.where(too_long, SHORTER, LONGER).astype(dtype)
        share = jnp.minimum(change * ensemble.memory.share, 1.0)
        info = told(Proposal(moved, end.velocity, error), taken, error, flow, jnp.asarray(1, jnp.int32))
        return eqx.tree_at(lambda e: e.memory, after, Moving(velocity, share)), info
