"""The three records that kernels, adaptation and statistics speak in: Ensemble, Info, Transition."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree


class Ensemble(eqx.Module):
    """Where the chains are: the only chain state in the house.

    Attributes:
        position: unconstrained coordinates.
        log_density: of the target at `position`, never NaN or infinite; in double where positions are in single and the
            precision is mixed.
        gradient: of the log density at `position`.
        memory: what one kernel alone must remember between draws, such as a momentum; per chain.
    """

    position: Float[Array, "*block chains dim"]
    log_density: Float[Array, "*block chains"]
    gradient: Float[Array, "*block chains dim"]
    memory: PyTree = None

    def rise(self, log_density: Float[Array, "*block chains"]) -> Float[Array, "*block chains"]:
        """How much more another log density is: a difference in its precision, in that of positions."""
        return (log_density - self.log_density).astype(self.position.dtype)

    @property
    def nothing(self) -> Float[Array, "*block chains"]:
        """Zeros in the precision of positions."""
        return jnp.zeros(self.log_density.shape, self.position.dtype)


class Info(eqx.Module):
    """What a draw reports, the same words for every kernel.

    Attributes:
        acceptance_rate: probability of accepting the proposal; 1 where there is no correction.
        energy_error: change of the Hamiltonian along the trajectory; infinite where it was not finite.
        diverging: the energy error passed the threshold of a divergence.
        step_size: of the integrator.
        num_steps: integrator steps taken.
        gradients: evaluations of the gradient that the draw used.
        proposal: where the trajectory ended, accepted or not.
        momentum: at the proposal, in the coordinates that the metric whitens.
        idle: evaluations that the tile's device made for the chain without need, while others needed theirs; None where
            there are none.
        energy: the Hamiltonian of the state that became the draw, its momentum included: of the start where the
            proposal was rejected (Stan's `energy__`). None where momenta are not drawn anew for every draw.
    """

    acceptance_rate: Float[Array, "*block chains"]
    energy_error: Float[Array, "*block chains"]
    diverging: Bool[Array, "*block chains"]
    step_size: Float[Array, "*block chains"]
    num_steps: Int[Array, "*block chains"]
    gradients: Int[Array, "*block chains"]
    proposal: Float[Array, "*block chains dim"]
    momentum: Float[Array, "*block chains dim"]
    idle: Int[Array, "*block chains"] | None = None
    energy: Float[Array, "*block chains"] | None = None

    @property
    def paid(self) -> Int[Array, "*block chains"]:
        """Evaluations of the gradient that the tile's device made for the chain, used or not."""
        return self.gradients if self.idle is None else self.gradients + self.idle


class Transition(eqx.Module):
    """One draw of every chain: before, after, and what happened on the way."""

    before: Ensemble
    after: Ensemble
    info: Info
