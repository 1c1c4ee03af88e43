"""Where chains and rows of data live: tiles of a fixed size, spread over the local devices, and sums over all chains.

A tile is evaluated by the same small program wherever it is, so no draw depends on the number of devices. For
that, every reduction that feeds a sum over chains is made inside the tile; the tiles' partial sums are
replicated and added one after another in a fixed order. Both were measured to be bitwise the same on 1, 2, 4
and 8 devices; a pooled scalar made from reductions outside the tiles was not.

Several devices may have the same chains and share the rows of the data: each adds up the log likelihood of its own
rows, and they sum these. How many do changes the last bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import dynamic_index_in_dim, dynamic_update_index_in_dim
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from shoal.models.parted import FEW
from shoal.target import PARAMETERS, Sharded, Target, is_sharded

CHAINS, DATA = "chains", "data"

# Draws depend on the tile to the last bit, so it is recorded with each run. On a CPU it is a constant: 32 chains fill
# the vector units and keep intermediate results in the cache; measured 1.1 to 1.5 times as fast as 16. An accelerator
# wants all its chains at once: on one H100 16,384 in one tile were measured 5 times as fast as in tiles of 1,024. More
# would take more memory for their intermediate results.
TILE = {"cpu": 32}
TILE_ON_ACCELERATORS = 16_384


# Rows of a shard are a multiple of so many: a multiple of 64 bytes.
EVEN = 64

# Few of the chains of an ensemble move in the rows of all, and run the program of all, where that leaves no more than
# this many times as many rows: compiling another takes a second or two.
ROOMY = 4


@dataclass(frozen=True)
class Layout:
    """What a program knows of where chains are.

    Attributes:
        tile: chains of a tile.
        devices: where the tiles go, the same number of tiles to each group; groups one after another.
        room: rows for chains on each device.
        shards: how many share the rows of the data of a group's chains.
        parts: devices of each of these, which share the coordinates of the positions.
    """

    tile: int
    devices: tuple[Any, ...]
    room: int
    shards: int = 1
    parts: int = 1

    @property
    def groups(self) -> int:
        """How many parts the chains are in."""
        return len(self.devices) // (self.shards * self.parts)

    @cached_property
    def mesh(self) -> Mesh:
        """The devices in a row; of one device, too, so that one device and many run the same program."""
        axes = {CHAINS: self.groups} | {
            name: count for name, count in ((DATA, self.shards), (PARAMETERS, self.parts)) if count > 1
        }
        return Mesh(np.array(self.devices).reshape(*axes.values()), tuple(axes))

    def split(self, tree: PyTree) -> PyTree:
        """`[chains, ...]` to `[tiles, tile, ...]`."""
        return jax.tree.map(lambda leaf: leaf.reshape(-1, self.tile, *leaf.shape[1:]), tree)


@dataclass(frozen=True)
class Placement:
    """How an ensemble is cut into tiles and spread over devices.

    Attributes:
        num_chains: chains that move.
        layout: of their rows.
    """

    num_chains: int
    layout: Layout

    @classmethod
    def of(
        cls,
        num_chains: int,
        tile: int | None = None,
        devices: Sequence[Any] | None = None,
        shards: int = 1,
        parts: int = 1,
    ) -> "Placement":
        """The default placement: the backend's tile, as many groups of local devices as there are tiles for."""
        devices = jax.local_devices() if devices is None else devices
        each = shards * parts
        groups = len(devices) // each
        tile = min(tile or TILE.get(devices[0].platform) or _even(-(-num_chains // groups)), num_chains)
        groups = min(groups, -(-num_chains // tile))
        room = tile * _share(num_chains, tile, groups)
        return cls(num_chains, Layout(tile, tuple(devices[: groups * each]), room, shards, parts))

    def part(self, num_chains: int) -> "Placement":
        """Of some of the chains: on a CPU, unless they are few among many, in the rows and by the program of all."""
        tile, devices = self.layout.tile, self.layout.devices
        of_their_own = Placement.of(num_chains, min(tile, num_chains), devices, self.layout.shards, self.layout.parts)
        # In tiles, of which there are as many on any number of devices: draws depend on the tile.
        roomy = -(-self.num_chains // tile) <= ROOMY * -(-num_chains // tile)
        return replace(self, num_chains=num_chains) if roomy and devices[0].platform == "cpu" else of_their_own

    @property
    def num_padded(self) -> int:
        """Rows: chains, those that fill up the last tile, and tiles that give every group as many as the others."""
        return self.layout.room * self.layout.groups

    @cached_property
    def rows(self) -> slice | Int[np.ndarray, " chains"]:
        """The row of each chain: on every device they come first, and no device has more tiles of them than needed."""
        used = self.layout.tile * _share(self.num_chains, self.layout.tile, self.layout.groups)
        device, place = np.divmod(np.arange(self.num_chains), used)
        return slice(0, self.num_chains) if used == self.layout.room else device * self.layout.room + place

    def chain_numbers(self) -> Int[np.ndarray, " rows"]:
        """The chains' numbers; those that only fill up have negative ones."""
        numbers = -1 - np.arange(self.num_padded)
        numbers[self.rows] = np.arange(self.num_chains)
        return numbers.astype(np.int32)

    def pad(self, values: np.ndarray) -> np.ndarray:
        """Fill up the leading axis by repeating the first chains."""
        chain = np.arange(self.num_padded) % self.num_chains
        chain[self.rows] = np.arange(self.num_chains)
        return values[chain]

    def place(self, tree: PyTree, *, split: bool) -> Any:
        """Put arrays where they belong: split along their leading axis, or a copy on every device; data as they are."""
        arrays, rest = eqx.partition(jax.tree.map(_on_host, tree), eqx.is_array_like)
        specs = specs_of(arrays, PartitionSpec(CHAINS) if split else PartitionSpec())
        if split and self.layout.parts > 1:
            specs = jax.tree.map(partial(_in_parts, self.layout.parts), specs, arrays, is_leaf=is_spec)
        where = jax.tree.map(lambda spec: NamedSharding(self.layout.mesh, spec), specs, is_leaf=is_spec)
        return eqx.combine(jax.device_put(arrays, where), rest)

    def fetched(self, leaf: Array, draws: slice) -> np.ndarray:
        """What a device has kept of draws `[draw, row, *shape]`, on the host, `[chain, draw, *shape]`.

        It is copied from each device to its place: what the devices have is not held.

        Args:
            leaf: what was kept.
            draws: which of them.
        """
        count = len(range(*draws.indices(leaf.shape[0])))
        every = np.empty((leaf.shape[1], count, *leaf.shape[2:]), leaf.dtype)
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0:
                _, row, *rest = shard.index
                every[(row, slice(None), *rest)] = np.asarray(shard.data)[draws].swapaxes(0, 1)
        return every if len(every) == self.num_chains else every.take(np.arange(len(every))[self.rows], axis=0)

    def spread(self, target: Target) -> Target:
        """The same log density with its data where they belong: copies, or shards of rows.

        Args:
            target: with data whose leaves share their leading axis where a group has several devices.
        """
        shards = self.layout.shards
        if shards == 1:
            return self.place(target, split=False)
        rows = jax.tree.leaves(target.data)[0].shape[0]
        own = rows // shards
        # Where many rows go to each, shards begin where a device of the CPU can read them in place.
        own -= own % EVEN if own >= EVEN**2 else 0
        cut = lambda leaf: leaf[: shards * own].reshape(shards, own, *leaf.shape[1:])
        over = lambda leaf: leaf[shards * own :]
        shared = lambda data: Sharded(jax.tree.map(cut, data), jax.tree.map(over, data), rows - shards * own)
        spread = eqx.tree_at(lambda t: t.data, target, shared(target.data))
        if target.in_double is not None:
            spread = eqx.tree_at(lambda t: t.in_double, spread, shared(target.in_double))
        return self.place(spread, split=False)


def _share(num_chains: int, tile: int, groups: int) -> int:
    """Tiles of each device."""
    return -(-num_chains // (tile * groups))


def _even(chains: int) -> int:
    """The tile that makes the fewest tiles of at most `TILE_ON_ACCELERATORS` of these chains, with the least to pad."""
    tiles = -(-chains // TILE_ON_ACCELERATORS)
    return -(-chains // tiles)


def specs_of(tree: PyTree, spec: PartitionSpec) -> PyTree:
    """How a tree lies on a mesh: data that are split over devices as they are, all else in one way.

    Args:
        tree: of arrays.
        spec: of all else.
    """

    def of(node: Any) -> Any:
        if not is_sharded(node):
            return spec
        every = lambda tree, spec: jax.tree.map(lambda _: spec, tree)
        parts = every(node.shards, PartitionSpec(DATA)), every(node.rest, PartitionSpec())
        return eqx.tree_at(lambda data: (data.shards, data.rest), node, parts)

    return jax.tree.map(of, tree, is_leaf=is_sharded)


def _in_parts(parts: int, spec: PartitionSpec, leaf: Any) -> PartitionSpec:
    """How an array lies on a mesh whose devices share coordinates: its last axis is split over them where it is long.

    It does not change what is computed: the compiler sees to that, whatever is where.
    """
    split = leaf.ndim > len(spec) and leaf.shape[-1] % parts == 0 and leaf.shape[-1] >= FEW * parts
    return PartitionSpec(*spec, *[None] * (leaf.ndim - 1 - len(spec)), PARAMETERS) if split else spec


def shardings(tree: PyTree, where: Any, mesh: Mesh) -> PyTree:
    """Where `Placement.place` puts arrays.

    Args:
        tree: of arrays.
        where: how they lie on the axes of chains and data, a prefix of the tree.
        mesh: of all devices.
    """
    parts = mesh.shape.get(PARAMETERS, 1)
    place = lambda spec, leaf: NamedSharding(mesh, _in_parts(parts, spec, leaf) if spec and parts > 1 else spec)
    each = lambda spec, tree: jax.tree.map(partial(place, spec), tree)
    return jax.tree.map(each, where, tree, is_leaf=is_spec)


def placed(tree: PyTree, where: Any, mesh: Mesh) -> PyTree:
    """What a group of devices that share coordinates has computed, where the next program expects it.

    Args:
        tree: of arrays, as a program sees them that each group runs.
        where: as for `shardings`.
        mesh: as for `shardings`; where devices do not share coordinates nothing is done.
    """
    if PARAMETERS not in mesh.shape:
        return tree
    own = lambda spec: PartitionSpec(*(axis if axis == PARAMETERS else None for axis in spec))
    specs = jax.tree.map(lambda sharding: own(sharding.spec), shardings(tree, where, mesh))
    return jax.lax.with_sharding_constraint(tree, specs)


def inside(tree: PyTree) -> PyTree:
    """The same as programs of all devices see it: what is split over them is summed over them."""
    of = lambda node: Sharded(node.shards, node.rest, node.left, DATA) if is_sharded(node) else node
    return jax.tree.map(of, tree, is_leaf=is_sharded)


def _on_host(leaf: Any) -> Any:
    """What a device of the CPU has, as NumPy sees it: all its devices then share this memory, and copy nothing."""
    if not isinstance(leaf, jax.Array) or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    here = leaf.is_fully_replicated and all(device.platform == "cpu" for device in leaf.devices())
    return np.asarray(leaf) if here else leaf


def is_spec(node: Any) -> bool:
    """Whether it says how an array lies on a mesh."""
    return isinstance(node, PartitionSpec)


def isolated(tree: PyTree) -> PyTree:
    """The same values, which the compiler may not merge with what comes before: merging changes rounding."""
    return jax.lax.optimization_barrier(tree)


def over_tiles(body: Callable[[PyTree], PyTree], tiles: PyTree) -> PyTree:
    """`body` of every tile, one after another; leaves have a leading axis of tiles.

    Args:
        body: of a tile without the leading axis.
        tiles: leaves `[tiles, ...]`.
    """
    return through_tiles(lambda tile, _: (None, body(tile)), tiles, None)[1]


def through_tiles[State](
    body: Callable[[PyTree, State], tuple[State, PyTree]],
    tiles: PyTree,
    state: State,
    turns: Int[Array, ""] | None = None,
) -> tuple[State, PyTree]:
    """`body` of every tile and its state, one after another; leaves have a leading axis of tiles.

    The state is changed in place: what a run remembers of many chains is more than a cache holds.

    The tile, what `body` closes over and its answer are isolated: with few tiles on a device, the loop over them
    is otherwise merged with what is around it. For the same reason the compiler for a CPU is not told how often the
    loop turns, and sees no axis of length 1: a device with one tile runs the program of a device with several.

    Args:
        body: of a tile and its state, without the leading axis, to its state later and an answer.
        tiles: leaves `[tiles, ...]`.
        state: leaves `[tiles, ...]`.
        turns: on a CPU, of how many tiles, the first ones; the states of others stay, and the answer for them is zeros.
            By default of all.

    Returns:
        The states later, and the answers.
    """
    example = jax.tree.map(lambda leaf: leaf[0], (tiles, state))
    shared, rest = eqx.partition(eqx.filter_closure_convert(body, *example), eqx.is_array)

    def one(both: tuple[PyTree, State]) -> tuple[State, PyTree]:
        arrays, both = isolated((shared, both))
        return isolated(eqx.combine(arrays, rest)(*both))

    if jax.default_backend() != "cpu":
        return jax.lax.map(one, (tiles, state))
    count = jax.tree.leaves((tiles, state))[0].shape[0]
    if count == 1:
        tiles, state = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), (tiles, state))

    def turn(index: Array, carry: tuple[State, PyTree]) -> tuple[State, PyTree]:
        both = jax.tree.map(lambda leaf: dynamic_index_in_dim(leaf, index, keepdims=False), (tiles, carry[0]))
        place = lambda leaf, new: dynamic_update_index_in_dim(leaf, new, index, 0)
        return jax.tree.map(place, carry, one(both))

    _, shape = jax.eval_shape(one, example)
    empty = jax.tree.map(lambda leaf: jnp.zeros((max(count, 2), *leaf.shape), leaf.dtype), shape)
    made = jax.lax.fori_loop(0, isolated(jnp.int32(count) if turns is None else turns), turn, (state, empty))
    return jax.tree.map(lambda leaf: leaf[:count], made)


class Pool(eqx.Module):
    """Sums over all the chains of an ensemble, in an order that does not depend on the number of devices.

    Attributes:
        chain: the chains' numbers, by tile.
        count: how many draws a sum is over: chains times draws per sweep.
    """

    chain: Int[Array, "tiles tile"]
    count: Float[Array, ""]

    def sum(self, contribution: Callable[[PyTree], PyTree], tiles: PyTree) -> PyTree:
        """The sum of what every chain contributes.

        Args:
            contribution: from a pytree with leaves `[n, ...]` to one with leaves `[n, ...]`, n draws of a tile.
            tiles: a pytree with leaves `[tiles, draws, tile, ...]`.

        Returns:
            The pytree of sums, without the leading axis, the same on every device.
        """

        def of_tile(tile: PyTree) -> PyTree:
            chain, draws = tile
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)

            def total(leaf: Array) -> Array:
                real = jnp.tile(chain >= 0, leaf.shape[0] // chain.shape[0])
                return jnp.where(real.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0).sum(0)

            return jax.tree.map(total, contribution(flat))

        partial = isolated(jax.lax.all_gather(over_tiles(of_tile, (self.chain, tiles)), CHAINS, tiled=True))
        zero = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), partial)
        add = lambda total, leaf: (jax.tree.map(jnp.add, total, leaf), None)
        return isolated(jax.lax.scan(add, zero, partial)[0])


class OneTile(Pool):
    """Sums over an ensemble that is in one tile, as one of many ensembles side by side: nothing is gathered."""

    def sum(self, contribution: Callable[[PyTree], PyTree], tiles: PyTree) -> PyTree:
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), tiles)
        return jax.tree.map(lambda leaf: leaf.sum(0), contribution(flat))
