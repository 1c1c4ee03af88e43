r"""Damping and step size of generalised HMC from the largest eigenvalues of the ensemble (Hoffman & Sountsov, 2022).

With the metric $W$, positions $x$ and gradients $g$ of all chains after $t$ draws,

$$\gamma = \max\big(\hat\lambda(W^{-1}(x - \bar x))^{-1/2},\ 1 / (t \epsilon)\big), \qquad
\epsilon = \min\big(1,\ \tfrac12\,\hat\lambda(W^\top g)^{-1/2}\big)$$

(PMLR 151:7799, algorithm 3): the widest direction says how long a momentum should live, the stiffest how long a step
may be. For vectors $s_c$ of chains $c$ with second moments $S$, $\hat\lambda = \mathrm{tr}(S^2) / \mathrm{tr}(S)$ is at
most the largest eigenvalue, and near it unless many smaller ones outweigh it. Pairs of different chains estimate the
numerator without bias, and random signs $v$ do without the matrix of all pairs:

$$\mathrm{tr}(S^2) \approx \frac{1}{M (M - 1)} \sum_{c \ne c'} (s_c \cdot s_{c'})^2
= \frac{1}{M (M - 1)}\, E_v\Big[\Big|\sum_c s_c\,(s_c \cdot v)\Big|^2 - \sum_c |s_c|^2 (s_c \cdot v)^2\Big].$$

Two things differ from the paper, where four folds of chains tune each other and never stop. Here all chains have one
tuning, learned from all of them in warmup alone: what makes it exact is that it is frozen before a draw is kept. And
chains begin dispersed, not near a mode: on the way down gradients say nothing of the stiffness, and a momentum that
lives long swings through the bulk again and again. So in the burn-in a momentum lives for ten steps.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from shoal.adaptation.averaging import weight
from shoal.adaptation.base import Adaptation, Tuning
from shoal.dynamics.metrics import Metric
from shoal.ensemble import Ensemble, Transition
from shoal.mesh import Pool, isolated
from shoal.randomness import root_key

# The part of the warmup in which chains find the bulk, and the steps for which a momentum then lives.
BURN_IN, BRIEFLY = 0.3, 10.0
# Bounds of an eigenvalue: what cannot be squared in float32 still gives a step that is not zero.
LEAST, MOST = 1e-25, 1e25


class Powers(eqx.Module):
    """What the traces of S and S² are made of, chain by chain or summed.

    Attributes:
        square: |s|².
        along: s (s·v), for every v.
        own: |s|² (s·v)², what a chain by itself contributes to the square of `along`.
    """

    square: Float[Array, "*chains"]
    along: Float[Array, "*chains signs dim"]
    own: Float[Array, "*chains signs"]

    @classmethod
    def of(cls, vectors: Float[Array, "chains dim"], signs: Float[Array, "signs dim"]) -> "Powers":
        square = jnp.square(vectors).sum(-1)
        products = (vectors[:, None, :] * signs[None]).sum(-1)
        along = vectors[:, None, :] * products[:, :, None]
        return cls(square, along, square[:, None] * jnp.square(products))

    def largest(self, count: Float[Array, ""]) -> Float[Array, ""]:
        """tr(S²) / tr(S), of sums over `count` chains."""
        pairs = (jnp.square(self.along).sum(-1) - self.own).mean() * (1.0 / (count * jnp.maximum(count - 1.0, 1.0)))
        trace = self.square * (1.0 / count)
        # By Cauchy and Schwarz; the unbiased estimate from few chains may fall below, even below zero.
        least = trace * (1.0 / self.along.shape[-1])
        return jnp.maximum(pairs * (1.0 / jnp.maximum(trace, LEAST)), least)


class LargestEigenvalue(Adaptation):
    """Sets a part of the tuning from the largest eigenvalue of something that every chain has.

    Attributes:
        num_signs: random vectors that a draw's traces are estimated with.
    """

    num_signs: int = 16

    class Memory(eqx.Module):
        """Attributes: the average of the logarithm of the eigenvalue; the count of sweeps."""

        log: Float[Array, ""]
        count: Float[Array, ""]

    @abc.abstractmethod
    def of(self, ensemble: Ensemble) -> Float[Array, "chains dim"]:
        """What every chain has, in the coordinates of the position."""

    @abc.abstractmethod
    def whitened(
        self, vectors: Float[Array, "chains dim"], mean: Float[Array, " dim"], metric: Metric
    ) -> Float[Array, "chains dim"]:
        """The vectors whose second moments are meant."""

    @abc.abstractmethod
    def tuned(self, log: Float[Array, ""], count: Float[Array, ""], tuning: Tuning) -> Tuning:
        """The published rule, from the logarithm of the eigenvalue after `count` draws."""

    def init(self, tuning: Tuning) -> PyTree:
        zero = jnp.zeros_like(tuning.step_size)
        return self.Memory(zero, zero)

    def update(
        self, memory: PyTree, tuning: Tuning, tiles: Transition, pool: Pool, progress: Float[Array, ""]
    ) -> tuple[PyTree, Tuning]:
        count = memory.count + 1.0
        log = self.pooled(count, tuning.metric, tiles, pool)
        memory = self.Memory(memory.log + weight(count) * (log - memory.log), count)
        return memory, self.tuned(log, count, tuning)

    def pooled(self, count: Float[Array, ""], metric: Metric, tiles: Transition, pool: Pool) -> Float[Array, ""]:
        """The logarithm of the largest eigenvalue in this sweep.

        Vectors are isolated from the sums of their squares: what is fused was measured to round otherwise where a
        device has one tile.
        """

        def sizes(draws: Transition) -> tuple[Array, Array]:
            vectors = self.of(draws.after)
            return vectors, jnp.square(isolated(self.whitened(vectors, jnp.zeros_like(vectors[0]), metric))).sum(-1)

        mean, size = jax.tree.map(lambda total: total * (1.0 / pool.count), pool.sum(sizes, tiles))
        # Fourth powers of large gradients would overflow in float32, so vectors are brought to the size 1.
        shrink = 1.0 / jnp.sqrt(jnp.maximum(size, LEAST))
        # Other signs in every draw, the same in every run.
        key = jax.random.fold_in(root_key(0), count.astype(jnp.int32))
        signs = jax.random.rademacher(key, (self.num_signs, mean.shape[0]), mean.dtype)
        vectors = lambda draws: isolated(shrink * self.whitened(self.of(draws.after), mean, metric))
        powers = lambda draws: isolated(Powers.of(vectors(draws), signs))
        largest = pool.sum(powers, tiles).largest(pool.count) * size
        return jnp.log(jnp.clip(jnp.nan_to_num(largest, nan=MOST, posinf=MOST), LEAST, MOST))

    def freeze(self, memory: PyTree, tuning: Tuning) -> Tuning:
        settled = self.tuned(memory.log, jnp.maximum(memory.count, 1.0), tuning)
        return jax.tree.map(lambda new, old: jnp.where(memory.count > 0, new, old), settled, tuning)


class Damping(LargestEigenvalue):
    """Sets `tuning.damping` from the widest direction; in the burn-in from the step size."""

    def of(self, ensemble: Ensemble) -> Float[Array, "chains dim"]:
        return ensemble.position

    def whitened(
        self, vectors: Float[Array, "chains dim"], mean: Float[Array, " dim"], metric: Metric
    ) -> Float[Array, "chains dim"]:
        return metric.whiten(vectors - mean[None])

    def tuned(self, log: Float[Array, ""], count: Float[Array, ""], tuning: Tuning) -> Tuning:
        damping = jnp.maximum(jnp.exp(-0.5 * log), 1.0 / (count * tuning.step_size))
        return eqx.tree_at(lambda t: t.damping, tuning, damping)

    def update(
        self, memory: PyTree, tuning: Tuning, tiles: Transition, pool: Pool, progress: Float[Array, ""]
    ) -> tuple[PyTree, Tuning]:
        memory, tuning = super().update(memory, tuning, tiles, pool, progress)
        damping = jnp.where(progress < BURN_IN, 1.0 / (BRIEFLY * tuning.step_size), tuning.damping)
        return memory, eqx.tree_at(lambda t: t.damping, tuning, damping)


class GradientStep(LargestEigenvalue):
    """Sets `tuning.step_size` from the stiffest direction.

    Attributes:
        factor: the step size in units of the stiffest direction's scale; the leapfrog is stable below 2.
    """

    factor: float = 0.5

    def of(self, ensemble: Ensemble) -> Float[Array, "chains dim"]:
        return ensemble.gradient

    def whitened(
        self, vectors: Float[Array, "chains dim"], mean: Float[Array, " dim"], metric: Metric
    ) -> Float[Array, "chains dim"]:
        return metric.force(vectors)

    def tuned(self, log: Float[Array, ""], count: Float[Array, ""], tuning: Tuning) -> Tuning:
        step_size = jnp.minimum(self.factor * jnp.exp(-0.5 * log), 1.0)
        return eqx.tree_at(lambda t: t.step_size, tuning, step_size)
