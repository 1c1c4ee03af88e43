r"""Step size, decoherence length and scales of microcanonical burn-in, by how far the ensemble is from the target.

At the target $V_{ii} = E[-(x_i - E x_i)\,\partial_i \log\pi] = 1$ and $E\,\partial_i \log\pi = 0$, so

$$D = \frac1d \sum_i (1 - V_{ii})^2 + \frac1d \sum_i (E\,\partial_i \log\pi)^2\, \mathrm{Var}(x_i)$$

measures the bias left from the start, in the same way in any units. The first sum is the paper's, and blind to a
wrong mean, which the second shows. The variance of the energy error per dimension, which goes as $\epsilon^6$, is led
to $F(C D)$, $F(z) = 4 z^{3/2} / (1 + \sqrt z)^2$, at which the discretisation's share of the bias is $C$,

$$\epsilon \leftarrow \epsilon\,\Big(\frac{F(C D)}{\mathrm{Var}(\Delta) / d}\Big)^{1/6}, \qquad
L = \alpha \Big(\sum_i \mathrm{Var}(q_i)\Big)^{1/2},$$

with $C = 0.025$, $\alpha = 2$, $q$ whitened (Robnik & Seljak, 2026, arXiv:2601.16696).

That is the law near the target. Far from it $D$ grows without limit, and energy errors that large keep the ensemble
where it is. So $D$ counts as at most 1, and energies are measured in the temperature of the ensemble, by equipartition
$T = \max(1, \frac1d \sum_i V_{ii})$: $\mathrm{Var}(\Delta) / d$ is led to $T^2 F(C D)$.

Chains that take shorter steps than the others, because they are where the target is stiff, say nothing of the step that
is right for the others: all of this is of those that do not. Where these are not half of all, the step is too long. A
chain is to take shorter ones from an energy error above $\max(d, 300\,e^{E \log |\Delta|})$ on.

The scales are $(\mathrm{sd}(x_i) / \mathrm{sd}(\partial_i \log\pi))^{1/2}$, those of a Gaussian target wherever the
ensemble is (Seyboldt, Carlson & Carpenter, 2026, arXiv:2603.18845), but within a factor of 10 of $\mathrm{sd}(x_i)$,
so that no chain is thrown far out.
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from shoal.adaptation.averaging import weight
from shoal.adaptation.base import Adaptation, Tuning, select
from shoal.dynamics.metrics import Diagonal
from shoal.ensemble import Transition
from shoal.mesh import Pool

# The most that D counts: that of an ensemble much narrower than the target.
MOST_BIAS = 1.0
# Beyond this D nothing is worth remembering of the scales.
FAR = 10.0
# The most that a scale differs from the standard deviation of the ensemble, as a factor.
WITHIN = 10.0
# Rounding errors of a log density, in units in the last place: no step is short enough for an energy error below them.
ROUNDING = 4.0
# Energy errors below this are alike.
LITTLE = 1e-3
# Draws that a fluctuation needs.
FEW = 20.0


class Pooled(eqx.Module):
    """What the chains with the step of the tuning say of one draw.

    Attributes:
        free: their share of all chains.
        taken: share of them whose proposal was finite.
        variance: of each coordinate.
        slope: variance of each derivative of the log density.
        size: sum of the variances of the whitened coordinates.
        square: mean square of each coordinate.
        log_density: its mean.
        spacing: of numbers of its size, relative to it.
        bias: D.
        temperature: T.
        energy: variance of the energy error per dimension, over proposals that were finite.
        typical: geometric mean of the energy error, over the same.
    """

    free: Float[Array, ""]
    taken: Float[Array, ""]
    variance: Float[Array, " dim"]
    slope: Float[Array, " dim"]
    size: Float[Array, ""]
    square: Float[Array, " dim"]
    log_density: Float[Array, ""]
    spacing: float = eqx.field(static=True)
    bias: Float[Array, ""]
    temperature: Float[Array, ""]
    energy: Float[Array, ""]
    typical: Float[Array, ""]


class LAPS(Adaptation):
    """Sets `tuning.step_size`, `tuning.trajectory`, `tuning.largest_error` and, where asked to, `tuning.metric`.

    Attributes:
        share: C, the share of the bias that the discretisation may have.
        length: alpha, the decoherence length in root mean squares of the whitened ensemble.
        max_change: the most that one draw changes the step size, as a factor.
        max_lost: share of non-finite proposals above which the step size is halved.
        min_free: share of the chains with that step size below which it is halved and nothing is learned.
        outlying: how many times the typical energy error is one with which a chain takes shorter steps.
        precondition: whether the metric is learned, a diagonal one; otherwise it is what it was.
    """

    share: float = 0.025
    length: float = 2.0
    max_change: float = 3.0
    max_lost: float = 0.05
    min_free: float = 0.5
    outlying: float = 300.0
    precondition: bool = True

    class Memory(eqx.Module):
        """What is remembered, also for a host that wants to know when to end; running means forget their beginning.

        Attributes:
            bias: D of the last draw.
            energy: variance of the energy error per dimension, of the last draw.
            log_scale: running mean of the logarithm of the scales.
            square: running mean of the mean square of each coordinate.
            spread: running variance of that mean square, from draw to draw.
            log_density: running mean of the mean log density.
            count: draws since the ensemble was far off.
        """

        bias: Float[Array, ""]
        energy: Float[Array, ""]
        log_scale: Float[Array, " dim"]
        square: Float[Array, " dim"]
        spread: Float[Array, " dim"]
        log_density: Float[Array, ""]
        count: Float[Array, ""]

        def fluctuation(self) -> Float[Array, ""]:
            """The largest relative fluctuation of a mean square; the paper ends burn-in below 0.01.

            Independent draws of n chains at a Gaussian of mean zero make it (2 / n)^(1/2).
            """
            relative = jnp.max(jnp.sqrt(self.spread) / jnp.maximum(self.square, jnp.finfo(self.square.dtype).tiny))
            return jnp.where(self.count < FEW, jnp.inf, relative)

    def init(self, tuning: Tuning) -> PyTree:
        zero, zeros = jnp.zeros_like(tuning.step_size), jnp.zeros_like(tuning.metric.scale)
        endless = jnp.full_like(zero, jnp.inf)
        return self.Memory(endless, endless, jnp.log(tuning.metric.scale), zeros, zeros, zero, zero)

    def update(
        self, memory: PyTree, tuning: Tuning, tiles: Transition, pool: Pool, progress: Float[Array, ""]
    ) -> tuple[PyTree, Tuning]:
        now = self.pooled(tuning, tiles, pool)
        memory = select(now.free >= self.min_free, self.remembered(memory, now), memory)
        step_size = tuning.step_size * self.factor(now)
        trajectory = jnp.where(now.free >= self.min_free, self.length * jnp.sqrt(now.size), tuning.trajectory)
        metric = Diagonal(jnp.exp(memory.log_scale)) if self.precondition else tuning.metric
        largest_error = jnp.maximum(now.variance.shape[0] * 1.0, self.outlying * now.typical)
        where = lambda t: (t.step_size, t.trajectory, t.metric, t.largest_error)
        return memory, eqx.tree_at(where, tuning, (step_size, trajectory, metric, largest_error))

    def pooled(self, tuning: Tuning, tiles: Transition, pool: Pool) -> Pooled:
        """Centred statistics of the ensemble after the draw."""
        free = lambda draws: (draws.info.step_size >= tuning.step_size).astype(draws.info.step_size.dtype)

        def places(draws: Transition) -> tuple[Array, ...]:
            after, of = draws.after, free(draws)
            taken = of * draws.info.acceptance_rate
            error = jnp.where(taken > 0.0, draws.info.energy_error, 0.0)
            size = taken * jnp.log(jnp.maximum(jnp.abs(error), LITTLE))
            position, gradient = of[..., None] * after.position, of[..., None] * after.gradient
            level = of * after.log_density.astype(of.dtype)
            return of, taken, error, size, level, position, gradient, position * after.position

        number, taken, error, size, log_density, position, gradient, square = pool.sum(places, tiles)
        share, tries = 1.0 / jnp.maximum(number, 1.0), 1.0 / jnp.maximum(taken, 1.0)
        error, position, gradient = error * tries, position * share, gradient * share

        def centred(draws: Transition) -> tuple[Array, ...]:
            after, of = draws.after, free(draws)
            off, steep = after.position - position[None], after.gradient - gradient[None]
            apart = jnp.where(of * draws.info.acceptance_rate > 0.0, draws.info.energy_error - error, 0.0)
            spread = of * jnp.square(tuning.metric.whiten(off)).sum(-1)
            rows = jnp.square(off), jnp.square(steep), -off * after.gradient
            return jnp.square(apart), spread, *(of[..., None] * part for part in rows)

        apart, spread, variance, slope, virial = pool.sum(centred, tiles)
        variance, virial = variance * share, virial * share
        return Pooled(
            free=number * (1.0 / pool.count),
            taken=taken * share,
            variance=variance,
            slope=slope * share,
            size=spread * share,
            square=square * share,
            log_density=log_density * share,
            spacing=float(jnp.finfo(tiles.after.log_density.dtype).eps),
            bias=jnp.mean(jnp.square(1.0 - virial) + jnp.square(gradient) * variance),
            temperature=jnp.maximum(jnp.mean(virial), 1.0),
            energy=apart * tries * (1.0 / position.shape[0]),
            typical=jnp.exp(size * tries),
        )

    def factor(self, now: Pooled) -> Float[Array, ""]:
        """By how much the step size changes."""
        most = math.log(self.max_change)
        root = jnp.sqrt(self.share * jnp.minimum(now.bias, MOST_BIAS))
        wanted = 4.0 * root * jnp.square(root * (1.0 / (1.0 + root)) * now.temperature)
        rounded = jnp.square(ROUNDING * now.spacing * now.log_density) * (1.0 / now.variance.shape[0])
        change = (_log(jnp.maximum(wanted, rounded)) - _log(now.energy)) * (1.0 / 6.0)
        change = jnp.exp(jnp.clip(jnp.nan_to_num(change, nan=-most), -most, most))
        return jnp.where((1.0 - now.taken > self.max_lost) | (now.free < self.min_free), 0.5, change)

    def remembered(self, memory: PyTree, now: Pooled) -> PyTree:
        """The memory one draw later."""
        count = jnp.where(now.bias < FAR, memory.count, 0.0) + 1.0
        share = weight(count)
        off = now.square - memory.square
        return self.Memory(
            bias=now.bias,
            energy=now.energy,
            log_scale=memory.log_scale + share * (self.log_scale(memory, now) - memory.log_scale),
            square=memory.square + share * off,
            spread=(1.0 - share) * (memory.spread + share * jnp.square(off)),
            log_density=memory.log_density + share * (now.log_density - memory.log_density),
            count=count,
        )

    def log_scale(self, memory: PyTree, now: Pooled) -> Float[Array, " dim"]:
        """The logarithm of the scales by this draw alone; those before where all chains are in one place."""
        spread, steepness, most = 0.5 * _log(now.variance), 0.5 * _log(now.slope), math.log(WITHIN)
        scale = jnp.clip(0.5 * (spread - steepness), spread - most, spread + most)
        return jnp.where(now.variance > 0.0, scale, memory.log_scale)


def _log(value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The logarithm of the nearest positive finite number."""
    limits = jnp.finfo(value.dtype)
    return jnp.log(jnp.clip(value, limits.tiny, limits.max))
