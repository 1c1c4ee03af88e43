r"""Isokinetic dynamics: a velocity of unit length that turns towards the gradient (microcanonical dynamics).

In whitened coordinates, with $f = W^\top \nabla \log \pi$,

$$\dot q = u, \qquad \dot u = (I - u u^\top)\, f / (d - 1), \qquad |u| = 1,$$

so time is the length of the path, unless a speed is given. A kick of length $\epsilon$ is exact: with $e = f / |f|$ and
$\delta = \epsilon |f| / (d - 1)$,

$$u' = \frac{u + e\,(\sinh\delta + e \cdot u\,(\cosh\delta - 1))}{\cosh\delta + e \cdot u \sinh\delta}, \qquad
\Delta K = (d - 1) \log(\cosh\delta + e \cdot u \sinh\delta).$$

$e^{-\Delta K}$ is by how much a kick changes areas on the sphere. The kinetic energy is no function of the velocity: it
is the sum of the kicks' changes, and $e^{-\Delta V - \Delta K}$ is what an acceptance must be made of (Robnik,
Cohn-Gordon & Seljak, 2025, arXiv:2503.01707; the kick: Steeg & Galstyan, 2021, arXiv:2111.02434).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from shoal.dynamics.integrators import Phase, Splitting


class Heading(NamedTuple):
    """Where a chain is going.

    Attributes:
        velocity: of unit length, whitened.
        kinetic: change of the kinetic energy since the trajectory began.
    """

    velocity: Float[Array, "chains dim"]
    kinetic: Float[Array, " chains"]


class Isokinetic(Splitting):
    """The isokinetic flow; the momentum of a phase is a `Heading`.

    Attributes:
        speed: the length of a path in a unit of time.
    """

    speed: float = 1.0

    def kick(self, fraction: float | Array, phase: Phase) -> Phase:
        position, heading, gradient = phase
        length = fraction * self.speed * self.step_size
        velocity, change = turned(heading.velocity, self.metric.force(gradient), length)
        return position, Heading(velocity, heading.kinetic + change), gradient

    def drift(self, fraction: float | Array, phase: Phase) -> Phase:
        position, heading, gradient = phase
        length = of_rows(fraction * self.speed * self.step_size)
        return position + length * self.metric.velocity(heading.velocity), heading, gradient


def turned(
    velocity: Float[Array, "chains dim"], force: Float[Array, "chains dim"], length: float | Float[Array, "*chains"]
) -> tuple[Float[Array, "chains dim"], Float[Array, " chains"]]:
    """A kick: the velocity after it, and the change of the kinetic energy.

    Args:
        velocity: of unit length.
        force: the whitened gradient of the log density; where it vanishes nothing changes.
        length: of the step, of all chains or of each.
    """
    dim = velocity.shape[-1]
    unit, norm = direction(force)
    delta = length * norm * (1.0 / (dim - 1))
    # Numerator and denominator times 2 exp(-delta): nothing overflows where gradients are large.
    shrink, gone = jnp.exp(-delta), -jnp.expm1(-delta)
    along = (velocity * unit).sum(-1)
    towards = gone * (1.0 + shrink + along * gone)
    after, size = direction(towards[:, None] * unit + (2.0 * shrink)[:, None] * velocity)
    # Straight uphill of a steep wall both terms vanish: an unstable equilibrium, where the velocity stays.
    return jnp.where((size > 0.0)[:, None], after, velocity), (dim - 1) * _log_stretch(velocity, unit, delta)


def _log_stretch(
    velocity: Float[Array, "chains dim"], unit: Float[Array, "chains dim"], delta: Float[Array, " chains"]
) -> Float[Array, " chains"]:
    """log(cosh δ + e·u sinh δ) = δ + log(ahead + behind exp(-2 δ)), ahead and behind being (1 ± e·u) / 2.

    These are squared distances, so that no digits are lost where the velocity points along the force. A short
    kick's change is of the order of δ, a small number, and is computed by its difference from 1; a long kick's
    logarithm by log-sum-exp.
    """
    ahead, behind = (0.25 * jnp.square(velocity + sign * unit).sum(-1) for sign in (1.0, -1.0))
    short = jnp.log1p(behind * jnp.expm1(-2.0 * jnp.minimum(delta, 1.0)))
    long = jnp.logaddexp(jnp.log(ahead), jnp.log(behind) - 2.0 * delta)
    return delta + jnp.where(delta < 1.0, short, long)


def refreshed(
    velocity: Float[Array, "chains dim"], noise: Float[Array, "chains dim"], turns: Float[Array, "*chains"]
) -> Float[Array, "chains dim"]:
    r"""A part of the velocity forgotten: $u + \nu z$ of unit length, $\nu^2 = (e^{2 t} - 1) / d$.

    Args:
        velocity: of unit length.
        noise: standard normal.
        turns: t, the length gone over the length in which the direction is forgotten, of all chains or of each.
    """
    # Times exp(-t), so that nothing overflows where all is forgotten.
    kept, new = jnp.exp(-turns), jnp.sqrt(-jnp.expm1(-2.0 * turns) * (1.0 / velocity.shape[-1]))
    after, size = direction(of_rows(kept) * velocity + of_rows(new) * noise)
    return jnp.where((size > 0.0)[:, None], after, velocity)


def of_rows(value: Float[Array, "*chains"]) -> Float[Array, "*column"]:
    """What rows `[chains, dim]` can be multiplied by: a number as it is, one of each chain as a column."""
    return value if value.ndim == 0 else value[:, None]


def direction(vector: Float[Array, "chains dim"]) -> tuple[Float[Array, "chains dim"], Float[Array, " chains"]]:
    """Unit vectors, zero where there is none, and lengths; squares neither overflow nor vanish."""
    largest = jnp.abs(vector).max(-1, keepdims=True)
    scaled = jnp.where(largest < jnp.finfo(vector.dtype).tiny, 0.0, vector * (1.0 / largest))
    size = jnp.sqrt(jnp.square(scaled).sum(-1, keepdims=True))
    unit = jnp.where(size == 0.0, 0.0, scaled * (1.0 / size))
    return unit, jnp.where(size == 0.0, 0.0, largest * size)[:, 0]


def check_dim(name: str, dim: int) -> None:
    """Refuse a target for which the dynamics are not defined.

    Raises:
        ValueError: it has one coordinate.
    """
    if dim < 2:
        raise ValueError(
            f"{name}: the target has {dim} unconstrained coordinate, expected at least 2: a velocity of unit length "
            "cannot turn in one dimension. Use sampler='chees' or shoal.HMC."
        )
