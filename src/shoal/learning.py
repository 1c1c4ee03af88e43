"""A step size that is learned between draws, from what a program kept that learns nothing itself."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from shoal.adaptation.base import Adaptation, select
from shoal.compiling import compiled
from shoal.mesh import OneTile
from shoal.sweep import learned

# Also of NumPy, which a compiled program takes for arrays of the device.
Number = Float[Array, ""] | Float[np.ndarray, ""]
Count = Int[Array, ""] | Int[np.ndarray, ""]


class Sized(eqx.Module):
    """Of a tuning what is learned.

    Attributes:
        step_size: that the next draw is made with.
    """

    step_size: Number


class Learner:
    """What an adaptation makes of a step size, draw by draw, alike for all chains.

    Attributes:
        step_size: to make the next draw with.
        settled: what it will stay at if nothing more is learned.
    """

    def __init__(
        self, adaptation: Adaptation, step_size: Number, most: int, length: int, learning: bool = True
    ) -> None:
        """Nothing learned yet.

        Args:
            adaptation: of the step size alone, by acceptance alone.
            step_size: to begin with.
            most: chains that there may be: of any number up to that it is one program.
            length: draws of the stage.
            learning: whether it is; else its time is over from the first draw on.
        """
        self._adaptation, self._most = adaptation, most
        self._length, self._made, self._seen = length, 0 if learning else length, 0
        self.step_size = self.settled = step_size
        shape = eqx.filter_eval_shape(adaptation.init, Sized(step_size))
        self._memory = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shape)

    def prepare(self) -> None:
        """Begin to compile what `learn` does, in the background."""
        _later.ahead(*self._arguments(np.ones(self._most, self.step_size.dtype)))

    def learn(self, acceptance: Float[np.ndarray, " chains"]) -> None:
        """One draw later, made with `step_size` and accepted with these probabilities."""
        self._memory, self.step_size, self.settled = jax.tree.map(np.asarray, _later(*self._arguments(acceptance)))
        self._made, self._seen = self._made + 1, self._seen + 1

    def _arguments(self, acceptance: np.ndarray) -> tuple[Any, ...]:
        counts = [np.asarray(count, np.int32) for count in (acceptance.size, self._made, self._length, self._seen)]
        padded = np.append(acceptance, np.ones(self._most - acceptance.size, acceptance.dtype))
        return self._adaptation, self._memory, Sized(self.step_size), padded, *counts


class _First(OneTile):
    """Sums over the first chains, as many as `count` says."""

    def sum(self, contribution: Callable[[PyTree], PyTree], tiles: PyTree) -> PyTree:
        moving = lambda leaf: jnp.where(self.chain[0] < self.count, leaf, 0)
        return super().sum(lambda draws: jax.tree.map(moving, contribution(draws)), tiles)


@compiled
def _later(
    adaptation: Adaptation,
    memory: PyTree,
    tuning: Sized,
    acceptance: Float[Array, " most"] | Float[np.ndarray, " most"],
    chains: Count,
    made: Count,
    length: Count,
    seen: Count,
) -> tuple[PyTree, Any, Any]:
    acceptance, chains, made, length = (jnp.asarray(part) for part in (acceptance, chains, made, length))
    memory = select(jnp.asarray(seen) == 0, adaptation.init(tuning), memory)
    pool = _First(jnp.arange(acceptance.size)[None], chains.astype(acceptance.dtype))
    memory, tuning = learned(adaptation, memory, tuning, acceptance[None, None], pool, made, length)
    return memory, tuning.step_size, adaptation.freeze(memory, tuning).step_size
