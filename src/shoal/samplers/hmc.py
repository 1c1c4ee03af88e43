"""The sampler `hmc`: Hamiltonian Monte Carlo set by hand."""

from typing import ClassVar

import jax.numpy as jnp
from jax.typing import DTypeLike

from shoal import kernels
from shoal.adaptation import Adaptation, Fixed
from shoal.kernels.hmc import HMCTuning
from shoal.samplers.base import Sampler, check_positive, check_whole


class HMC(Sampler):
    """Hamiltonian Monte Carlo with a step size and a number of steps set by hand; nothing adapts.

    Attributes:
        step_size: of the leapfrog, in units of the unconstrained coordinates.
        num_steps: of every trajectory.

    Raises:
        ValueError: a step size that is not positive, or fewer than one step.
    """

    name: ClassVar[str] = "hmc"
    step_size: float
    num_steps: int

    def __check_init__(self) -> None:
        check_positive("HMC", "step_size", self.step_size)
        check_whole("HMC", "num_steps", self.num_steps)

    def kernel(self) -> kernels.HMC:
        return kernels.HMC()

    def adaptation(self) -> Adaptation:
        return Fixed()

    def tuning(self, dim: int, dtype: DTypeLike) -> HMCTuning:
        first = self.kernel().tuning(dim, dtype)
        step_size, num_steps = jnp.asarray(self.step_size, dtype), jnp.asarray(self.num_steps, jnp.int32)
        return HMCTuning(step_size, num_steps, first.metric)
