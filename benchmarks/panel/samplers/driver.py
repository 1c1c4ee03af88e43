"""How peers are driven: compile ahead, warm up once, then sample in blocks until there is enough."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from shoal.bench.peers.recipes import Block, Recipe

from ..measures import smallest_ess
from ..outcome import Count, Outcome, Problem, Seconds
from ..rows import GOAL, MIN_ESS

MOST_KEPT = 2**25  # numbers of draws that are kept; beyond, every second draw goes
LEAST_DRAWS = 100  # of every chain
PATIENCE = 30.0  # seconds of sampling, before which nothing is hopeless


def ahead(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], float]:
    """A compiled program, and the seconds that took."""
    began = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return program, time.perf_counter() - began


def timed(program: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a program gives back, and its seconds."""
    began = time.perf_counter()
    made = jax.block_until_ready(program(*arguments))
    return made, time.perf_counter() - began


class Kept:
    """Draws so far, thinned when they become too many."""

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.thinning = 1

    def add(self, position: Any) -> None:
        """Take `[draw, chain, dim]`."""
        self.blocks.append(np.asarray(position)[:: self.thinning].swapaxes(0, 1))
        while sum(block.size for block in self.blocks) > MOST_KEPT:
            self.blocks = [block[:, ::2] for block in self.blocks]
            self.thinning *= 2

    @property
    def position(self) -> np.ndarray:
        """`[chain, draw, dim]`."""
        return np.concatenate(self.blocks, axis=1)


def followed(problem: Problem, recipe: Recipe) -> Outcome:
    """What comes of a recipe."""
    return run(problem, recipe.warmup, recipe.block, recipe.chains, settings=recipe.settings)


def run(
    problem: Problem,
    warmup: Callable[..., tuple[Any, Any]],
    block: Callable[[Any, Any], Block],
    chains: int,
    start_cost: int = 1,
    per_step: int = 1,
    settings: dict[str, Any] | None = None,
    traced: bool = True,
) -> Outcome:
    """Warm up, then sample until 4,000 effective draws or until the time is over.

    Args:
        problem: what to sample.
        warmup: `(key, starts) -> (state, steps)`.
        block: `(key, state) -> Block`, always of the same length.
        chains: how many.
        start_cost: evaluations that a chain's first state costs.
        per_step: evaluations in a step.
        settings: to be recorded.
        traced: the warmup can be compiled ahead; if not, its seconds contain those of compiling.
    """
    starts = np.asarray(problem.starts(chains))
    warm_key, key = jax.random.split(problem.key)
    program, compiling = ahead(warmup, warm_key, starts) if traced else (warmup, 0.0)
    (state, steps), warming = timed(program, warm_key, starts)
    spent = start_cost * chains + per_step * int(np.asarray(steps).sum(dtype=np.int64))
    program, more = ahead(block, key, state)
    kept, sampling, evaluations, waiting, wanted, made = Kept(), 0.0, 0, 0, LEAST_DRAWS, 0
    while True:
        key, now = jax.random.split(key)
        drawn, seconds = timed(program, now, state)
        state, sampling = drawn.state, sampling + seconds
        steps = np.asarray(drawn.steps).astype(np.int64)
        evaluations += per_step * int(steps.sum())
        waiting += per_step * chains * int(steps.max(axis=1).sum())
        kept.add(drawn.position)
        made += len(steps)
        if problem.left < 1.5 * seconds:
            break
        if made >= wanted:
            wanted = enough(problem, kept, made, sampling)
            if made >= wanted:
                break
    return Outcome(
        position=kept.position,
        warmup=Count(both=spent),
        sampling=Count(both=evaluations),
        seconds=Seconds(compiling + more, warming, sampling),
        waiting=waiting,
        settings={"chains": chains, "draws": made, "thinning": kept.thinning, **(settings or {})},
    )


def enough(problem: Problem, kept: Kept, made: int, sampling: float) -> int:
    """How many draws of every chain there should be, judged from those there are; not on the sampler's time.

    A sampler that has had half a minute and would not come to 400 effective draws in all its time has made enough.
    """
    began = problem.now()
    ess = smallest_ess(problem.target.coordinates(kept.position))
    problem.pause(began)
    hopeless = sampling > PATIENCE and ess * (1.0 + problem.left / sampling) < MIN_ESS
    return made if ess >= GOAL or hopeless else int(made * min(4.0, 1.05 * GOAL / max(ess, 1.0))) + 1
