"""What a stage of a warmup leaves, and what chains it shows to be behind or lost."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array

from shoal.diagnostics.visited import LOST, LOST_DIMENSIONS
from shoal.ensemble import Transition
from shoal.target import Target

# Fewer chains than this say little at one time: draws of different times are put together.
FEW_CHAINS = 16
# A chain this many interquartile ranges below the median is behind: 13 standard deviations of a normal law.
FAR_BEHIND = 10.0
# What the host looks at of a stage, at most: more chains or draws say little more about scales.
MOST_NUMBERS = 2**24


def keep_trail(transition: Transition, target: Target) -> dict[str, Array]:
    """Everything that a metric or a race is judged by."""
    after, info = transition.after, transition.info
    return {
        "position": after.position,
        "gradient": after.gradient,
        "log_density": after.log_density,
        "acceptance": info.acceptance_rate,
        "step_size": info.step_size,
        "gradients": info.gradients,
    }


class Trail(NamedTuple):
    """What a stage left, `[draw, chain]` and, for positions and gradients, `[draw, chain, dim]`."""

    position: np.ndarray
    gradient: np.ndarray
    log_density: np.ndarray
    acceptance: np.ndarray
    step_size: np.ndarray
    gradients: np.ndarray

    def joined(self, later: "Trail") -> "Trail":
        """This and what came after it."""
        return Trail(*(np.concatenate(parts) for parts in zip(self, later, strict=True)))

    def late(self, share: float = 0.5) -> "Trail":
        """The last part of it."""
        return self.since(len(self.log_density) - max(1, round(share * len(self.log_density))))

    def since(self, draw: int) -> "Trail":
        """From a draw on."""
        return Trail(*(part[draw:] for part in self))

    def chains(self, members: np.ndarray) -> "Trail":
        """Some of the chains."""
        return Trail(*(part[:, members] for part in self))

    def latest(self, draws: int) -> "Trail":
        """The last so many draws."""
        return self.since(max(0, len(self.log_density) - draws))

    def thinned(self, draws: int | None = None) -> "Trail":
        """As many chains, evenly spaced, as fit into `MOST_NUMBERS` with so many draws; with its own by default."""
        _, chains, dim = self.position.shape
        most = max(2, MOST_NUMBERS // max((draws or len(self.log_density)) * dim, 1))
        return self if chains <= most else self.chains(np.linspace(0, chains - 1, most).astype(int))

    @property
    def deviation(self) -> float:
        """Standard deviation of the log density between chains, at the median draw; of few chains, of all draws."""
        few = self.log_density.shape[1] < FEW_CHAINS
        late = self.log_density[-(len(self.log_density) // 2) :]
        spread = late.std(dtype=float) if few else np.median(self.log_density.std(1, dtype=float))
        return float(max(spread, np.finfo(np.float32).tiny))

    @property
    def drift(self) -> float:
        """How far the mean log density of the second half is above that of the first, in `deviation`."""
        half = len(self.log_density) // 2
        early, late = self.log_density[:half], self.log_density[-half:]
        return float((late.mean(dtype=float) - early.mean(dtype=float)) / self.deviation)

    @property
    def behind(self) -> np.ndarray:
        """Which chains have a log density far below that of most others: still on their way, as a rule."""
        level = self.log_density.mean(0, dtype=float)
        if level.size < FEW_CHAINS:
            return np.zeros(level.size, bool)
        low, middle, high = np.quantile(level, (0.25, 0.5, 0.75))
        return middle - level > FAR_BEHIND * (high - low)

    @property
    def lost(self) -> np.ndarray:
        """Which chains are where next to none of the mass can be, if the best quarter of them is where any is."""
        level = self.log_density.mean(0, dtype=float)
        if level.size < FEW_CHAINS:
            return np.zeros(level.size, bool)
        return np.quantile(level, 0.75) - level > LOST * max(self.position.shape[2], LOST_DIMENSIONS)
