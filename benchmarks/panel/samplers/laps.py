"""BlackJAX's late-adjusted parallel sampler: one draw of each of many chains."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.laps import laps as late_adjusted

from ..outcome import SUPERCHAINS, Count, Outcome, Problem, Seconds


def laps(problem: Problem, chains: int = 4_096, first: int = 500, second: int = 500) -> Outcome:
    """`laps` with its defaults and the paper's 4,096 chains.

    A chain begins at one of the panel's 16 starts, by chance. Chains are sorted by start and cut into 16 rows, as
    if each were one chain's draws, so that effective sample size and R-hat see whether starts are forgotten. All
    evaluations count as sampling; it is compiled while it runs, so that the seconds of compiling are inside.
    """
    points = np.asarray(problem.starts(SUPERCHAINS))

    def which(key: Any) -> Any:
        return jax.random.randint(key, (), 0, SUPERCHAINS)

    began = time.perf_counter()
    info, per_step, _, state = late_adjusted(
        logdensity_fn=problem.log_density,
        sample_init=lambda key: jnp.asarray(points)[which(key)],
        ndims=problem.target.dim,
        num_steps1=first,
        num_steps2=second,
        num_chains=chains,
        mesh=jax.sharding.Mesh(np.array(jax.devices()[:1]), ("chains",)),
        rng_key=problem.key,
    )
    position = np.asarray(jax.block_until_ready(state.position))
    seconds = time.perf_counter() - began
    # As `laps` and its `initialize` split the key among chains.
    keys = jax.random.split(jax.random.split(jax.random.split(problem.key, 3)[0])[0], chains)
    order = np.argsort(np.asarray(jax.vmap(which)(keys)), stable=True)
    burn_in = len(np.asarray(info["phase_1"]["L"]))
    steps = np.asarray(info["phase_2"]["steps_per_sample"]).sum()
    return Outcome(
        position=position[order].reshape(SUPERCHAINS, -1, problem.target.dim),
        warmup=Count(),
        sampling=Count(both=int(chains * (1 + burn_in + per_step * steps))),
        seconds=Seconds(sampling=seconds),
        at_once=True,
        settings={"chains": chains, "num_steps1": first, "num_steps2": second, "burn_in": burn_in},
    )
