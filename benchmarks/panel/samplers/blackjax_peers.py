"""BlackJAX's many-chain samplers: ChEES with dynamic HMC, and MEADS with generalised HMC."""

from typing import Any

import blackjax
import jax
import optax
from blackjax.adaptation.base import get_filter_adapt_info_fn

from ..outcome import Outcome, Problem
from .driver import Block, run

STEPS = get_filter_adapt_info_fn(info_keys={"num_integration_steps"})


class ChEES:
    """`chees_adaptation`, then `dynamic_hmc`.

    500 warmup draws as in Shoal, half of the default; the default would double its price. First step size 0.1,
    Adam with rate 0.02: BlackJAX has no defaults for these.
    """

    def __init__(self, chains: int, metric: str | None = None) -> None:
        """Args: chains: how many; metric: `mass_matrix_estimation`, None by BlackJAX's default."""
        self.chains, self.metric = chains, metric
        self.warmup_draws, self.block_draws = 500, 50

    def __call__(self, problem: Problem) -> Outcome:
        """Sample."""
        density, functions = problem.log_density, {}
        adaptation = blackjax.chees_adaptation(
            density, self.chains, adaptation_info_fn=STEPS, mass_matrix_estimation=self.metric
        )

        def warmup(key: Any, starts: Any) -> tuple[Any, Any]:
            (states, tuned), info = adaptation.run(key, starts, 0.1, optax.adam(0.02), self.warmup_draws)
            functions.update({name: value for name, value in tuned.items() if callable(value)})
            numbers = {name: value for name, value in tuned.items() if not callable(value)}
            return (states, numbers), info.info.num_integration_steps

        def block(key: Any, state: Any) -> Block:
            states, numbers = state
            step = jax.vmap(blackjax.dynamic_hmc(density, **functions, **numbers).step)

            def draw(states: Any, key: Any) -> tuple[Any, tuple[Any, Any]]:
                states, info = step(jax.random.split(key, self.chains), states)
                return states, (states.position, info.num_integration_steps)

            states, (position, steps) = jax.lax.scan(draw, states, jax.random.split(key, self.block_draws))
            return Block((states, numbers), position, steps)

        settings = {"num_steps": self.warmup_draws, "step_size": 0.1, "optim": "adam(0.02)", "metric": self.metric}
        return run(problem, warmup, block, self.chains, settings=settings)


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
