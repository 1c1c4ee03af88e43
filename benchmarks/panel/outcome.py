"""What a sampler is given, and what it gives back: draws, what they cost, and what it said about them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

import shoal
from shoal.randomness import root_key
from shoal.starts import dispersed

from .targets import Target

CHAINS, SUPERCHAINS = 128, 16


class NotInstalled(Exception):
    """A peer's package is missing."""


class Count(NamedTuple):
    """Evaluations, all chains together: of the log density with its gradient, and of the gradient alone."""

    both: int = 0
    gradient: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.both + self.gradient


class Seconds(NamedTuple):
    """Where the time went."""

    compile: float = 0.0
    warmup: float = 0.0
    sampling: float = 0.0


@dataclass
class Outcome:
    """A finished run.

    Attributes:
        position: unconstrained draws, `[chain, draw, dim]`.
        warmup: evaluations before the first draw that is kept.
        sampling: evaluations for the draws that are kept.
        seconds: where the time went.
        draws: the same draws on the supports, where the sampler makes them.
        at_once: no draw is there before all are.
        waiting: evaluations of sampling, with those of chains that have finished and wait for others.
        converged: the sampler's own verdict; None for the common rule.
        findings: what blocked the verdict.
        settings: how the sampler was called.
    """

    position: np.ndarray
    warmup: Count
    sampling: Count
    seconds: Seconds
    draws: Mapping[str, np.ndarray] | None = None
    at_once: bool = False
    waiting: int | None = None
    converged: bool | None = None
    findings: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


class Problem:
    """A target as samplers meet it: a log density, starts, and how long they may take."""

    def __init__(self, target: Target, seed: int, limit: float) -> None:
        """Build the model and the starts.

        Args:
            target: what to sample.
            seed: of the starts.
            limit: seconds for compiling, warming up and sampling.
        """
        self.target, self.seed, self.limit = target, seed, limit
        self.model: shoal.Model = target.model()
        self.dtype = np.dtype(target.precision)
        density = self.model.target(self.dtype)
        self.log_density: Callable[[Any], Any] = lambda z: density.log_density(z, density.data)
        root = root_key(seed)
        self._points = dispersed(self.model, density, root, SUPERCHAINS, SUPERCHAINS, self.dtype.type).position
        self.key = jax.random.key(seed)
        self._began = _clocks()

    def starts(self, chains: int) -> np.ndarray:
        """Where chains begin: Shoal's starts of 16 superchains; fewer chains get the first of them, one each."""
        if chains <= SUPERCHAINS:
            return self._points[:chains]
        return self._points[np.arange(chains) * SUPERCHAINS // chains]

    @property
    def left(self) -> float:
        """Seconds that are left, by the clock on the wall or by that of the processor, whichever is slower.

        On a machine that others use too, a cell has then as much time as on one that is its own.
        """
        return self.limit - float((_clocks() - self._began).min())

    def pause(self, began: np.ndarray) -> None:
        """Take out the time since `began`, which was not the sampler's."""
        self._began = self._began + (_clocks() - began)

    def now(self) -> np.ndarray:
        """Both clocks, for `pause`."""
        return _clocks()


def _clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])
