r"""The compiled program of many posteriors: a block of data sets on every device, each with a run of its own.

It is the sweep of one run (`shoal.run`) with one more batch axis: kernels, adaptation and statistics are mapped
over the data sets of a block, so that each has its own chains, step size, metric and trajectory, and every pooled sum
is over the chains of one data set. Blocks have one size, the last is filled up, and every block is served by the same
program: what is drawn of a data set depends on the seed, its number and its data, and on no other data set.

Trajectories of `JitteredHMC` vary with the number of the draw alone, so all data sets lengthen and shorten them at the
same draws. Still a block takes as many steps as the data set of it that needs most: those that are done wait.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from shoal.compiling import compiled
from shoal.mesh import OneTile
from shoal.program import Program, Run
from shoal.run import on_mesh
from shoal.starts import is_finite_at, key_of_starts, points_of
from shoal.statistics import Health
from shoal.sweep import learned, sweep_of_tile
from shoal.target import Target

# Names of axes: of the devices, each with a block, and of the data sets of a block.
DEVICES, BLOCK = "devices", "block"
# Chains of a block. On a CPU two data sets of 64 chains were measured to take the least time: more wait for each other
# longer than they save. An accelerator takes as many chains as in one tile of a run.
CHAINS_OF_BLOCK = {"cpu": 128}
CHAINS_ON_ACCELERATORS = 16_384


@dataclass(frozen=True)
class Blocks:
    """How data sets are spread.

    Attributes:
        size: data sets of a block.
        devices: a block goes to each at a time.
    """

    size: int
    devices: tuple[Any, ...]

    @classmethod
    def of(cls, num_chains: int, size: int | None = None) -> "Blocks":
        """The default: as many data sets as the backend takes chains, on all local devices.

        On how many data sets there are it does not depend: what is drawn of one depends on the size to the last bit.
        """
        devices = jax.local_devices()
        room = CHAINS_OF_BLOCK.get(devices[0].platform, CHAINS_ON_ACCELERATORS)
        return cls(size or max(1, room // num_chains), tuple(devices))

    @cached_property
    def mesh(self) -> Mesh:
        """The devices, none of which shares the chains of a data set with another."""
        return Mesh(np.array(self.devices), (DEVICES,))

    def rounds(self, count: int) -> Iterator[Int[np.ndarray, " rows"]]:
        """The numbers of the data sets of each round, a block for every device; the last one comes again to fill up."""
        rows = self.size * len(self.devices)
        for begin in range(0, count, rows):
            yield np.minimum(np.arange(begin, begin + rows), count - 1)

    def place(self, tree: PyTree) -> Any:
        """Leaves with a leading axis of data sets, a block on each device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(DEVICES)))


class Recipe(eqx.Module):
    """What is done with every data set.

    Attributes:
        warmup: how it is warmed up; the data of the target are replaced.
        sampling: how it is sampled then, with the tuning that the adaptation has settled on.
        tuning: what warmup begins with.
        num_warmup: draws of the warmup.
        num_samples: draws after it.
    """

    warmup: Program
    sampling: Program
    tuning: PyTree
    num_warmup: int = eqx.field(static=True)
    num_samples: int = eqx.field(static=True)


class Made(NamedTuple):
    """What is known of each data set of a round; leaves have a leading axis of data sets.

    Attributes:
        kept: of every draw, `[draws, chains, ...]`.
        tuning: that was sampled with.
        warmup: sums over the warmup.
        sampling: sums over the draws after it.
        paid: evaluations of the gradient of each chain after the warmup, with those that it waited for others.
    """

    kept: PyTree
    tuning: PyTree
    warmup: PyTree
    sampling: PyTree
    paid: Int[Array, "..."]


def roots_of(root: PRNGKeyArray, numbers: Int[np.ndarray, " rows"]) -> PRNGKeyArray:
    """A key for every data set, by its number."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, jnp.asarray(numbers, jnp.uint32))


@compiled
def starting_points(
    target: Target, roots: PRNGKeyArray, data: PyTree, attempt: Int[Array, ""], num: int, dtype: type
) -> tuple[Float[Array, "rows num dim"], Bool[Array, "rows num"]]:
    """Points of an attempt for each data set, and whether each is one to begin at."""

    def of_one(root: PRNGKeyArray, data: PyTree) -> tuple[Array, Array]:
        points = points_of(key_of_starts(root), attempt, (num, target.dim), dtype)
        return points, is_finite_at(eqx.tree_at(lambda t: t.data, target, data), points)

    return jax.vmap(of_one)(roots, data)


@compiled
def sampled_block(recipe: Recipe, roots: PRNGKeyArray, data: PyTree, position: Array, blocks: Blocks) -> Made:
    """The whole runs of a round of data sets: warmup, frozen tuning, draws.

    Args:
        recipe: what is done.
        roots: a key for each data set.
        data: leaves `[rows, ...]`.
        position: where the chains begin, `[rows, chains, dim]`.
        blocks: how they are spread.
    """
    everywhere, split = PartitionSpec(), PartitionSpec(DEVICES)

    def local(arguments: tuple[Recipe, PRNGKeyArray, PyTree, Array]) -> Made:
        recipe, *each = arguments
        return jax.vmap(lambda *one: _run(recipe, *one), axis_name=BLOCK)(*each)

    return on_mesh(local, blocks.mesh, (everywhere, split, split, split), split)((recipe, roots, data, position))


def _run(recipe: Recipe, root: PRNGKeyArray, data: PyTree, position: Float[Array, "chains dim"]) -> Made:
    """The run of one data set."""
    swapped = lambda program: eqx.tree_at(lambda p: p.target.data, program, data)
    warmup, sampling = swapped(recipe.warmup), swapped(recipe.sampling)
    chain = jnp.arange(position.shape[0], dtype=jnp.int32)
    ensemble, step = warmup.kernel.init(position, warmup.target), jnp.zeros((), jnp.int32)
    nothing = {"health": Health().init(ensemble, warmup.target)}
    memory = warmup.adaptation.init(recipe.tuning)
    window = jnp.array([0, recipe.num_warmup], jnp.int32)
    warm = Run(root, step, chain, ensemble, recipe.tuning, memory, nothing, window)
    warm, _, _ = _phase(warmup, warm, recipe.num_warmup)
    tuning = warmup.adaptation.freeze(warm.adaptation, warm.tuning)
    window = jnp.stack([warm.step, jnp.asarray(recipe.num_samples, jnp.int32)])
    memory = sampling.adaptation.init(tuning)
    run = Run(root, warm.step, chain, warm.ensemble, tuning, memory, nothing, window)
    run, kept, paid = _phase(sampling, run, recipe.num_samples)
    return Made(kept, tuning, warm.statistics["health"], run.statistics["health"], paid)


def _phase(program: Program, run: Run, draws: int) -> tuple[Run, PyTree, Int[Array, ""]]:
    """`draws` draws of one data set: the run later, what is kept, and evaluations paid for each chain."""

    def tick(carry: tuple[Run, Array], _: None) -> tuple[tuple[Run, Array], PyTree]:
        before, paid = carry
        after, kept = _swept(program, before)
        # A chain waits for the others of its data set, and its data set for the others of the block.
        cost = (after.statistics["health"].paid - before.statistics["health"].paid).max()
        return (after, paid + jax.lax.pmax(cost, BLOCK)), kept

    sweeps = -(-draws // program.kernel.draws_per_sweep)
    (run, paid), kept = jax.lax.scan(tick, (run, jnp.zeros((), jnp.int32)), None, length=sweeps)
    return run, jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:])[:draws], kept), paid


def _swept(program: Program, run: Run) -> tuple[Run, PyTree]:
    """One sweep of the chains of one data set, which are one tile; all sums over chains are over these."""
    (ensemble, statistics), (kept, watched) = sweep_of_tile(program, run, run.chain, run.ensemble, run.statistics)
    draws = program.kernel.draws_per_sweep
    pool = OneTile(run.chain[None], jnp.asarray(run.chain.size * draws, ensemble.position.dtype))
    watched = jax.tree.map(lambda leaf: leaf[None], watched)
    done, length = run.step - run.window[0], run.window[1]
    memory, tuning = learned(program.adaptation, run.adaptation, run.tuning, watched, pool, done, length)
    return Run(run.root, run.step + draws, run.chain, ensemble, tuning, memory, statistics, run.window), kept
