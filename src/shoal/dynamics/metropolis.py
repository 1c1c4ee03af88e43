"""Accept or reject, chain by chain; the rule for non-finite proposals lives here and only here."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from shoal.ensemble import Ensemble

# Stan's threshold: a trajectory whose energy error passes it has left the typical set for good.
DIVERGENCE = 1000.0


def choose(accept: Bool[Array, " chains"], new: PyTree, old: PyTree) -> PyTree:
    """`new` where accepted, `old` elsewhere, leaf by leaf along the leading axis of chains."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(accept.reshape(accept.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, new, old)


def metropolis(
    uniform: Float[Array, " chains"],
    current: Ensemble,
    proposed: Ensemble,
    energy_error: Float[Array, " chains"],
) -> tuple[Ensemble, Float[Array, " chains"], Float[Array, " chains"]]:
    """Accept with probability min(1, exp(-energy_error)) (Metropolis et al., 1953).

    A proposal with anything non-finite in it is rejected and has an infinite energy error, so that an
    ensemble never holds one.

    Args:
        uniform: one variate in [0, 1) per chain.
        current: where the chains are.
        proposed: where they may go.
        energy_error: the change of the Hamiltonian.

    Returns:
        The ensemble after, the acceptance probabilities, and the energy errors with non-finite ones infinite.
    """
    error = jnp.where(is_finite(proposed, energy_error), energy_error, jnp.inf)
    acceptance = jnp.exp(jnp.minimum(-error, 0.0))
    return choose(uniform < acceptance, proposed, current), acceptance, error


def unadjusted(
    current: Ensemble, proposed: Ensemble, energy_error: Float[Array, " chains"]
) -> tuple[Ensemble, Float[Array, " chains"], Float[Array, " chains"]]:
    """Take every proposal but those with anything non-finite in them: no correction, a biased draw.

    Args:
        current: where the chains are, and stay where the proposal is not finite.
        proposed: where they go.
        energy_error: the change of the Hamiltonian.

    Returns:
        The ensemble after, 1 where the proposal was taken and 0 elsewhere, and the energy errors with non-finite
        ones infinite.
    """
    finite = is_finite(proposed, energy_error)
    error = jnp.where(finite, energy_error, jnp.inf)
    return choose(finite, proposed, current), finite.astype(error.dtype), error


def is_finite(proposed: Ensemble, energy_error: Float[Array, " chains"]) -> Bool[Array, " chains"]:
    """Whether everything that would become of a chain is finite."""
    finite = jnp.isfinite(energy_error) & jnp.isfinite(proposed.log_density)
    return finite & jnp.isfinite(proposed.position).all(-1) & jnp.isfinite(proposed.gradient).all(-1)
