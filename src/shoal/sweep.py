"""One sweep: the kernel, the statistics and what is kept of some chains, and what the adaptation learns from all."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from shoal.adaptation.base import Adaptation
from shoal.ensemble import Ensemble, Transition
from shoal.mesh import Pool
from shoal.program import Program, Run
from shoal.randomness import Stream


def sweep_of_tile(
    program: Program, run: Run, chain: Array, ensemble: Ensemble, statistics: dict[str, PyTree]
) -> tuple[tuple[Ensemble, dict[str, PyTree]], tuple[PyTree, PyTree]]:
    """A sweep of one tile: the ensemble after and statistics; what is kept and watched of each draw."""
    stream = Stream(run.root, chain)
    ensemble, draws = program.kernel.sweep(stream, run.step, ensemble, run.tuning, program.target)

    def fold(memories: dict[str, PyTree], draw: Transition) -> tuple[dict[str, PyTree], None]:
        folds, target = program.statistics, program.target
        return {name: fold.update(memories[name], draw, target) for name, fold in folds.items()}, None

    statistics, _ = jax.lax.scan(fold, statistics, draws)
    kept = jax.vmap(program.keep, in_axes=(0, None))(draws, program.target)
    return (ensemble, statistics), (kept, program.adaptation.watch(draws))


def learned(
    adaptation: Adaptation,
    memory: PyTree,
    tuning: PyTree,
    watched: PyTree,
    pool: Pool,
    done: Int[Array, ""],
    length: Int[Array, ""],
) -> tuple[PyTree, PyTree]:
    """What the adaptation remembers after a sweep, and the tuning.

    Args:
        adaptation: what learns.
        memory: before the sweep.
        tuning: that the sweep was made with.
        watched: of the sweep, leaves `[tiles, draws, tile, ...]`.
        pool: sums over all chains.
        done: draws of the phase before the sweep.
        length: draws that the phase is to have.
    """
    progress = done.astype(pool.count.dtype)
    progress = progress / jnp.maximum(length, 1).astype(progress.dtype)
    return adaptation.update(memory, tuning, watched, pool, progress)
