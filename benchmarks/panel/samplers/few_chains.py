"""BlackJAX's samplers of few chains, eight at once: NUTS with window or automatic adaptation, and MAMS."""

from typing import Any

import blackjax
import jax
import jax.numpy as jnp
from blackjax.mcmc import adjusted_mclmc_dynamic

from shoal.bench.peers import recipes
from shoal.bench.peers.recipes import Block, nuts_block

from ..outcome import Outcome, Problem
from .blackjax_peers import STEPS
from .driver import followed, run

CHAINS = 8


def window_nuts(problem: Problem) -> Outcome:
    """`window_adaptation` with its defaults, each chain by itself, then `nuts`."""
    return followed(problem, recipes.window_nuts(problem.log_density, CHAINS))


def auto_nuts(problem: Problem, budget: int = 50_000, block_draws: int = 100) -> Outcome:
    """`staged_adaptation(metric="auto")` over all chains, with the budget of its documentation, then `nuts`."""
    density = problem.log_density
    adaptation = blackjax.staged_adaptation(
        blackjax.nuts, density, metric="auto", max_grad_budget=budget, n_chains=CHAINS, adaptation_info_fn=STEPS
    )

    def warmup(key: Any, starts: Any) -> tuple[Any, Any]:
        (states, tuned), info = adaptation.run(key, starts)
        return (states, (tuned["step_size"], tuned["inverse_mass_matrix"])), info.info.num_integration_steps

    def block(key: Any, state: Any) -> Block:
        return nuts_block(density, key, state, block_draws, axes=None)

    settings = {"metric": "auto", "max_grad_budget": budget}
    return run(problem, warmup, block, CHAINS, settings=settings, traced=False)


def adjusted_microcanonical(problem: Problem, num_steps: int = 5_000, block_draws: int = 250) -> Outcome:
    """`adjusted_mclmc_find_L_and_step_size`, each chain by itself, then `adjusted_mclmc_dynamic`.

    Acceptance 0.9, a tenth of `num_steps` each for the step size, the metric with the length, and the step size
    again, random lengths, as its authors recommend; two evaluations in a step of the default integrator.
    """
    density = problem.log_density
    lengths = adjusted_mclmc_dynamic.make_random_trajectory_length_fn(True)
    kernel = adjusted_mclmc_dynamic.build_kernel(integration_steps_fn=lengths)

    def warm_one(key: Any, start: Any) -> tuple[Any, Any]:
        first, key = jax.random.split(key)
        state = adjusted_mclmc_dynamic.init(start, density, first)
        state, tuned, steps = blackjax.adjusted_mclmc_find_L_and_step_size(
            mclmc_kernel=kernel, logdensity_fn=density, num_steps=num_steps, state=state, rng_key=key, target=0.9
        )
        return (state, tuned), steps

    def warmup(key: Any, starts: Any) -> tuple[Any, Any]:
        return jax.vmap(warm_one)(jax.random.split(key, CHAINS), starts)

    def step(key: Any, state: Any, tuned: Any) -> tuple[Any, Any]:
        return kernel(
            rng_key=key,
            state=state,
            logdensity_fn=density,
            step_size=tuned.step_size,
            inverse_mass_matrix=tuned.inverse_mass_matrix,
            integration_steps_params=(tuned.L / tuned.step_size,),
        )

    def block(key: Any, state: Any) -> Block:
        states, tuned = state

        def draw(states: Any, key: Any) -> tuple[Any, tuple[Any, Any]]:
            states, info = jax.vmap(step)(jax.random.split(key, CHAINS), states, tuned)
            return states, (states.position, jnp.asarray(info.num_integration_steps))

        states, (position, steps) = jax.lax.scan(draw, states, jax.random.split(key, block_draws))
        return Block((states, tuned), position, steps)

    return run(problem, warmup, block, CHAINS, per_step=2, settings={"num_steps": num_steps, "target": 0.9})
