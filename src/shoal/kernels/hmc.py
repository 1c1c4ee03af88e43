r"""Hamiltonian Monte Carlo with a step size and a number of steps set by hand.

Draw $p \sim N(0, I)$, follow the Hamiltonian flow of $H(q, p) = -\log \pi(W q) + \frac12 |p|^2$ for $L$ steps of
size $\epsilon$, accept with probability $\min(1, e^{-\Delta H})$. The flow is reversible and keeps volume, so
$\pi$ is invariant.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from shoal.dynamics.integrators import LEAPFROG, Flow, Integrator
from shoal.dynamics.metrics import Diagonal, Metric
from shoal.dynamics.metropolis import DIVERGENCE, metropolis
from shoal.ensemble import Ensemble, Info
from shoal.kernels.base import Kernel
from shoal.randomness import Keys
from shoal.target import Target

MOMENTUM, ACCEPTANCE = 0, 1


def hamiltonian_step(keys: Keys, ensemble: Ensemble, flow: Flow, num_steps: Int[Array, ""]) -> tuple[Ensemble, Info]:
    """Fresh momenta, `num_steps` steps of the flow, accept or reject."""
    dtype = ensemble.position.dtype
    momentum = keys.normal(MOMENTUM, ensemble.position.shape[-1], dtype)
    start = (ensemble.position, momentum, ensemble.gradient)
    (position, end, gradient), log_density = flow.integrate(start, num_steps)
    # Like with like: kinetic energies are small next to most log densities, and would be rounded on their grid.
    error = (kinetic(end) - kinetic(momentum)) - (log_density - ensemble.log_density)
    proposed = Ensemble(position, log_density, gradient, ensemble.memory)
    after, acceptance, error = metropolis(keys.uniform(ACCEPTANCE, dtype), ensemble, proposed, error)
    steps = jnp.broadcast_to(num_steps, acceptance.shape)
    info = Info(
        acceptance_rate=acceptance,
        energy_error=error,
        diverging=error > DIVERGENCE,
        step_size=jnp.broadcast_to(flow.step_size, acceptance.shape),
        num_steps=steps,
        gradients=steps * flow.integrator.gradients_per_step,
        proposal=position,
        momentum=end,
    )
    return after, info


def kinetic(momentum: Float[Array, "chains dim"]) -> Float[Array, " chains"]:
    """The kinetic energy of whitened momenta."""
    return 0.5 * jnp.square(momentum).sum(-1)


class HMCTuning(eqx.Module):
    """What may be tuned of `HMC`.

    Attributes:
        step_size: integration time of one step, in whitened units.
        num_steps: steps of a trajectory, at least 1.
        metric: the whitening map.
    """

    step_size: Float[Array, ""]
    num_steps: Int[Array, ""]
    metric: Metric


class HMC(Kernel[HMCTuning]):
    """HMC with a fixed number of steps."""

    exact: ClassVar[bool] = True
    reference: ClassVar[str] = "Neal (2011), MCMC using Hamiltonian dynamics, arXiv:1206.1901"

    integrator: Integrator = LEAPFROG

    Tuning: ClassVar[type[HMCTuning]] = HMCTuning

    def tuning(self, dim: int, dtype: DTypeLike) -> HMCTuning:
        return self.Tuning(jnp.asarray(0.1, dtype), jnp.asarray(10, jnp.int32), Diagonal(jnp.ones(dim, dtype)))

    def step(self, keys: Keys, ensemble: Ensemble, tuning: HMCTuning, target: Target) -> tuple[Ensemble, Info]:
        flow = Flow(target, tuning.metric, self.integrator, tuning.step_size)
        return hamiltonian_step(keys, ensemble, flow, tuning.num_steps)
