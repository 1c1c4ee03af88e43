"""Mean and spread of every coordinate and of the log density, chain by chain (Welford, 1962)."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from shoal.diagnostics.effective import ess_of_spread
from shoal.diagnostics.estimates import nested_of_moments, r_hat_of_spread
from shoal.ensemble import Ensemble, Transition
from shoal.statistics.base import Said, Statistic
from shoal.target import Target

# The spread of the means of so many chains tells the effective sample size to 37%; of fewer it is a guess.
FEWEST_CHAINS = 16


class Moments(Statistic):
    """Running means and sums of squared deviations."""

    class Memory(eqx.Module):
        """Attributes: draws so far; mean and sum of squares of the coordinates and, last, the log density."""

        count: Float[Array, " chains"]
        mean: Float[Array, "chains quantities"]
        squares: Float[Array, "chains quantities"]

    def init(self, ensemble: Ensemble, target: Target) -> "Moments.Memory":
        zeros = jnp.zeros_like(_quantities(ensemble))
        return self.Memory(zeros[:, 0], zeros, zeros)

    def update(self, memory: "Moments.Memory", transition: Transition, target: Target) -> "Moments.Memory":
        count = memory.count + 1.0
        values = _quantities(transition.after)
        off = values - memory.mean
        mean = memory.mean + off / count[:, None]
        return self.Memory(count, mean, memory.squares + off * (values - mean))

    def compute(self, memory: "Moments.Memory", superchain: Int[np.ndarray, " chains"]) -> Said:
        """Pooled mean, standard deviation, R-hat and effective sample size of each quantity, the log density last.

        R-hat is NaN where there is one chain, nested R-hat where there is one superchain, and the effective sample size
        of the mean, which is told by the spread of the means of chains, where there are fewer than `FEWEST_CHAINS`.
        """
        count, mean = int(memory.count[0]), np.asarray(memory.mean, np.float64)
        variances = np.asarray(memory.squares, np.float64) / max(count - 1, 1)
        chains, unknown = len(mean), np.full(mean.shape[1], np.nan)
        several, many = np.max(superchain) > 0, chains >= FEWEST_CHAINS
        within, between = variances.mean(0), mean.var(0)
        spread = between * chains / max(chains - 1, 1)
        own = within * max(count - 1, 1) / max(count, 1)
        return {
            "mean": mean.mean(0),
            "sd": np.sqrt(within + between),
            "r_hat_nested": nested_of_moments(mean.T, variances.T, superchain) if several else unknown,
            "r_hat": r_hat_of_spread(spread, within, count) if chains > 1 and count else unknown,
            "ess": ess_of_spread(spread, own, chains, count) if many and count else unknown,
        }


def _quantities(ensemble: Ensemble) -> Float[Array, "chains quantities"]:
    # All in double where log densities are: they are about a constant that single would not leave a digit of them.
    return jnp.concatenate([ensemble.position, ensemble.log_density[:, None]], axis=1)
