"""Mean and spread of every coordinate and of the log density, chain by chain (Welford, 1962)."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from shoal.diagnostics.estimates import nested_of_moments
from shoal.ensemble import Ensemble, Transition
from shoal.statistics.base import Said, Statistic


class Moments(Statistic):
    """Running means and sums of squared deviations."""

    class Memory(eqx.Module):
        """Attributes: draws so far; mean and sum of squares of the coordinates and, last, the log density."""

        count: Float[Array, " chains"]
        mean: Float[Array, "chains quantities"]
        squares: Float[Array, "chains quantities"]

    def init(self, ensemble: Ensemble) -> "Moments.Memory":
        zeros = jnp.zeros_like(_quantities(ensemble))
        return self.Memory(zeros[:, 0], zeros, zeros)

    def update(self, memory: "Moments.Memory", transition: Transition) -> "Moments.Memory":
        count = memory.count + 1.0
        values = _quantities(transition.after)
        off = values - memory.mean
        mean = memory.mean + off / count[:, None]
        return self.Memory(count, mean, memory.squares + off * (values - mean))

    def compute(self, memory: "Moments.Memory", superchain: Int[np.ndarray, " chains"]) -> Said:
        """Pooled mean, standard deviation and nested R-hat of each quantity, the log density last."""
        count, mean = float(memory.count[0]), np.asarray(memory.mean, np.float64)
        within = np.asarray(memory.squares, np.float64) / max(count - 1.0, 1.0)
        several = np.max(superchain) > 0
        r_hat = nested_of_moments(mean.T, within.T, superchain) if several else np.full(mean.shape[1], np.nan)
        return {
            "mean": mean.mean(0),
            "sd": np.sqrt(within.mean(0) + mean.var(0)),
            "r_hat_nested": r_hat,
        }


def _quantities(ensemble: Ensemble) -> Float[Array, "chains quantities"]:
    return jnp.concatenate([ensemble.position, ensemble.log_density[:, None]], axis=1)
