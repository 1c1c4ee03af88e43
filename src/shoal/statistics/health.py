"""Whether the chains move: acceptance, divergences, and the gradients that were paid for."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from shoal.ensemble import Ensemble, Transition
from shoal.statistics.base import Said, Statistic
from shoal.target import Target


class Health(Statistic):
    """Sums of acceptance, divergences and gradients, chain by chain."""

    class Memory(eqx.Module):
        """Attributes: draws so far, and sums over them."""

        count: Int[Array, " chains"]
        acceptance: Float[Array, " chains"]
        divergences: Int[Array, " chains"]
        gradients: Int[Array, " chains"]
        paid: Int[Array, " chains"]

    def init(self, ensemble: Ensemble, target: Target) -> "Health.Memory":
        none = jnp.zeros(ensemble.log_density.shape, jnp.int32)
        return self.Memory(none, ensemble.nothing, none, none, none)

    def update(self, memory: "Health.Memory", transition: Transition, target: Target) -> "Health.Memory":
        info = transition.info
        return self.Memory(
            memory.count + 1,
            memory.acceptance + info.acceptance_rate,
            memory.divergences + info.diverging.astype(jnp.int32),
            memory.gradients + info.gradients,
            memory.paid + info.paid,
        )

    def compute(self, memory: "Health.Memory", superchain: Int[np.ndarray, " chains"]) -> Said:
        """Over all chains: draws, their mean acceptance, the numbers of divergences and of gradients, used and paid."""
        draws = np.asarray(memory.count).sum(dtype=np.int64)
        return {
            "draws": draws,
            "acceptance": np.asarray(memory.acceptance).sum(dtype=np.float64) / np.maximum(draws, 1),
            "divergences": np.asarray(memory.divergences).sum(dtype=np.int64),
            "gradients": np.asarray(memory.gradients).sum(dtype=np.int64),
            "paid": np.asarray(memory.paid).sum(dtype=np.int64),
        }
