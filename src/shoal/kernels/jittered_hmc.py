r"""Hamiltonian Monte Carlo whose trajectory length varies from draw to draw, the same for all chains.

Draw number $t$ integrates for the time $h_t \tau$ with $h_t \in (0, 1)$ from the van der Corput sequence, in
$L_t = \lceil h_t \tau / \epsilon \rceil$ steps. $h_t$ depends on $t$ alone, not on any position, so every draw leaves
the target invariant; varying lengths keep periodic orbits from resonating. One number of steps for all chains
means that none waits for another.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from shoal.dynamics.integrators import LEAPFROG, Flow, Integrator
from shoal.dynamics.metrics import Diagonal, Metric
from shoal.ensemble import Ensemble, Info
from shoal.kernels.base import Kernel
from shoal.kernels.hmc import hamiltonian_step
from shoal.randomness import Keys, van_der_corput
from shoal.target import Target


class JitteredHMC(Kernel["JitteredHMC.Tuning"]):
    """HMC with one jittered trajectory length for the ensemble.

    Attributes:
        max_steps: the most steps of a trajectory.
    """

    exact: ClassVar[bool] = True
    reference: ClassVar[str] = "Hoffman, Radul & Sountsov (2021), PMLR 130:3907, section 3"

    integrator: Integrator = LEAPFROG
    max_steps: int = 1000

    class Tuning(eqx.Module):
        """What may be tuned.

        Attributes:
            step_size: integration time of one step, in whitened units.
            trajectory: the longest integration time of a trajectory, in whitened units.
            metric: the whitening map.
        """

        step_size: Float[Array, ""]
        trajectory: Float[Array, ""]
        metric: Metric

    def tuning(self, dim: int, dtype: DTypeLike) -> "JitteredHMC.Tuning":
        step_size, trajectory = jnp.asarray(0.1, dtype), jnp.asarray(0.1, dtype)
        return self.Tuning(step_size, trajectory, Diagonal(jnp.ones(dim, dtype)))

    def num_steps(self, index: Int[Array, ""], tuning: "JitteredHMC.Tuning") -> Int[Array, ""]:
        """Steps of draw number `index`."""
        jitter = van_der_corput(index, tuning.trajectory.dtype)
        steps = jnp.ceil(jitter * tuning.trajectory / tuning.step_size)
        return jnp.clip(steps, 1, self.max_steps).astype(jnp.int32)

    def step(
        self, keys: Keys, ensemble: Ensemble, tuning: "JitteredHMC.Tuning", target: Target
    ) -> tuple[Ensemble, Info]:
        flow = Flow(target, tuning.metric, self.integrator, tuning.step_size)
        return hamiltonian_step(keys, ensemble, flow, self.num_steps(keys.index, tuning))
