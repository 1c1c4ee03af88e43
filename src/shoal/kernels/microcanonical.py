r"""Microcanonical Langevin dynamics without correction: one gradient per draw, biased, for burn-in only.

A draw is one leapfrog step of length $\epsilon$ of the isokinetic dynamics, whose velocity keeps unit length, and then
a partial refresh $u \leftarrow (u + \nu z) / |u + \nu z|$, $\nu^2 = (e^{2 \epsilon / L} - 1) / d$, $z \sim N(0, I)$.
The continuous dynamics leave $\pi(x)$ times the uniform density of directions invariant for any decoherence length
$L$; a step of finite length leaves a bias that goes with the variance of the energy error (Robnik & Seljak, 2026,
arXiv:2601.16696).
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


class MicrocanonicalTuning(eqx.Module):
    """What may be tuned of `Microcanonical`.

    Attributes:
        step_size: length of a step, in whitened units.
        trajectory: length after which the direction is forgotten, in whitened units.
        metric: the whitening map.
    """

    step_size: Float[Array, ""]
    trajectory: Float[Array, ""]
    metric: Metric


class Microcanonical(Kernel[MicrocanonicalTuning]):
    """Unadjusted microcanonical Langevin dynamics; the memory of a chain is its velocity."""

    exact: ClassVar[bool] = False
    reference: ClassVar[str] = "Robnik & Seljak (2026), arXiv:2601.16696"

    Tuning: ClassVar[type[MicrocanonicalTuning]] = MicrocanonicalTuning

    def tuning(self, dim: int, dtype: DTypeLike) -> MicrocanonicalTuning:
        """The first guess of LAPS, for a target of unit variances.

        Raises:
            ValueError: `dim` is 1.
        """
        check_dim("Microcanonical", dim)
        step_size, trajectory = jnp.asarray(0.01 * dim**0.5, dtype), jnp.asarray(2.0 * dim**0.5, dtype)
        return self.Tuning(step_size, trajectory, Diagonal(jnp.ones(dim, dtype)))

    def init(self, position: Float[Array, "chains dim"], target: Target) -> Ensemble:
        """The ensemble at these positions, on its way up the gradient; where that is zero, along the diagonal."""
        dim = position.shape[-1]
        check_dim("Microcanonical", dim)
        log_density, gradient = target(position)
        uphill, size = direction(gradient)
        velocity = jnp.where((size > 0.0)[:, None], uphill, jnp.full_like(uphill, dim**-0.5))
        return Ensemble(position, log_density, gradient, velocity)

    def step(
        self, keys: Keys, ensemble: Ensemble, tuning: MicrocanonicalTuning, target: Target
    ) -> tuple[Ensemble, Info]:
        """One step of every chain; one whose end is not finite turns round where it is."""
        dim, dtype = ensemble.position.shape[-1], ensemble.position.dtype
        flow = Isokinetic(target, tuning.metric, LEAPFROG, tuning.step_size)
        start = Heading(ensemble.memory, jnp.zeros_like(ensemble.log_density))
        begun = flow.kick(LEAPFROG.kicks[0], (ensemble.position, start, ensemble.gradient))
        (position, end, gradient), log_density = flow.finish(begun)
        error = end.kinetic - (log_density - ensemble.log_density)
        back = eqx.tree_at(lambda e: e.memory, ensemble, -ensemble.memory)
        proposal = Proposal(Ensemble(position, log_density, gradient, end.velocity), end.velocity, error)
        after, taken, error = unadjusted(back, proposal.ensemble, error)
        turns = tuning.step_size * (1.0 / tuning.trajectory)
        velocity = refreshed(after.memory, keys.normal(REFRESH, dim, dtype), turns)
        info = told(proposal, taken, error, flow, jnp.asarray(1, jnp.int32))
        return eqx.tree_at(lambda e: e.memory, after, velocity), info
