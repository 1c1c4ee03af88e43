r"""Hamiltonian Monte Carlo whose step size and trajectory length vary from draw to draw, alike for all chains.

Draw number $t$ has a length $\ell_t = (s + (1 - s) h_t)\,\tau$ and a longest step
$\epsilon_t = (1 - \kappa u_t)\,\epsilon$, with $(h_t, u_t) \in (0, 1)^2$ from the Halton sequence: it takes
$L_t = \lceil \ell_t / \epsilon_t \rceil$ steps of size $\ell_t / L_t$, but of no less than $\epsilon_t / 2$. A
step size of $\tau / (1 - \kappa)$ makes one step of every trajectory, and a longer one goes beyond it. All
depends on $t$ alone, not on any position, so every draw leaves the target invariant. Varying lengths keep periodic
orbits from resonating; varying step sizes free chains that stick where the target is narrower than elsewhere. One
number of steps for all chains means that none waits for another; with `retries` those do whose proposals have no
chance, and are tried again (`shoal.kernels.retried`).
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
from shoal.kernels.retried import retried_step
from shoal.randomness import Keys, van_der_corput
from shoal.target import Target


class JitteredHMCTuning(eqx.Module):
    """What may be tuned of `JitteredHMC`.

    Attributes:
        step_size: the longest integration time of one step, in whitened units.
        trajectory: the longest integration time of a trajectory, in whitened units.
        shortest: the shortest one, as a fraction of the longest in [0, 1].
        metric: the whitening map.
        integrator: the splitting; another one of as many stages needs no other program.
        finer: how many times as fine the steps become with which a proposal without a chance is tried again, each time;
            None where it is not.
    """

    step_size: Float[Array, ""]
    trajectory: Float[Array, ""]
    shortest: Float[Array, ""]
    metric: Metric
    integrator: Integrator
    finer: Float[Array, ""] | None = None


def first_tuning(
    step_size: float, trajectory: float, dim: int, integrator: Integrator, dtype: DTypeLike
) -> JitteredHMCTuning:
    """Lengths from nothing to `trajectory`, in the units of the target."""
    step, longest, shortest = (jnp.asarray(size, dtype) for size in (step_size, trajectory, 0.0))
    return JitteredHMCTuning(step, longest, shortest, Diagonal(jnp.ones(dim, dtype)), integrator.as_arrays(dtype))


class Jittered(Kernel[JitteredHMCTuning]):
    """Trajectories whose step size and number of steps vary from draw to draw, alike for all chains.

    Attributes:
        integrator: what the tuning begins with; its number of stages is fixed.
        max_steps: the most steps of a trajectory.
        step_jitter: how much smaller than `tuning.step_size` a step may be, as a fraction in [0, 1).
    """

    integrator: Integrator = LEAPFROG
    max_steps: int = 1000
    step_jitter: float = 0.5

    Tuning: ClassVar[type[JitteredHMCTuning]] = JitteredHMCTuning

    @property
    def even(self) -> bool:
        return True

    def schedule(self, index: Int[Array, ""], tuning: JitteredHMCTuning) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """The step size and the number of steps of draw number `index`."""
        dtype = tuning.step_size.dtype
        longest = (1.0 - self.step_jitter * van_der_corput(index, 3, dtype)) * tuning.step_size
        length = (tuning.shortest + (1.0 - tuning.shortest) * van_der_corput(index, 2, dtype)) * tuning.trajectory
        steps = jnp.clip(jnp.ceil(length / longest), 1, self.max_steps)
        return jnp.clip(length / steps, 0.5 * longest, longest), steps.astype(jnp.int32)


class JitteredHMC(Jittered):
    """HMC with one jittered trajectory length for the ensemble.

    Attributes:
        retries: how often a proposal without a chance is tried again where the tuning says so.
    """

    exact: ClassVar[bool] = True
    reference: ClassVar[str] = "Hoffman, Radul & Sountsov (2021), PMLR 130:3907, section 3"
    retries: int = 0

    def __check_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"JitteredHMC(retries={self.retries}): expected a whole number, at least 0.")

    @property
    def even(self) -> bool:
        return self.retries == 0

    def tuning(self, dim: int, dtype: DTypeLike) -> JitteredHMCTuning:
        return first_tuning(0.1, 0.1, dim, self.integrator, dtype)

    def step(self, keys: Keys, ensemble: Ensemble, tuning: JitteredHMCTuning, target: Target) -> tuple[Ensemble, Info]:
        step_size, num_steps = self.schedule(keys.index, tuning)
        flow = Flow(target, tuning.metric, tuning.integrator, step_size)
        if self.retries == 0 or tuning.finer is None:
            return hamiltonian_step(keys, ensemble, flow, num_steps)
        return retried_step(keys, ensemble, flow, num_steps, tuning.finer, self.retries, self.max_steps)
