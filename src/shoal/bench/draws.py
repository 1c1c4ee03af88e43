"""Whole draws of Shoal's own sampling program, counted in gradients: what a run does once it is tuned."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from shoal.bench.turns import Work
from shoal.kernels import HMC
from shoal.kernels.base import AnyKernel
from shoal.mesh import Placement
from shoal.program import Program, keep_draws
from shoal.randomness import root_key
from shoal.run import advance, begin, enter, sweeps_as_array
from shoal.statistics import Health, Moments
from shoal.target import Target

# So small a step that no chain leaves where it began, and that nothing is rejected.
STEPS, STEP_SIZE = 20, 1e-3
# What is kept of draws takes up no more than this, and is of no more draws.
KEPT_BYTES, MOST_DRAWS = 2**26, 500


def sampling(
    target: Target,
    kernel: AnyKernel,
    tuning: PyTree,
    position: Float[np.ndarray, "chains dim"],
    placement: Placement,
    capacity: int,
    seed: int = 0,
) -> Callable[[int], PyTree]:
    """Sampling from some positions, with momenta, acceptance, statistics and kept draws.

    Returns:
        A function from a number of sweeps, at most `capacity`, to what was kept in them: `shoal.run.advance`.
    """
    program = Program(target, kernel, statistics={"health": Health(), "moments": Moments()}, keep=keep_draws)
    run = enter(program, begin(program, placement, root_key(seed), position, tuning), placement, 1)
    return lambda sweeps: jax.block_until_ready(advance(program, run, sweeps_as_array(sweeps), placement, capacity)[1])


def whole_draws(target: Target, position: Float[np.ndarray, "chains dim"], placement: Placement, seed: int = 0) -> Work:
    """Draws of HMC: a function from how many to the gradients that they took.

    Args:
        target: what is sampled.
        position: where the chains begin.
        placement: of them.
        seed: of the draws.
    """
    kernel, dtype = HMC(), position.dtype
    tuning = HMC.Tuning(jnp.asarray(STEP_SIZE, dtype), jnp.int32(STEPS), kernel.tuning(target.dim, dtype).metric)
    capacity = most_draws(target, placement)
    draw = sampling(target, kernel, tuning, position, placement, capacity, seed)

    def work(draws: int) -> float:
        for done in range(0, draws, capacity):
            draw(min(capacity, draws - done))
        return float(draws * STEPS * placement.num_chains)

    return work


def most_draws(target: Target, placement: Placement) -> int:
    """How many draws the device keeps."""
    position = jax.ShapeDtypeStruct((placement.num_padded, target.dim), np.float32)
    values = jax.tree.leaves(jax.eval_shape(target.constrained, position))
    per_draw = sum(leaf.size * leaf.dtype.itemsize for leaf in values)
    return max(1, min(MOST_DRAWS, KEPT_BYTES // max(per_draw, 1)))
