r"""Generalised Hamiltonian Monte Carlo: momentum and acceptance variable persist from draw to draw.

Beside $x$ a chain remembers its whitened momentum $m$ and $u \in [-1, 1)$; stationary is $\pi(x)\,N(m; 0, I)$ with $u$
uniform. A draw is three maps that each leave that law invariant:

1. $m \leftarrow \sqrt{1 - \alpha}\,m + \sqrt{\alpha}\,\xi$ with $\xi \sim N(0, I)$, $\alpha = 1 - e^{-2 t \gamma}$,
   where $t = L \epsilon$ is the time of a draw and $\gamma$ the damping (Horowitz, 1991);
2. $u \leftarrow (u + 1 + \delta) \bmod 2 - 1$ with $\delta = \alpha / 2$: a turn of the circle (Neal, 2020);
3. $(x, m) \to (x', m')$ by $L$ leapfrog steps, accepted where $|u| < e^{-\Delta H}$; then
   $u \leftarrow u\,e^{\Delta H}$, so that $u\,\pi(x)\,N(m)$, the height of a slice, stays what it was. Where it is
   rejected, $m \leftarrow -m$.

Since $u$ moves slowly, rejections come in clusters, and between them a chain goes its way undisturbed. With one step
per draw this is Langevin dynamics whose momentum lives for a time $1 / \gamma$.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from shoal.dynamics.integrators import LEAPFROG, Flow
from shoal.dynamics.metrics import Diagonal, Metric
from shoal.dynamics.metropolis import metropolis
from shoal.ensemble import Ensemble, Info
from shoal.kernels.base import Kernel
from shoal.kernels.hmc import Proposal, propose, told
from shoal.randomness import Keys
from shoal.target import Target

MOMENTUM, SLICE = 0, 1


class Persistent(eqx.Module):
    """What a chain of `GHMC` remembers.

    Attributes:
        momentum: whitened, so that its law does not change when the metric is tuned.
        slice: u.
        fresh: nothing is remembered yet: the next draw takes both from their stationary law.
    """

    momentum: Float[Array, "*block chains dim"]
    slice: Float[Array, "*block chains"]
    fresh: Bool[Array, "*block chains"]


class GHMCTuning(eqx.Module):
    """What may be tuned of `GHMC`.

    Attributes:
        step_size: integration time of one step, in whitened units.
        damping: the inverse of the time for which a momentum lives.
        metric: the whitening map.
    """

    step_size: Float[Array, ""]
    damping: Float[Array, ""]
    metric: Metric


class GHMC(Kernel[GHMCTuning]):
    """HMC with persistent momentum and non-reversible acceptance.

    Attributes:
        num_steps: leapfrog steps of a draw.
    """

    exact: ClassVar[bool] = True
    reference: ClassVar[str] = "Horowitz (1991), Phys. Lett. B 268:247; Neal (2020), arXiv:2001.11950"

    num_steps: int = 1

    Tuning: ClassVar[type[GHMCTuning]] = GHMCTuning

    @property
    def even(self) -> bool:
        return True

    def tuning(self, dim: int, dtype: DTypeLike) -> GHMCTuning:
        return self.Tuning(jnp.asarray(0.1, dtype), jnp.asarray(1.0, dtype), Diagonal(jnp.ones(dim, dtype)))

    @property
    def starts_anywhere(self) -> bool:
        return True

    def init(self, position: Float[Array, "chains dim"], target: Target) -> Ensemble:
        log_density, gradient = target(position)
        nothing = Persistent(jnp.zeros_like(position), jnp.zeros_like(position[:, 0]), jnp.ones(len(position), bool))
        return Ensemble(position, log_density, gradient, nothing)

    def step(self, keys: Keys, ensemble: Ensemble, tuning: GHMCTuning, target: Target) -> tuple[Ensemble, Info]:
        flow = Flow(target, tuning.metric, LEAPFROG, tuning.step_size)
        num_steps = jnp.asarray(self.num_steps, jnp.int32)
        memory = self.refreshed(keys, ensemble.memory, tuning)
        proposal = propose(ensemble, memory.momentum, flow, num_steps)
        stay = eqx.tree_at(lambda e: e.memory, ensemble, self.turned(memory))
        move = eqx.tree_at(lambda e: e.memory, proposal.ensemble, self.carried(memory, proposal))
        after, acceptance, error = metropolis(jnp.abs(memory.slice), stay, move, proposal.error)
        return after, told(proposal, acceptance, error, flow, num_steps)

    def refreshed(self, keys: Keys, memory: Persistent, tuning: GHMCTuning) -> Persistent:
        """The momentum partly forgotten, the slice turned; all of both where nothing is remembered."""
        dim, dtype = memory.momentum.shape[-1], memory.momentum.dtype
        forgotten = -jnp.expm1(-2.0 * self.num_steps * tuning.step_size * tuning.damping)
        share = jnp.where(memory.fresh, 1.0, forgotten)[:, None]
        momentum = jnp.sqrt(1.0 - share) * memory.momentum + jnp.sqrt(share) * keys.normal(MOMENTUM, dim, dtype)
        height = memory.slice + 0.5 * forgotten
        height = jnp.where(height < 1.0, height, height - 2.0)
        height = jnp.where(memory.fresh, 2.0 * keys.uniform(SLICE, dtype) - 1.0, height)
        return Persistent(momentum, height, jnp.zeros_like(memory.fresh))

    def carried(self, memory: Persistent, proposal: Proposal) -> Persistent:
        """The memory where the proposal is accepted: at its end, and at the same height of the slice."""
        return Persistent(proposal.momentum, memory.slice * jnp.exp(proposal.error), memory.fresh)

    def turned(self, memory: Persistent) -> Persistent:
        """The memory where the proposal is rejected: back the way it came."""
        return Persistent(-memory.momentum, memory.slice, memory.fresh)
