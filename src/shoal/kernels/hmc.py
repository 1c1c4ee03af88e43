r"""Hamiltonian Monte Carlo with a step size and a number of steps set by hand.

Draw $p \sim N(0, I)$, follow the Hamiltonian flow of $H(q, p) = -\log \pi(W q) + \frac12 |p|^2$ for $L$ steps of
size $\epsilon$, accept with probability $\min(1, e^{-\Delta H})$. The flow is reversible and keeps volume, so
$\pi$ is invariant.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from shoal.dynamics.integrators import LEAPFROG, Flow, Integrator, Splitting
from shoal.dynamics.metrics import Diagonal, Metric
from shoal.dynamics.metropolis import DIVERGENCE, metropolis
from shoal.ensemble import Ensemble, Info
from shoal.kernels.base import Kernel
from shoal.randomness import Keys
from shoal.target import Target

MOMENTUM, ACCEPTANCE = 0, 1


class Proposal(NamedTuple):
    """Where a trajectory ended.

    Attributes:
        ensemble: there; the memory is that of the start.
        momentum: there.
        error: the change of the Hamiltonian.
        kinetic: energies of the momenta at the start and there; None where momenta have none.
    """

    ensemble: Ensemble
    momentum: Float[Array, "chains dim"]
    error: Float[Array, " chains"]
    kinetic: tuple[Float[Array, " chains"], Float[Array, " chains"]] | None = None


def propose(
    ensemble: Ensemble, momentum: Float[Array, "chains dim"], flow: Flow, num_steps: Int[Array, ""]
) -> Proposal:
    """`num_steps` steps of the flow from the ensemble with these momenta."""
    start = (ensemble.position, momentum, ensemble.gradient)
    (position, end, gradient), log_density = flow.integrate(start, num_steps)
    # XLA would sum them once more for each use: a tenth of the time of the shortest trajectories.
    began, ended = jax.lax.optimization_barrier((kinetic(momentum), kinetic(end)))
    # Like with like: kinetic energies are small next to most log densities, and would be rounded on their grid.
    error = (ended - began) - ensemble.rise(log_density)
    return Proposal(Ensemble(position, log_density, gradient, ensemble.memory), end, error, (began, ended))


def told(
    proposal: Proposal,
    acceptance: Float[Array, " chains"],
    error: Float[Array, " chains"],
    flow: Splitting,
    num_steps: Int[Array, "*each"],
) -> Info:
    """What a draw reports; `acceptance` and `error` are from the acceptance rule, steps of all chains or of each."""
    steps = jnp.broadcast_to(num_steps, acceptance.shape)
    return Info(
        acceptance_rate=acceptance,
        energy_error=error,
        diverging=error > DIVERGENCE,
        step_size=jnp.broadcast_to(flow.step_size, acceptance.shape),
        num_steps=steps,
        gradients=steps * flow.integrator.gradients_per_step,
        proposal=proposal.ensemble.position,
        momentum=proposal.momentum,
    )


def hamiltonian_step(keys: Keys, ensemble: Ensemble, flow: Flow, num_steps: Int[Array, ""]) -> tuple[Ensemble, Info]:
    """Fresh momenta, `num_steps` steps of the flow, accept or reject."""
    dtype = ensemble.position.dtype
    momentum = keys.normal(MOMENTUM, ensemble.position.shape[-1], dtype)
    proposal = propose(ensemble, momentum, flow, num_steps)
    uniform = keys.uniform(ACCEPTANCE, dtype)
    after, info = decided(uniform, ensemble, proposal, flow, num_steps)
    assert proposal.kinetic is not None
    began, ended = proposal.kinetic
    energy = jnp.where(uniform < info.acceptance_rate, ended, began) - after.log_density
    return after, dataclasses.replace(info, energy=energy)


def decided(
    uniform: Float[Array, " chains"],
    ensemble: Ensemble,
    proposal: Proposal,
    flow: Splitting,
    num_steps: Int[Array, ""],
) -> tuple[Ensemble, Info]:
    """Accept or reject a proposal by its energy error, and a variate in [0, 1) for each chain."""
    after, acceptance, error = metropolis(uniform, ensemble, proposal.ensemble, proposal.error)
    return after, told(proposal, acceptance, error, flow, num_steps)


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

    @property
    def even(self) -> bool:
        return True

    def tuning(self, dim: int, dtype: DTypeLike) -> HMCTuning:
        return self.Tuning(jnp.asarray(0.1, dtype), jnp.asarray(10, jnp.int32), Diagonal(jnp.ones(dim, dtype)))

    def step(self, keys: Keys, ensemble: Ensemble, tuning: HMCTuning, target: Target) -> tuple[Ensemble, Info]:
        flow = Flow(target, tuning.metric, self.integrator, tuning.step_size)
        return hamiltonian_step(keys, ensemble, flow, tuning.num_steps)
