"""The three records that kernels, adaptation and statistics speak in: Ensemble, Info, Transition."""

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PyTree


class Ensemble(eqx.Module):
    """Where the chains are: the only chain state in the house.

    Attributes:
        position: unconstrained coordinates.
        log_density: of the target at `position`, never NaN or infinite.
        gradient: of the log density at `position`.
        memory: what one kernel alone must remember between draws, such as a momentum; per chain.
    """

    position: Float[Array, "*block chains dim"]
    log_density: Float[Array, "*block chains"]
    gradient: Float[Array, "*block chains dim"]
    memory: PyTree = None


class Info(eqx.Module):
    """What a draw reports, the same words for every kernel.

    Attributes:
        acceptance_rate: probability of accepting the proposal; 1 where there is no correction.
        energy_error: change of the Hamiltonian along the trajectory; infinite where it was not finite.
        diverging: the energy error passed the threshold of a divergence.
        step_size: of the integrator.
        num_steps: integrator steps taken.
        gradients: evaluations of the gradient paid for.
        proposal: where the trajectory ended, accepted or not.
        momentum: at the proposal, in the coordinates that the metric whitens.
    """

    acceptance_rate: Float[Array, "*block chains"]
    energy_error: Float[Array, "*block chains"]
    diverging: Bool[Array, "*block chains"]
    step_size: Float[Array, "*block chains"]
    num_steps: Int[Array, "*block chains"]
    gradients: Int[Array, "*block chains"]
    proposal: Float[Array, "*block chains dim"]
    momentum: Float[Array, "*block chains dim"]


class Transition(eqx.Module):
    """One draw of every chain: before, after, and what happened on the way."""

    before: Ensemble
    after: Ensemble
    info: Info
