"""HMC with a given step size and number of steps, by Shoal and its peers: blocks of draws, one after another.

All are given the same log density, starts, and unit metric; all draw momenta, accept or reject, and keep position,
log density, acceptance rate and divergence of every draw. A draw takes `steps` gradients of every chain.

- Shoal: its own program with health and moments folded, default tile, all local devices.
- BlackJAX: `blackjax.hmc`, vmapped over chains in a compiled scan, as its documentation has it.
- NumPyro: the two functions of `HMC` that `MCMC` calls, in a compiled scan: for all chains at once as by
  `chain_method="vectorized"`. Going through `MCMC` would compile anew at every call.
- Both peers on all devices: the same under `jax.pmap`, each device with its share of the chains.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.extras import require
from shoal.kernels import HMC
from shoal.mesh import Placement
from shoal.program import Program, keep_draws
from shoal.randomness import root_key
from shoal.run import advance, begin, enter
from shoal.statistics import Health, Moments
from shoal.target import Target


class Problem(NamedTuple):
    """What is to be done.

    Attributes:
        target: what is sampled.
        position: where chains begin, `[chains, dim]`.
        step_size: of the leapfrog.
        steps: of a draw.
        draws: of a block.
        seed: of the draws.
    """

    target: Target
    position: np.ndarray
    step_size: float
    steps: int
    draws: int
    seed: int = 0

    def log_density(self, z: Any) -> Any:
        """At one point."""
        return self.target.log_density(z, self.target.data)

    @property
    def gradients(self) -> int:
        """Of a block, all chains together."""
        return self.steps * self.draws * len(self.position)


type Blocks = Iterator[Any]


def shoal_hmc(problem: Problem, devices: int | None = None) -> Blocks:
    """Shoal's program; a block is what it keeps, quantities by name, `[draws, chains, *shape]`."""
    chains, dtype = problem.position.shape[0], problem.position.dtype
    placement = Placement.of(chains, devices=jax.local_devices()[:devices])
    kernel = HMC()
    tuning = kernel.tuning(problem.target.dim, dtype)
    tuning = HMC.Tuning(jnp.asarray(problem.step_size, dtype), jnp.int32(problem.steps), tuning.metric)
    folds = {"health": Health(), "moments": Moments()}
    program = Program(problem.target, kernel, statistics=folds, keep=keep_draws)
    run = begin(program, placement, root_key(problem.seed), problem.position, tuning)
    run = enter(program, run, placement, 1)
    sweeps = jnp.int32(problem.draws)
    while True:
        run, kept = jax.block_until_ready(advance(program, run, sweeps, placement, problem.draws))
        yield kept["values"]


def blackjax_hmc(problem: Problem, devices: int = 1) -> Blocks:
    """`blackjax.hmc`; a block is `[draws, chains, dim]`."""
    blackjax = require("blackjax", "the peer BlackJAX", extra="peers")
    metric = jnp.ones(problem.target.dim, problem.position.dtype)
    algorithm = blackjax.hmc(problem.log_density, problem.step_size, metric, problem.steps)

    def init(position: Any, key: Any) -> Any:
        return jax.vmap(algorithm.init)(position), key

    def draw(carry: Any, _: Any) -> Any:
        states, key = carry
        key, now = jax.random.split(key)
        states, info = jax.vmap(algorithm.step)(jax.random.split(now, len(states.logdensity)), states)
        return (states, key), (states.position, states.logdensity, info.acceptance_rate, info.is_divergent)

    return _scanned(problem, init, draw, devices)


def numpyro_hmc(problem: Problem, devices: int = 1) -> Blocks:
    """NumPyro's `HMC` without adaptation; a block is `[draws, chains, dim]`."""
    numpyro = require("numpyro", "the peer NumPyro", extra="peers")
    kernel = numpyro.infer.HMC(
        potential_fn=lambda z: -problem.log_density(z),
        step_size=problem.step_size,
        num_steps=problem.steps,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )

    def init(position: Any, key: Any) -> Any:
        keys = jax.random.split(key, len(position))
        return kernel.init(keys, 0, init_params=position, model_args=(), model_kwargs={})

    def draw(state: Any, _: Any) -> Any:
        state = kernel.sample(state, (), {})
        return state, (state.z, state.potential_energy, state.accept_prob, state.diverging)

    return _scanned(problem, init, draw, devices)


def _scanned(problem: Problem, init: Callable[..., Any], draw: Callable[..., Any], devices: int) -> Blocks:
    """Blocks of a scan over draws: on one device, or the same on several, each with its share of the chains."""
    block = lambda state: jax.lax.scan(draw, state, length=problem.draws)
    position, key = jnp.asarray(problem.position), jax.random.key(problem.seed)
    if devices == 1:
        state, program = jax.jit(init)(position, key), jax.jit(block)
    else:
        share = position.reshape(devices, -1, position.shape[-1])
        state, program = jax.pmap(init)(share, jax.random.split(key, devices)), jax.pmap(block)
    while True:
        state, kept = jax.block_until_ready(program(state))
        yield kept[0]
