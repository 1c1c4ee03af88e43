"""Works measured in turns: one pass over all of them a repeat, so that a machine that drifts does so for all alike."""

import time
from collections.abc import Callable, Hashable, Mapping

import jax
import numpy as np

# So many times something is done; how much of what it is counted in that was.
type Work = Callable[[int], float]


def silent(words: str) -> None:
    """Tell nobody."""


def in_turns[Name: Hashable](
    works: Mapping[Name, Work], repeats: int, seconds: float, tell: Callable[[str], None] = silent
) -> dict[Name, np.ndarray]:
    """How much each work does a second.

    Args:
        works: by name; each is called once before it counts, to be compiled.
        repeats: passes over all of them.
        seconds: that a measurement takes, as far as whole times allow.
        tell: told what is going on.

    Returns:
        By name, a rate for each repeat: numbers of one repeat may be divided by each other.

    Raises:
        ValueError: the memory of the device is not enough for a work.
    """
    times = {}
    for name, work in works.items():
        tell(f"compiling {name}")
        try:
            times[name] = enough(work, seconds)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise ValueError(
                f"The memory of the device is not enough for '{name}': ask for fewer chains, or smaller tiles."
            ) from error
    passes = []
    for number in range(1, repeats + 1):
        tell(f"measuring, {number} of {repeats}")
        passes.append({name: rate(work, times[name]) for name, work in works.items()})
    return {name: np.array([made[name] for made in passes]) for name in works}


def enough(work: Work, seconds: float) -> int:
    """How many times take about so many seconds."""
    work(1)
    times, spent = 1, timed(work, 1)
    while spent < seconds / 4:
        times *= 4
        spent = timed(work, times)
    return max(1, round(times * seconds / spent))


def timed(work: Work, times: int) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work(times)
    return time.perf_counter() - began


def rate(work: Work, times: int) -> float:
    """What it does a second."""
    began = time.perf_counter()
    done = work(times)
    return done / (time.perf_counter() - began)
