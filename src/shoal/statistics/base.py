"""What every statistic is: a fold over draws, in memory that does not grow with their number."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Int, PyTree

from shoal.ensemble import Ensemble, Transition
from shoal.target import Target

Said = dict[str, np.ndarray | np.generic]


class Statistic(eqx.Module):
    """A fold over draws, chain by chain: it costs no communication while sampling."""

    @abc.abstractmethod
    def init(self, ensemble: Ensemble, target: Target) -> PyTree:
        """The memory to begin with; every leaf has a leading axis of chains."""

    @abc.abstractmethod
    def update(self, memory: PyTree, transition: Transition, target: Target) -> PyTree:
        """One draw of every chain of a tile later."""

    @abc.abstractmethod
    def compute(self, memory: PyTree, superchain: Int[np.ndarray, " chains"]) -> Said:
        """What the memory says, on the host, from all chains."""
