"""NumPyro's NUTS, eight chains at once (`chain_method="vectorized"`), by its kernel's own two functions."""

from typing import Any

import jax
import numpyro

from ..outcome import Outcome, Problem
from .driver import Block, run

CHAINS = 8


def nuts(problem: Problem, warmup_draws: int = 1_000, block_draws: int = 100) -> Outcome:
    """`NUTS` with its defaults: diagonal metric, acceptance 0.8, trees of at most 1,023 steps."""
    kernel = numpyro.infer.NUTS(potential_fn=lambda z: -problem.log_density(z))

    def draw(state: Any, _: Any) -> tuple[Any, tuple[Any, Any]]:
        state = kernel.sample(state, (), {})
        return state, (state.z, state.num_steps)

    def warmup(key: Any, starts: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, CHAINS)
        state = kernel.init(keys, warmup_draws, init_params=starts, model_args=(), model_kwargs={})
        state, (_, steps) = jax.lax.scan(draw, state, length=warmup_draws)
        return state, steps

    def block(_: Any, state: Any) -> Block:
        state, (position, steps) = jax.lax.scan(draw, state, length=block_draws)
        return Block(state, position, steps)

    return run(problem, warmup, block, CHAINS, settings={"num_warmup": warmup_draws})
