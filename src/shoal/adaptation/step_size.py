r"""Step size by dual averaging of the pooled acceptance (Nesterov, 2009; Hoffman & Gelman, 2014, section 3.2).

All chains' acceptance probabilities at one step size are one observation: their harmonic mean, which a few
badly served chains pull down (Hoffman, Radul & Sountsov, 2021, section 3.3). A chain that is stuck accepts
nothing at any step size; counted in full, it would drag the step size of all others to zero. So the inverse of
one chain's acceptance counts as at most $\kappa = 1 + 0.45\,n\,(1/\delta - 1)$ for $n$ chains and the target
$\delta$, and as at most 4 where that is less: even two stuck chains do not use up what the target allows all. That
holds in the second half of the warmup; in the first, small steps may still free the chain.
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from shoal.adaptation.averaging import weight
from shoal.adaptation.base import Adaptation, Tuning
from shoal.ensemble import Transition
from shoal.mesh import Pool

# Of the shortfall that the target allows all chains, the most that one of them may use.
SHARE = 0.45
# While it is patient every chain counts nearly in full, down to this acceptance.
FLOOR = 0.02


class StepSize(Adaptation):
    """Moves `tuning.step_size` until the harmonic mean of acceptance is `target_accept`.

    Attributes:
        target_accept: in (0, 1).
        gain: how far one observation moves the logarithm; the published gamma is its inverse.
        delay: iterations that damp the first moves; the published t0.
        head_start: how far above the first guess the moves begin, as a factor: early they err towards long steps,
            which are cheap.
        patience: the part of the warmup in which every chain counts nearly in full.
    """

    target_accept: float = 0.8
    gain: float = 10.0
    delay: float = 10.0
    head_start: float = 10.0
    patience: float = 0.5

    class Memory(eqx.Module):
        """What is remembered.

        Attributes:
            anchor: the log step size that dual averaging shrinks to.
            shortfall: mean of what the acceptance lacks.
            settled: average of the log step size.
            count: sweeps so far.
            patient: whether every chain still counts nearly in full.
        """

        anchor: Float[Array, ""]
        shortfall: Float[Array, ""]
        settled: Float[Array, ""]
        count: Float[Array, ""]
        patient: Bool[Array, ""]

    @property
    def sizes_steps(self) -> bool:
        # Not those that are derived from it: they may watch more.
        return type(self) is StepSize

    def init(self, tuning: Tuning) -> PyTree:
        log = jnp.log(tuning.step_size)
        zero = jnp.zeros_like(log)
        return self.Memory(log + math.log(self.head_start), zero, log, zero, jnp.asarray(True))

    def update(
        self,
        memory: PyTree,
        tuning: Tuning,
        tiles: Float[Array, "tiles draws tile"],
        pool: Pool,
        progress: Float[Array, ""],
    ) -> tuple[PyTree, Tuning]:
        capped = 1.0 / jnp.maximum(4.0, 1.0 + SHARE * pool.count * (1.0 / self.target_accept - 1.0))
        floor = jnp.where(progress < self.patience, jnp.minimum(FLOOR, capped), capped)
        inverse = pool.sum(lambda acceptance: 1.0 / jnp.maximum(acceptance, floor), tiles)
        # Then it begins anew from where it is, so that what was done for a stuck chain is soon undone.
        anew = memory.patient & (progress >= self.patience)
        anchor = jnp.where(anew, memory.settled, memory.anchor)
        count = jnp.where(anew, 1.0, memory.count + 1.0)
        shortfall = jnp.where(anew, 0.0, memory.shortfall)
        missing = self.target_accept - pool.count / inverse
        shortfall = shortfall + (missing - shortfall) / (count + self.delay)
        log = anchor - self.gain * jnp.sqrt(count) * shortfall
        settled = memory.settled + weight(count) * (log - memory.settled)
        tuning = eqx.tree_at(lambda t: t.step_size, tuning, jnp.exp(log))
        return self.Memory(anchor, shortfall, settled, count, progress < self.patience), tuning

    def watch(self, transition: Transition) -> Float[Array, "*block chains"]:
        return transition.info.acceptance_rate

    def freeze(self, memory: PyTree, tuning: Tuning) -> Tuning:
        return eqx.tree_at(lambda t: t.step_size, tuning, jnp.exp(memory.settled))
