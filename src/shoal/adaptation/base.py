"""What every adaptation is: something that learns a part of the tuning from the draws of all chains."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from shoal.ensemble import Transition
from shoal.mesh import Pool

Tuning = Any


class Adaptation(eqx.Module):
    """Learns one part of the tuning. `Chain` composes several, as in optax."""

    @property
    def sizes_steps(self) -> bool:
        """Whether it learns `tuning.step_size` and nothing else, and watches acceptance and nothing else."""
        return False

    @abc.abstractmethod
    def init(self, tuning: Tuning) -> PyTree:
        """The memory to begin with."""

    @abc.abstractmethod
    def update(
        self, memory: PyTree, tuning: Tuning, tiles: PyTree, pool: Pool, progress: Float[Array, ""]
    ) -> tuple[PyTree, Tuning]:
        """One sweep of all chains later.

        Args:
            memory: from `init` or the update before.
            tuning: that the sweep was made with.
            tiles: what it watches of the sweep, leaves `[tiles, draws, tile, ...]`; see `Pool.sum`.
            pool: sums over all chains.
            progress: the fraction of the warmup that is done, in [0, 1).
        """

    def freeze(self, memory: PyTree, tuning: Tuning) -> Tuning:
        """The tuning to sample with; nothing adapts after it."""
        return tuning

    def watch(self, transition: Transition) -> PyTree:
        """What `update` needs to see of a sweep: all of it by default."""
        return transition


class Fixed(Adaptation):
    """Learns nothing: the program holds no sum over chains then, and no communication."""

    def init(self, tuning: Tuning) -> PyTree:
        return None

    def update(
        self, memory: PyTree, tuning: Tuning, tiles: PyTree, pool: Pool, progress: Float[Array, ""]
    ) -> tuple[PyTree, Tuning]:
        return memory, tuning

    def watch(self, transition: Transition) -> PyTree:
        return None


class Chain(Adaptation):
    """Several adaptations, one after another on the same sweep."""

    parts: tuple[Adaptation, ...]

    def init(self, tuning: Tuning) -> PyTree:
        return tuple(part.init(tuning) for part in self.parts)

    def update(
        self, memory: PyTree, tuning: Tuning, tiles: PyTree, pool: Pool, progress: Float[Array, ""]
    ) -> tuple[PyTree, Tuning]:
        memories = []
        for part, part_memory, watched in zip(self.parts, memory, tiles, strict=True):
            part_memory, tuning = part.update(part_memory, tuning, watched, pool, progress)
            memories.append(part_memory)
        return tuple(memories), tuning

    def freeze(self, memory: PyTree, tuning: Tuning) -> Tuning:
        for part, part_memory in zip(self.parts, memory, strict=True):
            tuning = part.freeze(part_memory, tuning)
        return tuning

    def watch(self, transition: Transition) -> PyTree:
        return tuple(part.watch(transition) for part in self.parts)


class During(Adaptation):
    """Learns in one stretch of the warmup; frozen from its end on.

    Attributes:
        begin: fraction of the warmup at which `part` starts to learn.
        end: fraction at which it stops.
        part: what learns.
    """

    begin: float
    end: float
    part: Adaptation

    @property
    def sizes_steps(self) -> bool:
        return self.part.sizes_steps

    def init(self, tuning: Tuning) -> PyTree:
        return self.part.init(tuning)

    def update(
        self, memory: PyTree, tuning: Tuning, tiles: PyTree, pool: Pool, progress: Float[Array, ""]
    ) -> tuple[PyTree, Tuning]:
        new_memory, new_tuning = self.part.update(memory, tuning, tiles, pool, progress)
        learns = (progress >= self.begin) & (progress < self.end)
        new_tuning = select(learns, new_tuning, self.part.freeze(memory, tuning))
        waits = progress < self.begin
        return select(learns, new_memory, memory), select(waits, tuning, new_tuning)

    def freeze(self, memory: PyTree, tuning: Tuning) -> Tuning:
        return self.part.freeze(memory, tuning)

    def watch(self, transition: Transition) -> PyTree:
        return self.part.watch(transition)


def select(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """`new` or `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
