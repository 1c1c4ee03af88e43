"""What the precision of a run rests on: means of every chain, and of stretches of it where there are few chains."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from shoal.diagnostics.effective import MANY_CHAINS
from shoal.diagnostics.precision import Precision, precision
from shoal.ensemble import Ensemble, Transition
from shoal.statistics.base import Said, Statistic
from shoal.target import Target

# Of all chains together where they are few: half of them or more are full, and pairs of these, with 2/5 of their number
# as degrees of freedom, tell the error of a mean to 14% or better. They go through the loop with every draw, so of very
# many quantities there are fewer, at most so many numbers in all, which tell it to 28%.
STRETCHES, LEAST_STRETCHES, NUMBERS = 256, 64, 2**18


def stretches_for(num_chains: int, quantities: int) -> int:
    """Of each chain: a power of 2, or 0 where there are chains enough.

    Args:
        num_chains: in all.
        quantities: that means are of.
    """
    if num_chains >= MANY_CHAINS:
        return 0
    wanted = np.clip(NUMBERS // quantities, LEAST_STRETCHES, STRETCHES)
    return max(8, 2 ** int(np.ceil(np.log2(wanted / num_chains))))


class ChainMeans(Statistic):
    r"""Means and sums of squared deviations of each chain (Welford, 1962).

    They are for

    - every number of some variables, less a centre \(c\), and the square of that;
    - the log density, less its own;
    - Stein's identities \(E[\partial_i \log p] = 0\) and \(E[-(x_i - c_i)\, \partial_i \log p] = 1\) for every
      unconstrained coordinate: each gradient is there already.

    Squares about zero would say nothing new of a variable that is far from it; about a centre in its bulk they are what
    its standard deviation rests on. In float32 the centre keeps the digits. Until there is one it is zero, and a memory
    without draws has as its mean where the chains are: see `centred`.

    Few chains are cut into stretches, equally long, which are joined in pairs whenever all are full: so their number
    stays between half of `stretches` and `stretches`, however long the run (replicated batch means; Gupta and Vats,
    arXiv:2007.04229).

    Attributes:
        names: of the variables.
        centre: of their numbers in order, the log density, and the unconstrained coordinates.
        stretches: of each chain; 0 where chains are many.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    centre: Float[Array | np.ndarray, " centres"]
    stretches: int = eqx.field(static=True, default=0)

    class Memory(eqx.Module):
        """Attributes: draws so far; mean and sum of squares of each quantity; draws of a stretch and sums over them."""

        count: Int[Array, " chains"]
        mean: Float[Array, "chains quantities"]
        squares: Float[Array, "chains quantities"]
        length: Int[Array, " chains"] | None
        sums: Float[Array, "chains stretches quantities"] | None

    def init(self, ensemble: Ensemble, target: Target) -> "ChainMeans.Memory":
        here = self._quantities(ensemble, target)
        count = jnp.zeros(here.shape[:1], jnp.int32)
        length, sums = None, None
        if self.stretches:
            length, sums = count + 1, jnp.zeros((len(here), self.stretches, here.shape[1]), here.dtype)
        return self.Memory(count, here, jnp.zeros_like(here), length, sums)

    def update(self, memory: "ChainMeans.Memory", transition: Transition, target: Target) -> "ChainMeans.Memory":
        values = self._quantities(transition.after, target)
        count = memory.count + 1
        before = jnp.where(memory.count[:, None] > 0, memory.mean, 0.0)
        off = values - before
        mean = before + off / count[:, None].astype(values.dtype)
        squares = memory.squares + off * (values - mean)
        length, sums = memory.length, memory.sums
        if length is not None and sums is not None:
            # All chains have made as many draws.
            full = memory.count[0] == self.stretches * length[0]
            sums = jax.lax.cond(full, _in_pairs, lambda sums: sums, sums)
            length = jnp.where(full, 2 * length, length)
            sums = sums.at[:, memory.count[0] // length[0]].add(values)
        return self.Memory(count, mean, squares, length, sums)

    def centred(self, memory: "ChainMeans.Memory", position: Float[np.ndarray, "chains dim"]) -> "ChainMeans":
        """The same about the middle of the chains.

        Args:
            memory: without draws, on the host, of one whose centre is zero.
            position: of the chains.
        """
        here, dim = np.asarray(memory.mean, float).mean(axis=0), position.shape[1]
        numbers = (len(here) - 2 * dim) // 2
        middle = np.concatenate(
            [here[:numbers], here[2 * numbers : 2 * numbers + 1], position.mean(axis=0, dtype=float)]
        )
        centre = np.where(np.isfinite(middle), middle, 0.0).astype(self.centre.dtype)
        return ChainMeans(self.names, centre, self.stretches)

    def compute(self, memory: "ChainMeans.Memory", superchain: Int[np.ndarray, " chains"]) -> Said:
        """As of `precision`, and `draws`, which it is about."""
        said = zip(Precision._fields, map(np.asarray, self.precision(memory, superchain)), strict=True)
        return {"draws": np.asarray(memory.count)[0], **dict(said)}

    def precision(self, memory: "ChainMeans.Memory", superchain: Int[np.ndarray, " chains"]) -> Precision:
        """What the memory says of every quantity, on the host."""
        count = int(memory.count[0])
        stretches = None
        if memory.length is not None:
            length = int(memory.length[0])
            stretches = np.asarray(memory.sums)[:, : count // length].astype(float) / length
        means, squares = (np.asarray(leaf, float) for leaf in (memory.mean, memory.squares))
        return precision(means, squares / max(count, 1), count, np.asarray(superchain), stretches)

    def _quantities(self, ensemble: Ensemble, target: Target) -> Float[Array, "chains quantities"]:
        values = at_chains(target, ensemble, self.names)
        dim = ensemble.position.shape[1]
        centre = jnp.asarray(self.centre, values.dtype)
        values = values - centre[:-dim]
        slope = (centre[-dim:] - ensemble.position) * ensemble.gradient
        return jnp.concatenate([values[:, :-1], values[:, :-1] ** 2, values[:, -1:], ensemble.gradient, slope], axis=1)


def at_chains(target: Target, ensemble: Ensemble, names: tuple[str, ...]) -> Float[Array, "chains numbers"]:
    """The numbers of some variables in order, and the log density."""
    variables, chains = target.constrained(ensemble.position), len(ensemble.log_density)
    columns = [variables[name].reshape(chains, -1).astype(ensemble.position.dtype) for name in names]
    return jnp.concatenate([*columns, ensemble.log_density[:, None]], axis=1)


def _in_pairs(sums: Float[Array, "chains stretches quantities"]) -> Float[Array, "chains stretches quantities"]:
    chains, stretches, quantities = sums.shape
    joined = sums.reshape(chains, stretches // 2, 2, quantities).sum(2)
    return jnp.concatenate([joined, jnp.zeros_like(joined)], axis=1)
