"""How far draws reach along each unconstrained coordinate, chain by chain."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from shoal.ensemble import Ensemble, Transition
from shoal.statistics.base import Said, Statistic
from shoal.target import Target


class Reach(Statistic):
    """The least and the greatest value of every coordinate."""

    class Memory(eqx.Module):
        """Attributes: the least and the greatest so far; infinite, with the wrong sign, where there are no draws."""

        low: Float[Array, "chains dim"]
        high: Float[Array, "chains dim"]

    def init(self, ensemble: Ensemble, target: Target) -> "Reach.Memory":
        nowhere = jnp.full_like(ensemble.position, jnp.inf)
        return self.Memory(nowhere, -nowhere)

    def update(self, memory: "Reach.Memory", transition: Transition, target: Target) -> "Reach.Memory":
        position = transition.after.position
        return self.Memory(jnp.minimum(memory.low, position), jnp.maximum(memory.high, position))

    def compute(self, memory: "Reach.Memory", superchain: Int[np.ndarray, " chains"]) -> Said:
        """The least, `low`, and the greatest, `high`, of each chain."""
        return {"low": np.asarray(memory.low), "high": np.asarray(memory.high)}
