"""A diagonal metric from the marginal standard deviations of all chains, forgetting its beginning."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from shoal.adaptation.averaging import weight
from shoal.adaptation.base import Adaptation, Tuning
from shoal.dynamics.metrics import Diagonal
from shoal.ensemble import Transition
from shoal.mesh import Pool


class DiagonalMetric(Adaptation):
    """Sets `tuning.metric` to the pooled standard deviations.

    Attributes:
        prior_draws: draws of unit variance mixed in at first, which few chains need: the spread of one chain
            at one time is zero.
    """

    prior_draws: float = 20.0

    class Memory(eqx.Module):
        """Attributes: the pooled mean and variance of each coordinate; the count of sweeps."""

        mean: Float[Array, " dim"]
        variance: Float[Array, " dim"]
        count: Float[Array, ""]

    def init(self, tuning: Tuning) -> PyTree:
        scale = tuning.metric.scale
        return self.Memory(jnp.zeros_like(scale), jnp.square(scale), jnp.zeros((), scale.dtype))

    def update(
        self, memory: PyTree, tuning: Tuning, tiles: Transition, pool: Pool, progress: Float[Array, ""]
    ) -> tuple[PyTree, Tuning]:
        def deviations(draws: Transition) -> tuple[Array, Array]:
            off = draws.after.position - memory.mean[None]
            return off, jnp.square(off)

        first, second = pool.sum(deviations, tiles)
        off = first * (1.0 / pool.count)
        variance = jnp.maximum(second * (1.0 / pool.count) - jnp.square(off), 0.0)
        count = memory.count + 1.0
        share = weight(count + self.prior_draws / pool.count)
        mean = memory.mean + share * off
        variance = (1.0 - share) * (memory.variance + share * jnp.square(off)) + share * variance
        tuning = eqx.tree_at(lambda t: t.metric, tuning, Diagonal(jnp.sqrt(variance)))
        return self.Memory(mean, variance, count), tuning
