r"""Metropolis-adjusted microcanonical sampling: isokinetic trajectories, accepted or rejected.

Draw a velocity $u$ uniformly from the unit sphere, follow the isokinetic dynamics for $n$ steps of size $\epsilon$,
accept with probability $\min(1, e^{-W})$, $W = \Delta V + \sum \Delta K$, $V = -\log\pi$, with the change of the
kinetic energy summed kick by kick. The flow is reversible, drifts keep volume, and a kick changes it by
$e^{-\Delta K}$: so $\pi(x)$ times the uniform density of directions is invariant. Every chain has
the same speed, $\sqrt d$, that of Hamiltonian dynamics on average: step sizes and lengths mean what they mean
there. They vary from draw to draw as those of `shoal.kernels.jittered_hmc` (Robnik, Cohn-Gordon &
Seljak, 2025, arXiv:2503.01707).
"""

from typing import ClassVar

from jax.typing import DTypeLike
from jaxtyping import Array, Float

from shoal.dynamics.isokinetic import Heading, Isokinetic, check_dim, direction
from shoal.ensemble import Ensemble, Info
from shoal.kernels.hmc import ACCEPTANCE, MOMENTUM, Proposal, decided
from shoal.kernels.jittered_hmc import Jittered, JitteredHMCTuning, first_tuning
from shoal.randomness import Keys
from shoal.target import Target


class MAMS(Jittered):
    """Adjusted microcanonical sampling with one jittered trajectory length for the ensemble."""

    exact: ClassVar[bool] = True
    reference: ClassVar[str] = "Robnik, Cohn-Gordon & Seljak (2025), arXiv:2503.01707"

    def tuning(self, dim: int, dtype: DTypeLike) -> JitteredHMCTuning:
        """A path of length √d at most, as in the reference.

        Raises:
            ValueError: `dim` is 1.
        """
        check_dim("MAMS", dim)
        return first_tuning(0.1, 1.0, dim, self.integrator, dtype)

    @property
    def starts_anywhere(self) -> bool:
        return True

    def init(self, position: Float[Array, "chains dim"], target: Target) -> Ensemble:
        check_dim("MAMS", position.shape[-1])
        log_density, gradient = target(position)
        return Ensemble(position, log_density, gradient)

    def step(self, keys: Keys, ensemble: Ensemble, tuning: JitteredHMCTuning, target: Target) -> tuple[Ensemble, Info]:
        dim, dtype = ensemble.position.shape[-1], ensemble.position.dtype
        step_size, num_steps = self.schedule(keys.index, tuning)
        flow = Isokinetic(target, tuning.metric, tuning.integrator, step_size, speed=dim**0.5)
        velocity, _ = direction(keys.normal(MOMENTUM, dim, dtype))
        start = (ensemble.position, Heading(velocity, ensemble.nothing), ensemble.gradient)
        (position, end, gradient), log_density = flow.integrate(start, num_steps)
        error = end.kinetic - ensemble.rise(log_density)
        proposed = Ensemble(position, log_density, gradient, ensemble.memory)
        proposal = Proposal(proposed, flow.speed * end.velocity, error)
        return decided(keys.uniform(ACCEPTANCE, dtype), ensemble, proposal, flow, num_steps)
