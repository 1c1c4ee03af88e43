r"""Metrics: the linear map that whitens the target.

With $x = W q$ the dynamics run in $q$ with a unit mass matrix: the momentum is $p \sim N(0, I)$, the velocity
of $x$ is $W p$ and the force on $p$ is $W^\top \nabla \log \pi(x)$. The mass matrix in $x$ is $(W W^\top)^{-1}$
(Neal, 2011, section 5.4.1).
"""

import abc

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float


class Metric(eqx.Module):
    """A whitening map W, the same for all chains."""

    @abc.abstractmethod
    def velocity(self, momentum: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        """W p: how positions move."""

    @abc.abstractmethod
    def force(self, gradient: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        """Wᵀ g: how momenta change."""

    @abc.abstractmethod
    def whiten(self, displacement: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        """W⁻¹ (x - y): a difference of positions in whitened coordinates."""


class Diagonal(Metric):
    """W = diag(scale).

    Attributes:
        scale: about the posterior standard deviations, in the units of the coordinates.
    """

    scale: Float[Array, " dim"]

    def velocity(self, momentum: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        return self.scale[None] * momentum

    def force(self, gradient: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        return self.scale[None] * gradient

    def whiten(self, displacement: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        # The reciprocal is spelled out: XLA makes one of a division here and not there, which rounds otherwise.
        return displacement * (1.0 / self.scale)[None]


class LowRank(Metric):
    r"""W = diag(scale) (I + U diag(stretch - 1) Uᵀ) with orthonormal columns U: dense when there are `dim` of them.

    Columns that are zero count for nothing, so one program serves metrics of any lower rank.

    Attributes:
        scale: of the coordinates, in their units.
        directions: U, in coordinates divided by `scale`.
        stretch: standard deviation of the target along each direction, there.
    """

    scale: Float[Array, " dim"]
    directions: Float[Array, "dim rank"]
    stretch: Float[Array, " rank"]

    @property
    def diagonal(self) -> Diagonal:
        """The metric without its directions."""
        return Diagonal(self.scale)

    @property
    def has_directions(self) -> Bool[Array, ""]:
        """Whether any of its directions counts."""
        return (self.stretch != 1.0).any()

    def velocity(self, momentum: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        return self.scale[None] * self._along(momentum, self.stretch - 1.0)

    def force(self, gradient: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        return self._along(self.scale[None] * gradient, self.stretch - 1.0)

    def whiten(self, displacement: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        return self._along(displacement * (1.0 / self.scale)[None], 1.0 / self.stretch - 1.0)

    def _along(self, vector: Float[Array, "chains dim"], gain: Float[Array, " rank"]) -> Float[Array, "chains dim"]:
        with jax.default_matmul_precision("highest"):
            return vector + (vector @ self.directions * gain[None]) @ self.directions.T
