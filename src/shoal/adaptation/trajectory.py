r"""Trajectory length by a criterion per gradient, and never too short for the slowest direction.

What a criterion sees of the whitened position $q$ is $P q$, and $q'$ is the end of a trajectory of time $t = h\tau$:

$$C(\tau) = \tfrac14 E\big[(|P(q' - Eq')|^2 - |P(q - Eq)|^2)^2\big]$$

is the change in the estimator of the expected square. A chain's part of $dC / d\log\tau$ is
$t\,(|P(q' - Eq')|^2 - |P(q - Eq)|^2)\,\langle P(q' - Eq'), P p'\rangle$, $p'$ the momentum at the end; chains count by
their probability of acceptance (Hoffman, Radul & Sountsov, 2021, PMLR 130:3907, section 3.2). $C$ alone is periodic and
nearly flat in long trajectories, so what is climbed is $\log(C / \tau)$: it charges for the gradients (Sountsov &
Hoffman, 2022, arXiv:2110.11576).

$\tau$ is at least $2.2 \sqrt{\lambda_{\max}}$ with $\lambda_{\max}$ the largest eigenvalue of the whitened covariance.
For a Gaussian direction of standard deviation $\sigma$ and $h$ uniform, a draw's autocorrelation is
$\sin(\tau/\sigma)/(\tau/\sigma)$ for the coordinate and $\frac12 + \sin(2\tau/\sigma)/(4\tau/\sigma)$ for its square;
the worse of the two effective sample sizes per gradient is largest at $\tau = 2.2\,\sigma$.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from shoal.adaptation.averaging import weight
from shoal.adaptation.base import Adaptation, Tuning
from shoal.ensemble import Transition
from shoal.mesh import Pool


class TrajectoryLength(Adaptation):
    """Moves `tuning.trajectory` up a criterion by Adam on its logarithm.

    Attributes:
        rate: Adam's learning rate.
        decay: of Adam's mean of squared slopes and of the mean criterion; the slope has no memory.
        max_move: the most that one sweep changes the logarithm.
        shortest: the least length, in standard deviations of the slowest direction.
    """

    rate: float = 0.05
    decay: float = 0.95
    max_move: float = 0.35
    shortest: float = 2.2

    class Memory(eqx.Module):
        """What is remembered.

        Attributes:
            log: of the length.
            settled: average of `log`.
            criterion: running mean of the criterion.
            square: running mean of the squared slope.
            slowest: the slowest direction; its length is the largest eigenvalue.
            count: sweeps so far.
        """

        log: Float[Array, ""]
        settled: Float[Array, ""]
        criterion: Float[Array, ""]
        square: Float[Array, ""]
        slowest: Float[Array, " dim"]
        count: Float[Array, ""]

    @abc.abstractmethod
    def seen(self, vectors: Float[Array, "chains dim"], slowest: Float[Array, " dim"]) -> Float[Array, "chains seen"]:
        """P v: what the criterion sees of whitened vectors, given the slowest direction, of unit length."""

    def init(self, tuning: Tuning) -> PyTree:
        log = jnp.log(tuning.trajectory)
        zero, dim = jnp.zeros_like(log), tuning.metric.scale.shape[0]
        # Not an eigenvector of anything a user would write: power iteration must not start orthogonal to one.
        direction = 1.0 + 0.1 * jnp.cos(jnp.arange(dim, dtype=log.dtype))
        return self.Memory(log, log, zero, zero, direction / dim**0.5, zero)

    def update(
        self, memory: PyTree, tuning: Tuning, tiles: Transition, pool: Pool, progress: Float[Array, ""]
    ) -> tuple[PyTree, Tuning]:
        slope, criterion, covariance_times = self.pooled(memory, tuning, tiles, pool)
        count = memory.count + 1.0
        slowest = memory.slowest + weight(count) * (covariance_times - memory.slowest)
        tiny = jnp.finfo(slope.dtype).tiny
        unbiased = 1.0 - self.decay**count
        criterion = self.decay * memory.criterion + (1.0 - self.decay) * criterion
        slope = jnp.nan_to_num(slope / jnp.maximum(criterion / unbiased, tiny)) - 1.0
        square = self.decay * memory.square + (1.0 - self.decay) * jnp.square(slope)
        move = self.rate * slope / jnp.maximum(jnp.sqrt(square / unbiased), tiny)
        log = memory.log + jnp.clip(move, -self.max_move, self.max_move)
        log = jnp.maximum(log, self.least(slowest))
        settled = memory.settled + weight(count) * (log - memory.settled)
        memory = self.Memory(log, settled, criterion, square, slowest, count)
        return memory, eqx.tree_at(lambda t: t.trajectory, tuning, jnp.exp(log))

    def pooled(
        self, memory: PyTree, tuning: Tuning, tiles: Transition, pool: Pool
    ) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " dim"]]:
        """DC / d log tau, C, and the whitened covariance times the slowest direction."""

        def places(draws: Transition) -> tuple[Array, Array, Array]:
            accept = draws.info.acceptance_rate
            # A proposal that is not finite has acceptance 0, and 0 times NaN would still be NaN.
            end = jnp.where(accept[:, None] > 0.0, draws.info.proposal, 0.0)
            return accept, accept[:, None] * end, draws.before.position

        total, ends, starts = pool.sum(places, tiles)
        total = jnp.maximum(total, jnp.finfo(total.dtype).tiny)
        centre_end, centre_start = ends * (1.0 / total), starts * (1.0 / pool.count)
        norm = jnp.sqrt(jnp.square(memory.slowest).sum())
        direction = memory.slowest * (1.0 / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))

        def changes(draws: Transition) -> tuple[Array, Array, Array]:
            info = draws.info
            end = tuning.metric.whiten(info.proposal - centre_end[None])
            start = tuning.metric.whiten(draws.before.position - centre_start[None])
            seen = self.seen(end, direction)
            change = jnp.square(seen).sum(-1) - jnp.square(self.seen(start, direction)).sum(-1)
            time = info.num_steps.astype(info.step_size.dtype) * info.step_size
            moved = info.acceptance_rate > 0.0
            slope = info.acceptance_rate * time * change * (seen * self.seen(info.momentum, direction)).sum(-1)
            size = 0.25 * info.acceptance_rate * jnp.square(change)
            along = (start * direction[None]).sum(-1, keepdims=True)
            return jnp.where(moved, slope, 0.0), jnp.where(moved, size, 0.0), along * start

        slope, size, along = pool.sum(changes, tiles)
        return slope / total, size / total, along * (1.0 / pool.count)

    def least(self, slowest: Float[Array, " dim"]) -> Float[Array, ""]:
        """The log of the length that the slowest direction needs."""
        largest = jnp.sqrt(jnp.square(slowest).sum())
        return jnp.log(self.shortest * jnp.sqrt(jnp.maximum(largest, jnp.finfo(largest.dtype).tiny)))

    def freeze(self, memory: PyTree, tuning: Tuning) -> Tuning:
        length = jnp.exp(jnp.maximum(memory.settled, self.least(memory.slowest)))
        return eqx.tree_at(lambda t: t.trajectory, tuning, jnp.where(memory.count > 0, length, tuning.trajectory))
