r"""The No-U-Turn Sampler, several draws in a bundle, so that no chain waits for the deepest tree of the others.

A trajectory of leapfrog steps from a momentum $p \sim N(0, I)$ doubles, forwards or backwards in time by chance, until
a balanced part of it turns (`shoal.dynamics.trees`). Leaf $z$ has the weight $w(z) = e^{H(z_0) - H(z)}$. Within a
doubling a leaf is drawn in proportion to its weight; it becomes the draw with probability
$\min(1, w_\text{doubling} / w_\text{before})$, unless the doubling has turned or diverged on the way (Hoffman & Gelman,
2014; Betancourt, 2017, arXiv:1701.02434, appendix A).

Trees are of unequal size. So a chain makes several draws in a sweep, each begun as soon as the one before is finished
(`shoal.kernels.bundle`; Dance, Glaser, Orbanz & Adams, 2025, arXiv:2503.17405).
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from shoal.dynamics.integrators import LEAPFROG, Flow
from shoal.dynamics.metrics import Diagonal, Metric
from shoal.ensemble import Ensemble, Info, Transition
from shoal.kernels.base import Kernel
from shoal.kernels.bundle import Machine, Plan
from shoal.kernels.hmc import kinetic
from shoal.randomness import Keys, Stream
from shoal.target import Target

# The uses of a draw's keys from 2 on are those of its leaves.
MOMENTUM, DIRECTIONS = 0, 1
# A uniform variate in float32 has bits for so many directions and some more.
DEEPEST = 20


class NUTSTuning(eqx.Module):
    """What may be tuned of `NUTS`.

    Attributes:
        step_size: integration time of one step, in whitened units.
        metric: the whitening map.
    """

    step_size: Float[Array, ""]
    metric: Metric


class NUTS(Kernel[NUTSTuning]):
    """The multinomial No-U-Turn Sampler.

    Of what a draw reports, the acceptance rate is the mean over the leaves of its tree; energy, its error, proposal
    and momentum are those of the draw itself.

    Attributes:
        max_tree_depth: the most doublings of a trajectory, at most 20; a draw takes fewer than 2 to this power steps.
        draws_per_sweep: draws that a chain makes before it waits for the others; it changes no draw.
    """

    exact: ClassVar[bool] = True
    reference: ClassVar[str] = "Betancourt (2017), arXiv:1701.02434, appendix A; Dance et al. (2025), arXiv:2503.17405"

    max_tree_depth: int = 10
    draws_per_sweep: int = 10  # pyright: ignore[reportIncompatibleMethodOverride]

    Tuning: ClassVar[type[NUTSTuning]] = NUTSTuning

    def tuning(self, dim: int, dtype: DTypeLike) -> NUTSTuning:
        return self.Tuning(jnp.asarray(0.1, dtype), Diagonal(jnp.ones(dim, dtype)))

    def step(self, keys: Keys, ensemble: Ensemble, tuning: NUTSTuning, target: Target) -> tuple[Ensemble, Info]:
        plans = jax.tree.map(lambda leaf: leaf[None], self.plan(keys, ensemble))
        after, draws = self.bundle(plans, ensemble, tuning, target)
        return after, jax.tree.map(lambda leaf: leaf[0], draws.info)

    def sweep(
        self, stream: Stream, index: Int[Array, ""], ensemble: Ensemble, tuning: NUTSTuning, target: Target
    ) -> tuple[Ensemble, Transition]:
        draws = index + jnp.arange(self.draws_per_sweep, dtype=index.dtype)
        plans = jax.lax.map(lambda draw: self.plan(stream.draw(draw), ensemble), draws)
        return self.bundle(plans, ensemble, tuning, target)

    def plan(self, keys: Keys, ensemble: Ensemble) -> Plan:
        """What is known of a draw from its keys."""
        dim, dtype = ensemble.position.shape[-1], ensemble.position.dtype
        # Where the start is among the leaves of the deepest tree: its bits are the directions.
        directions = keys.uniform(DIRECTIONS, dtype) * 2.0**self.max_tree_depth
        momentum = keys.normal(MOMENTUM, dim, dtype)
        plan = Plan(momentum, kinetic(momentum), directions.astype(jnp.int32), keys.chain)
        # Compiled by itself, so that the number of draws in a bundle changes no rounding.
        return jax.lax.optimization_barrier(plan)

    def machine(self, plans: Plan, tuning: NUTSTuning, target: Target) -> Machine:
        """The loop that makes the draws."""
        return Machine(Flow(target, tuning.metric, LEAPFROG, tuning.step_size), plans, self.max_tree_depth)

    def bundle(
        self, plans: Plan, ensemble: Ensemble, tuning: NUTSTuning, target: Target
    ) -> tuple[Ensemble, Transition]:
        """The ensemble after the planned draws; all of them, along a leading axis."""
        drawn, iterations = self.machine(plans, tuning, target).run(ensemble)
        point, steps = drawn.point, drawn.num_steps
        memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (steps.shape[0], *leaf.shape)), ensemble.memory)
        position, momentum, gradient = point.phase
        after = Ensemble(position, point.log_density, gradient, memory)
        before = jax.tree.map(lambda first, rows: jnp.concatenate([first[None], rows[:-1]]), ensemble, after)
        info = Info(
            acceptance_rate=drawn.acceptance_rate,
            energy_error=point.energy_error,
            diverging=drawn.diverging,
            step_size=jnp.broadcast_to(tuning.step_size, steps.shape),
            num_steps=steps,
            gradients=steps,
            proposal=position,
            momentum=momentum,
            idle=jnp.zeros_like(steps).at[-1].set(iterations - steps.sum(0, dtype=steps.dtype)),
            # That of the start and its change along the trajectory: no sum over coordinates, which a bundle would round
            # in its own way.
            energy=plans.kinetic - before.log_density + point.energy_error,
        )
        return jax.tree.map(lambda leaf: leaf[-1], after), Transition(before, after, info)
