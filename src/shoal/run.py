"""The one loop: from a run and what it is to do (`shoal.program`) to the run later."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from shoal.adaptation.base import Adaptation
from shoal.compile_cache import settled
from shoal.compiling import compiled
from shoal.ensemble import Ensemble
from shoal.kernels.base import AnyKernel
from shoal.mesh import (
    CHAINS,
    Layout,
    Placement,
    Pool,
    inside,
    is_spec,
    isolated,
    over_tiles,
    placed,
    shardings,
    specs_of,
    through_tiles,
)
from shoal.program import Program, Run
from shoal.statistics.base import Statistic
from shoal.sweep import learned, sweep_of_tile
from shoal.target import PARAMETERS, Target

# Long enough to cost nothing, short enough that an interrupt is answered.
CHUNK_SECONDS = 0.5


def begin(
    program: Program,
    placement: Placement,
    root: PRNGKeyArray,
    position: Float[np.ndarray, "chains dim"],
    tuning: PyTree,
) -> Run:
    """A run at its start, placed on the devices.

    Args:
        program: what is to be done.
        placement: where; its `num_chains` is the number of rows of `position`.
        root: the key of the run.
        position: where the chains begin; the log density is finite there.
        tuning: what to begin with.
    """
    return enter(program, start(program, placement, root, position, tuning), placement, 0)


def start(
    program: Program,
    placement: Placement,
    root: PRNGKeyArray,
    position: Float[np.ndarray, "chains dim"],
    tuning: PyTree,
) -> Run:
    """As `begin`, in no phase yet."""
    target = placement.place(program.target, split=False)
    padded = placement.place(placement.pad(position), split=True)
    return _idle(placement, root, ensemble_at(program.kernel, target, padded, placement.layout), 0, tuning)


class Whereabouts(NamedTuple):
    """Where chains are, on the host: what a kernel that remembers nothing can go on from."""

    position: Float[np.ndarray, "chains dim"]
    log_density: Float[np.ndarray, " chains"]
    gradient: Float[np.ndarray, "chains dim"]


def whereabouts(run: Run, placement: Placement) -> Whereabouts:
    """Of all chains but those that fill up a tile."""
    ensemble = run.ensemble
    return Whereabouts(*on_host((ensemble.position, ensemble.log_density, ensemble.gradient), placement))


def resume(placement: Placement, root: PRNGKeyArray, where: Whereabouts, step: int, tuning: PyTree) -> Run:
    """A run in no phase yet, where other chains have left it; nothing is evaluated.

    Args:
        placement: its `num_chains` is the number of rows of `where`.
        root: the key of the run.
        where: the chains are.
        step: draws made so far.
        tuning: what to go on with.
    """
    ensemble = Ensemble(*placement.place([placement.pad(rows) for rows in where], split=True))
    return _idle(placement, root, ensemble, step, tuning)


def revived(placement: Placement, root: PRNGKeyArray, ensemble: Ensemble, step: int, tuning: PyTree) -> Run:
    """As `resume`, with what a kernel remembers: leaves `[chains, ...]` on the host, as `on_host` gives them."""
    rows = jax.tree.map(placement.pad, ensemble)
    return _idle(placement, root, placement.place(rows, split=True), step, tuning)


def on_host(tree: PyTree, placement: Placement) -> PyTree:
    """Leaves with a leading axis of chains, on the host, without those that fill up a tile."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[placement.rows], tree)


def shape_of_ensemble(program: Program, dtype: Any) -> Ensemble:
    """The structure of the ensembles that a program's kernel moves; the leaves are of one chain."""
    position = jax.ShapeDtypeStruct((1, program.target.dim), dtype)
    return eqx.filter_eval_shape(program.kernel.init, position, program.target)


def _idle(placement: Placement, root: PRNGKeyArray, ensemble: Ensemble, step: int, tuning: PyTree) -> Run:
    chain = placement.place(placement.chain_numbers(), split=True)
    everywhere = root, np.asarray(step, np.int32), tuning, np.zeros(2, np.int32)
    root, made, tuning, window = placement.place(everywhere, split=False)
    return Run(root, made, chain, ensemble, tuning, None, {}, window)


def enter(program: Program, run: Run, placement: Placement, length: int, learning: bool = True) -> Run:
    """The same chains at the start of a phase of `length` draws: fresh adaptation and statistics.

    Without `learning` the adaptation counts them from as many draws before: its time is over.
    """
    folds = program.statistics
    ensemble = run.ensemble if folds else None
    target = program.target if folds else None
    adaptation, statistics = _fresh(program.adaptation, folds, run.tuning, ensemble, target, placement.layout.mesh)
    window = np.array([int(run.step) - (0 if learning else length), length], np.int32)
    root, window = placement.place((run.root, window), split=False)
    return Run(root, run.step, run.chain, run.ensemble, run.tuning, adaptation, statistics, window)


@compiled
def _fresh(
    adaptation: Adaptation, folds: dict[str, Statistic], tuning: PyTree, ensemble: PyTree, target: PyTree, mesh: Mesh
) -> tuple[PyTree, dict[str, PyTree]]:
    fresh = adaptation.init(tuning), {name: fold.init(ensemble, target) for name, fold in folds.items()}
    # Where `advance` leaves them: cut up by the host they would be moved by programs of their own.
    return jax.lax.with_sharding_constraint(fresh, shardings(fresh, (PartitionSpec(), PartitionSpec(CHAINS)), mesh))


def frozen(program: Program, run: Run, placement: Placement) -> PyTree:
    """The tuning that the adaptation has settled on."""
    return _frozen(program.adaptation, run.adaptation, run.tuning, placement.layout.mesh)


@compiled
def _frozen(adaptation: Adaptation, memory: PyTree, tuning: PyTree, mesh: Mesh) -> PyTree:
    def local(arguments: tuple[Adaptation, PyTree, PyTree]) -> PyTree:
        adaptation, memory, tuning = arguments
        return isolated(adaptation.freeze(memory, tuning))

    everywhere = PartitionSpec()
    spread = on_mesh(local, mesh, (everywhere, everywhere, everywhere), everywhere)
    return spread((adaptation, memory, tuning))


@compiled
def ensemble_at(kernel: AnyKernel, target: Target, position: Array, layout: Layout) -> Ensemble:
    """The ensemble of a kernel at positions `[rows, dim]`, all of them placed."""

    def local(arguments: tuple[PyTree, Array]) -> Ensemble:
        target, position = arguments
        return _join(over_tiles(lambda tile: kernel.init(tile, target), layout.split(position)))

    return on_mesh(local, layout.mesh, (PartitionSpec(), PartitionSpec(CHAINS)), PartitionSpec(CHAINS))(
        (target, position)
    )


def advance(
    program: Program, run: Run, sweeps: Int[Array, ""], placement: Placement, capacity: int
) -> tuple[Run, PyTree]:
    """The one loop: `sweeps` sweeps of every chain.

    How many is an argument, so chunks of any length are one compiled program.

    Args:
        program: what to do.
        run: where it is.
        sweeps: at most `capacity`.
        placement: how chains are tiled and spread.
        capacity: rows of the buffer for what is kept.

    Returns:
        The run later; what was kept, leaves `[capacity * draws per sweep, chains, ...]`, of which the first
        `sweeps * draws per sweep` rows are draws.
    """
    return _advance(program, run, sweeps, placement.layout, capacity)


def sweeping(program: Program, run: Run, placement: Placement, capacity: int) -> Callable[[Run], tuple[Run, PyTree]]:
    """`advance` by one sweep, for many calls with runs of this form."""
    one = sweeps_as_array(1)
    bound = _advance.bound(program, run, one, placement.layout, capacity)
    return lambda run: bound(program, run, one, placement.layout, capacity)


def lowered(program: Program, run: Run, placement: Placement, capacity: int) -> Any:
    """The program that `advance` runs, traced and not compiled."""
    return _advance.lower(program, run, sweeps_as_array(1), placement.layout, capacity)


@compiled
def _advance(program: Program, run: Run, sweeps: Int[Array, ""], layout: Layout, capacity: int) -> tuple[Run, PyTree]:
    chains, everywhere = PartitionSpec(CHAINS), PartitionSpec()
    per_chain = lambda run: (run.chain, run.ensemble, run.statistics)
    where = jax.tree.map(lambda _: everywhere, run)
    where = eqx.tree_at(per_chain, where, jax.tree.map(lambda _: chains, per_chain(run)))

    def local(arguments: tuple[Program, Run, Array]) -> tuple[Run, PyTree]:
        program, run, sweeps = arguments
        # Traced once, for its shapes and for the loop.
        sweep = eqx.filter_closure_convert(_Sweep(program, layout), run)
        rows = program.kernel.draws_per_sweep
        shapes = jax.eval_shape(lambda run: sweep(run)[1], run)
        buffer = jax.tree.map(lambda leaf: jnp.zeros((capacity * rows, *leaf.shape[1:]), leaf.dtype), shapes)

        def tick(i: Array, carry: tuple[Run, PyTree]) -> tuple[Run, PyTree]:
            run, buffer = carry
            run, kept = sweep(run)
            write = lambda rows_so_far, new: jax.lax.dynamic_update_slice_in_dim(rows_so_far, new, i * rows, 0)
            return run, jax.tree.map(write, buffer, kept)

        return jax.lax.fori_loop(0, sweeps, tick, (run, buffer))

    spread = on_mesh(local, layout.mesh, (everywhere, where, everywhere), (where, PartitionSpec(None, CHAINS)))
    return spread((program, run, sweeps))


class _Sweep(NamedTuple):
    """One sweep of all the chains on a device."""

    program: Program
    layout: Layout

    def __call__(self, run: Run) -> tuple[Run, PyTree]:
        program, layout = self.program, self.layout
        chain = layout.split(run.chain)
        body = lambda chain, state: sweep_of_tile(program, run, chain, *state)
        # Groups of devices that share coordinates go through as many tiles as the others, empty or not: what they tell
        # each other may be one program of all.
        turns = (chain >= 0).any(1).sum(dtype=jnp.int32) if layout.parts == 1 else None
        state = layout.split((run.ensemble, run.statistics))
        (ensemble, statistics), (kept, watched) = through_tiles(body, chain, state, turns)
        adaptation, tuning = self.adapt(run, watched)
        step = run.step + program.kernel.draws_per_sweep
        kept = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(leaf.shape[1], -1, *leaf.shape[3:]), kept)
        after = Run(run.root, step, run.chain, _join(ensemble), tuning, adaptation, _join(statistics), run.window)
        return after, kept

    def adapt(self, run: Run, watched: PyTree) -> tuple[PyTree, PyTree]:
        chains = jax.lax.psum((run.chain >= 0).sum(dtype=jnp.int32), CHAINS)
        count = (chains * self.program.kernel.draws_per_sweep).astype(run.ensemble.position.dtype)
        # What is computed from pooled sums is the same on every device, and is compiled by itself for the same
        # reason that tiles are.
        memory, tuning, step, window, count = isolated((run.adaptation, run.tuning, run.step, run.window, count))
        pool = Pool(self.layout.split(run.chain), count)
        return isolated(learned(self.program.adaptation, memory, tuning, watched, pool, step - window[0], window[1]))


def _join(tree: PyTree) -> PyTree:
    """`[tiles, tile, ...]` to `[chains, ...]`."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def on_mesh(function: Callable[..., Any], mesh: Mesh, where: Any, outside: Any) -> Callable[..., Any]:
    """`function` of one tuple of arguments, run by every device on its own chains and rows of the data."""

    def spread(arguments: tuple[Any, ...]) -> Any:
        arrays, rest = eqx.partition(arguments, eqx.is_array)
        local = lambda arrays: placed(function(inside(eqx.combine(arrays, rest))), outside, mesh)
        specs = jax.tree.map(lambda spec, tree: specs_of(tree, spec), where, arrays, is_leaf=is_spec)
        own = frozenset(mesh.axis_names) - {PARAMETERS}
        of_all = jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=outside, axis_names=own, check_vma=False)
        return of_all(arrays)

    return spread


class Chunk(NamedTuple):
    """What the host sees between two calls of `advance`.

    Attributes:
        run: the state after it.
        kept: what was kept, `[rows, chains, ...]`, on the device; the first `draws` rows count.
        draws: draws that every chain made in it.
        done: draws of the phase so far, these included.
        seconds: that the chunk took.
    """

    run: Run
    kept: PyTree
    draws: int
    done: int
    seconds: float


def drive(
    program: Program,
    run: Run,
    placement: Placement,
    length: int,
    capacity: int,
    done: int = 0,
    next_end: Callable[[int], int] | None = None,
) -> Iterator[Chunk]:
    """A phase of `length` draws in chunks of about `CHUNK_SECONDS`; the host looks only between them.

    Chunks begin small and follow the clock: their size changes no draw.

    Args:
        program: what to do.
        run: at the start of the phase, from `enter`, or later.
        placement: how chains are tiled and spread.
        length: draws of the phase.
        capacity: the most sweeps of a chunk.
        done: draws of the phase that have been made; whole sweeps.
        next_end: from draws so far to the next number of draws at which a chunk is to end, by default that of all.
    """
    per_sweep = program.kernel.draws_per_sweep
    wanted = 1
    while done < length:
        end = length if next_end is None else min(length, next_end(done))
        sweeps = min(wanted, capacity, -(-(end - done) // per_sweep))
        began = time.perf_counter()
        run, kept = jax.block_until_ready(advance(program, run, sweeps_as_array(sweeps), placement, capacity))
        seconds = time.perf_counter() - began
        draws = min(sweeps * per_sweep, length - done)
        done += draws
        chunk = [Chunk(run, kept, draws, done, seconds)]
        del kept
        yield chunk.pop()  # whoever takes it holds it alone
        wanted = max(1, min(4 * wanted, int(sweeps * CHUNK_SECONDS / max(seconds, 1e-6))))


def prepare_phase(
    program: Program,
    placement: Placement,
    root: PRNGKeyArray,
    position: Float[np.ndarray, "chains dim"],
    tuning: PyTree,
    capacity: int,
) -> None:
    """Begin to compile a phase in the background, of a kernel that remembers nothing.

    Args:
        program: of the phase.
        placement: of its chains.
        root: the key of the run.
        position: anywhere.
        tuning: any of the form that the phase will have.
        capacity: as for `drive`.
    """
    level = shape_of_ensemble(program, position.dtype).log_density.dtype
    where = Whereabouts(position, np.zeros(len(position), level), position)
    run = enter(program, resume(placement, root, where, 0, tuning), placement, 0)
    _advance.ahead(program, run, sweeps_as_array(0), placement.layout, capacity)


def compile_phase(program: Program, run: Run, placement: Placement, capacity: int) -> float:
    """Compile a phase by running no sweep of it; returns the seconds that it took."""
    began = time.perf_counter()
    jax.block_until_ready(advance(program, run, sweeps_as_array(0), placement, capacity))
    settled()
    return time.perf_counter() - began


def sweeps_as_array(sweeps: int) -> Int[Array, ""]:
    """A number of sweeps as the argument that `advance` takes: a Python number would be compiled in."""
    return jnp.asarray(sweeps, jnp.int32)


def report(
    program: Program,
    run: Run,
    placement: Placement,
    superchain: Int[np.ndarray, " chains"],
    names: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """What the statistics say of all chains but those that fill up a tile, on the host.

    Args:
        program: of the run.
        run: where it is.
        placement: of its chains.
        superchain: which each of them belongs to.
        names: of the statistics; all by default.
    """
    folds = {name: fold for name, fold in program.statistics.items() if names is None or name in names}
    memories = on_host({name: run.statistics[name] for name in folds}, placement)
    return {name: fold.compute(memories[name], superchain) for name, fold in folds.items()}
