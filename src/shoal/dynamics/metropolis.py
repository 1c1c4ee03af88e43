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
    finite = jnp.isfinite(energy_error) & jnp.isfinite(proposed.log_density)
    finite &= jnp.isfinite(proposed.position).all(-1) & jnp.isfinite(proposed.gradient).all(-1)
    error = jnp.where(finite, energy_error, jnp.inf)
    acceptance = jnp.exp(jnp.minimum(-error, 0.0))
    return choose(uniform < acceptance, proposed, current), acceptance, error
