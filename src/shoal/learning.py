"""A step size that is learned between draws, from what a program kept that learns nothing itself."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from shoal.adaptation.base import Adaptation
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
        self._length, self._made = length, 0 if learning else length
        self.step_size = self.settled = step_size
        self._memory = jax.tree.map(np.asarray, _begun(adaptation, Sized(step_size)))

    def learn(self, acceptance: Float[np.ndarray, " chains"]) -> None:
        """One draw later, made with `step_size` and accepted with these probabilities."""
        counts = (np.asarray(count, np.int32) for count in (acceptance.size, self._made, self._length))
        padded = np.append(acceptance, np.ones(self._most - acceptance.size, acceptance.dtype))
        later = _later(self._adaptation, self._memory, Sized(self.step_size), padded, *counts)
        self._memory, self.step_size, self.settled = jax.tree.map(np.asarray, later)
        self._made += 1


class _First(OneTile):
    """Sums over the first chains, as many as `count` says."""

    def sum(self, contribution: Callable[[PyTree], PyTree], tiles: PyTree) -> PyTree:
        moving = lambda leaf: jnp.where(self.chain[0] < self.count, leaf, 0)
        return super().sum(lambda draws: jax.tree.map(moving, contribution(draws)), tiles)


@compiled
def _begun(adaptation: Adaptation, tuning: Sized) -> PyTree:
    return adaptation.init(tuning)


@compiled
def _later(
    adaptation: Adaptation,
    memory: PyTree,
    tuning: Sized,
    acceptance: Float[Array, " most"] | Float[np.ndarray, " most"],
    chains: Count,
    made: Count,
    length: Count,
) -> tuple[PyTree, Any, Any]:
    acceptance, chains, made, length = (jnp.asarray(part) for part in (acceptance, chains, made, length))
    pool = _First(jnp.arange(acceptance.size)[None], chains.astype(acceptance.dtype))
    memory, tuning = learned(adaptation, memory, tuning, acceptance[None, None], pool, made, length)
    return memory, tuning.step_size, adaptation.freeze(memory, tuning).step_size
