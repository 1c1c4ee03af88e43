"""Kernels and a target with one mistake each, which the exact-start tests must catch."""

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.dynamics.integrators import LEAPFROG, Flow
from shoal.dynamics.metropolis import DIVERGENCE, metropolis
from shoal.ensemble import Ensemble, Info
from shoal.kernels import GHMC, HMC
from shoal.kernels.ghmc import Persistent
from shoal.kernels.hmc import ACCEPTANCE, MOMENTUM, kinetic
from shoal.target import Target


class Mutant(HMC):
    """HMC taken apart, so that a mutant can get one part wrong."""

    def step(self, keys, ensemble, tuning, target):
        dtype = ensemble.position.dtype
        momentum = self.momentum(keys.normal(MOMENTUM, ensemble.position.shape[-1], dtype))
        (position, end, gradient), log_density = self.flow(ensemble, momentum, tuning, target)
        error = self.energy(end, log_density, tuning) - self.energy(momentum, ensemble.log_density, tuning)
        proposed = Ensemble(position, log_density, gradient)
        after, rate, error = self.accept(keys.uniform(ACCEPTANCE, dtype), ensemble, proposed, error)
        steps = jnp.broadcast_to(tuning.num_steps, rate.shape)
        return after, Info(
            rate,
            error,
            error > DIVERGENCE,
            jnp.broadcast_to(tuning.step_size, rate.shape),
            steps,
            steps,
            position,
            end,
        )

    def momentum(self, normal):
        return normal

    def flow(self, ensemble, momentum, tuning, target):
        flow = Flow(target, tuning.metric, LEAPFROG, tuning.step_size)
        return flow.integrate((ensemble.position, momentum, ensemble.gradient), tuning.num_steps)

    def energy(self, momentum, log_density, tuning):
        return kinetic(momentum) - log_density

    def accept(self, uniform, current, proposed, error):
        return metropolis(uniform, current, proposed, error)


class WrongAcceptance(Mutant):
    """The acceptance forgets the kinetic energy."""

    def energy(self, momentum, log_density, tuning):
        return -log_density


class WrongMomentum(Mutant):
    """The momentum's variance is not the one that the energy supposes."""

    def momentum(self, normal):
        return 1.15 * normal


class LengthFromPosition(Mutant):
    """The trajectory's length depends on where it begins."""

    def flow(self, ensemble, momentum, tuning, target):
        start = (ensemble.position, momentum, ensemble.gradient)
        flow = Flow(target, tuning.metric, LEAPFROG, tuning.step_size)
        short, long = flow.integrate(start, tuning.num_steps), flow.integrate(start, 2 * tuning.num_steps)
        right = ensemble.position[:, :1] > 0.3
        pick = lambda a, b: jnp.where(right if a.ndim == 2 else right[:, 0], a, b)
        return jax.tree.map(pick, long, short)


class InconsistentMetric(Mutant):
    """The energy measures momenta in another metric than the one they move by."""

    def energy(self, momentum, log_density, tuning):
        return kinetic(tuning.metric.velocity(momentum)) - log_density


class NeverRejects(Mutant):
    """The proposal is kept without accepting it."""

    def accept(self, uniform, current, proposed, error):
        _, rate, error = metropolis(uniform, current, proposed, error)
        return proposed, rate, error


class LacksLastKick(Mutant):
    """The trajectory ends half a kick early: not reversible."""

    def flow(self, ensemble, momentum, tuning, target):
        (position, end, gradient), log_density = super().flow(ensemble, momentum, tuning, target)
        flow = Flow(target, tuning.metric, LEAPFROG, tuning.step_size)
        return flow.kick(-0.5, (position, end, gradient)), log_density


MUTANTS = {
    mutant.__name__: mutant
    for mutant in (
        WrongAcceptance,
        WrongMomentum,
        LengthFromPosition,
        InconsistentMetric,
        NeverRejects,
        LacksLastKick,
    )
}


class UnflippedMomentum(GHMC):
    """A chain that was rejected goes on in the direction in which it was rejected."""

    def turned(self, memory):
        return memory


class ForgottenHeight(GHMC):
    """The slice's height moves with the density: u stays as it is where a proposal is accepted."""

    def carried(self, memory, proposal):
        return Persistent(proposal.momentum, memory.slice, memory.fresh)


class InvertedHeight(GHMC):
    """u is scaled by the inverse of what it should be."""

    def carried(self, memory, proposal):
        return Persistent(proposal.momentum, memory.slice * jnp.exp(-proposal.error), memory.fresh)


class ColdStart(GHMC):
    """The memory begins at rest and not with its stationary law."""

    def init(self, position, target):
        ensemble = super().init(position, target)
        return eqx.tree_at(lambda e: e.memory.fresh, ensemble, jnp.zeros_like(ensemble.memory.fresh))


class UnevenRefresh(GHMC):
    """The old momentum keeps 1 - alpha, and not its square root."""

    def refreshed(self, keys, memory, tuning):
        share = -jnp.expm1(-2.0 * self.num_steps * tuning.step_size * tuning.damping)
        kept = jnp.where(memory.fresh, 1.0, jnp.sqrt(1.0 - share))[:, None]
        return super().refreshed(keys, eqx.tree_at(lambda m: m.momentum, memory, kept * memory.momentum), tuning)


GHMC_MUTANTS = {
    mutant.__name__: mutant for mutant in (UnflippedMomentum, ForgottenHeight, InvertedHeight, ColdStart, UnevenRefresh)
}


def without_jacobian(target: Target, model) -> Target:
    """The model's target with the logarithm of the Jacobian left out."""

    def log_density(position, data):
        values = target.constrain(position, data)
        return model(values)

    return Target(log_density, target.constrain, target.data, target.dim)
