"""BlackJAX's many-chain samplers: ChEES with dynamic HMC, and MEADS with generalised HMC."""

from typing import Any

import blackjax
import jax

from shoal.bench.peers.recipes import Block, chees, steps_only

from ..outcome import Outcome, Problem
from .driver import followed, run

STEPS = steps_only()


class ChEES:
    """`chees_adaptation`, then `dynamic_hmc`: `shoal.bench.peers.recipes.chees`."""

    def __init__(self, chains: int, metric: str | None = None) -> None:
        """Args: chains: how many; metric: `mass_matrix_estimation`, None by BlackJAX's default."""
        self.chains, self.metric = chains, metric

    def __call__(self, problem: Problem) -> Outcome:
        """Sample."""
        return followed(problem, chees(problem.log_density, self.chains, self.metric))


def meads(problem: Problem, chains: int = 128, warmup_draws: int = 1_000, block_draws: int = 500) -> Outcome:
    """`meads_adaptation` with its defaults (4 folds, 1,000 steps) and the paper's 128 chains, then `ghmc`."""
    density = problem.log_density
    adaptation = blackjax.meads_adaptation(density, chains, adaptation_info_fn=STEPS)

    def warmup(key: Any, starts: Any) -> tuple[Any, Any]:
        (states, tuned), info = adaptation.run(key, starts, warmup_draws)
        return (states, tuned), info.info.num_integration_steps

    def block(key: Any, state: Any) -> Block:
        states, tuned = state
        step = jax.vmap(blackjax.ghmc(density, **tuned).step)

        def draw(states: Any, key: Any) -> tuple[Any, tuple[Any, Any]]:
            states, info = step(jax.random.split(key, chains), states)
            return states, (states.position, info.num_integration_steps)

        states, (position, steps) = jax.lax.scan(draw, states, jax.random.split(key, block_draws))
        return Block((states, tuned), position, steps)

    return run(problem, warmup, block, chains, settings={"num_steps": warmup_draws})
