"""Gradients a second by the number of chains, in tiles and on devices as a run has them, and how many chains pay.

A loop over the gradient and next to nothing else: what the log density costs, which whole draws come close to.
"""

import math
import time
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Float

from shoal.checking.probe import Probe, time_left
from shoal.compiling import compiler_options, launching
from shoal.mesh import CHAINS, TILE, Placement, through_tiles
from shoal.starts import FEW_CHAINS

# A doubling of the chains that makes fewer more gradients a second does not pay.
WORTH = 1.1
# On a CPU one chain, a tile, and so on to this many tiles on every device, and the default number of chains at least;
# elsewhere what a device takes at once, and fractions of it.
TILES, DEFAULT = 2, 128
ON_ACCELERATORS = (64, 256, 1024, 4096, 16_384)
# Of a measurement, the best of which counts: whatever else the machine does only takes time.
SECONDS, REPEATS = 0.06, 3
# Of a device's memory, the share that intermediate results may take up.
ROOM = 0.8


class Rate(NamedTuple):
    """Gradients by a number of chains.

    Attributes:
        num_chains: that were evaluated together.
        gradients_per_second: of all of them.
    """

    num_chains: int
    gradients_per_second: float


class Speed(NamedTuple):
    """What was measured.

    Attributes:
        rates: by the number of chains.
        recommended: the fewest chains beyond which a doubling adds less than a tenth; None where they were not reached.
        bytes_per_chain: intermediate results of a gradient; NaN where XLA does not tell.
    """

    rates: tuple[Rate, ...]
    recommended: int | None
    bytes_per_chain: float


def measure(probe: Probe, position: Float[np.ndarray, "points dim"], until: float) -> Speed:
    """Measure, more and more chains as long as there is time and they pay.

    Args:
        probe: in the precision of the run.
        position: points at which the log density is finite.
        until: the time, by `time.perf_counter`, at which to begin no other number of chains.
    """
    if not len(position):
        return Speed((), None, math.nan)
    rates: list[Rate] = []
    memory, programs = math.nan, {}
    for placement in placements():
        if rates and not (time_left(until) and fits(placement, memory)):
            break
        try:
            if placement.layout not in programs:
                programs[placement.layout] = compiled(probe, placement)
            rate, memory = timed(probe, programs[placement.layout], placement, position)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            break
        rates.append(Rate(placement.num_chains, rate))
    return Speed(tuple(rates), recommended(rates), memory)


def placements() -> list[Placement]:
    """From few chains to many; on a CPU those that use all devices are rows of one program."""
    devices = jax.local_devices()
    tile = TILE.get(devices[0].platform)
    if tile is None:
        return [Placement.of(num_chains) for num_chains in ON_ACCELERATORS]
    most = max(TILES * tile * len(devices), DEFAULT)
    doublings = range(int(math.log2(most // tile)) + 1)
    every = [Placement.of(num_chains) for num_chains in (1, *(tile * 2**times for times in doublings))]
    last, same = every[-1], lambda layout: (layout.tile, layout.devices)
    return [replace(last, num_chains=p.num_chains) if same(p.layout) == same(last.layout) else p for p in every]


def growth(fewer: Rate, more: Rate) -> float:
    """By what factor the rate grows with each doubling of the chains between two."""
    doublings = math.log2(more.num_chains / fewer.num_chains)
    return (more.gradients_per_second / fewer.gradients_per_second) ** (1 / doublings)


def recommended(rates: list[Rate]) -> int | None:
    """The fewest chains beyond which no number that was measured pays; None where only the last would do."""
    for index, rate in enumerate(rates[:-1]):
        # Fewer are another sampler's business, and say nothing of each other.
        if rate.num_chains >= FEW_CHAINS and all(growth(rate, more) < WORTH for more in rates[index + 1 :]):
            return rate.num_chains
    return None


def fits(placement: Placement, bytes_per_chain: float) -> bool:
    """Whether the intermediate results of so many chains fit into the devices, as far as that is known."""
    limit = (placement.layout.devices[0].memory_stats() or {}).get("bytes_limit", math.inf)
    return not placement.layout.tile * bytes_per_chain > ROOM * limit


def compiled(probe: Probe, placement: Placement) -> Any:
    """A program that evaluates the gradient at every chain so many times, in so many of the tiles of each device."""
    log_density, layout = probe.model.compiled.log_density, placement.layout

    def local(position: Any, data: Any, sweeps: Any, turns: Any) -> Any:
        gradient = jax.grad(lambda point, data: log_density(point, data))

        def of_tile(tile: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                slope = jax.vmap(gradient, in_axes=(0, None))(tile, data)
            # Every sweep needs that before it, or one would be enough; the points stay where they are.
            return tile + jnp.asarray(1e-7, slope.dtype) * jnp.clip(slope, -1, 1)

        turn = lambda _, tiles: through_tiles(lambda _, tile: (of_tile(tile), None), None, tiles, turns)[0]
        tiles = jax.lax.fori_loop(0, sweeps, turn, layout.split(position))
        return tiles.reshape(position.shape)

    chains, everywhere = PartitionSpec(CHAINS), PartitionSpec()
    inside = (chains, everywhere, everywhere, everywhere)
    spread = jax.shard_map(local, mesh=layout.mesh, in_specs=inside, out_specs=chains, check_vma=False)
    with probe.precision():
        rows = np.zeros((placement.num_padded, probe.model.dim), probe.dtype)
        arguments = arranged(probe, placement, rows, 1)
        options = compiler_options(jax.default_backend())
        return jax.jit(spread).lower(*arguments).compile(compiler_options=options)


def arranged(probe: Probe, placement: Placement, rows: np.ndarray, sweeps: int) -> tuple[Any, ...]:
    """The arguments of the program, where they belong."""
    layout = placement.layout
    turns = -(-placement.num_chains // (layout.tile * len(layout.devices)))
    numbers = np.asarray(sweeps, np.int32), np.asarray(turns, np.int32)
    return (placement.place(rows, split=True), *placement.place((probe.data, *numbers), split=False))


def timed(
    probe: Probe, program: Any, placement: Placement, position: Float[np.ndarray, "points dim"]
) -> tuple[float, float]:
    """Gradients a second, and bytes that the intermediate results of one chain take up."""
    starts = np.resize(position, (placement.num_chains, position.shape[1])).astype(probe.dtype)
    rows = placement.pad(starts)

    def seconds(sweeps: int) -> float:
        arguments = arranged(probe, placement, rows, sweeps)
        begin = time.perf_counter()
        with launching():
            made = program(*arguments)
        jax.block_until_ready(made)
        return time.perf_counter() - begin

    with probe.precision():
        seconds(1)
        sweeps, spent = 1, seconds(1)
        while spent < SECONDS / 4:
            sweeps *= 4
            spent = seconds(sweeps)
        best = min(seconds(sweeps) for _ in range(REPEATS))
    return placement.num_chains * sweeps / best, bytes_of(program) / placement.layout.tile


def bytes_of(program: Any) -> float:
    """Bytes of intermediate results of a compiled program, on a device; NaN where XLA does not tell."""
    try:
        return float(program.memory_analysis().temp_size_in_bytes)
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        return math.nan
