r"""Gradients a second by the number of chains, through whole draws, beside what the machine can do at most.

A rate that saturates, $r(n) = r_\infty n / (n + n_{1/2})$, has its knee on log-log paper where $n = n_{1/2}$ and half
of $r_\infty$ is reached (Hockney & Jesshope, Parallel Computers, 1981).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from shoal.bench.ceilings import MATRIX, MEMORY, TRANSCENDENTAL, ceilings
from shoal.bench.counting import Operations, by_ceiling, operations
from shoal.bench.draws import STEPS, whole_draws
from shoal.bench.record import record
from shoal.bench.turns import Work, in_turns, silent
from shoal.checking.speed import Rate, recommended
from shoal.compile_cache import kept_programs
from shoal.mesh import Placement
from shoal.models.model import Model
from shoal.randomness import root_key
from shoal.starts import MOST_SUPERCHAINS, dispersed

CHAINS = (1, 4, 16, 64, 256, 1024, 4096, 16_384)
# Tiles and the number of devices are compared at so many chains, or at the most that were asked for.
LARGE = {"cpu": 1024}
LARGE_ON_ACCELERATORS = 16_384
TILES = {"cpu": (8, 16, 32, 64, 128)}
TILES_ON_ACCELERATORS = (1024, 4096, 16_384)
# A tile that is not so much faster than the default is not worth other draws.
WORTH = 1.05
DRAWS, ONE_DEVICE, TILE = "draws", "one device", "tile "
# Below such a share a ceiling is not what holds draws up.
NEAR, OVERHEAD = 0.2, "overhead"
UNITS = {MATRIX: "operations/s", MEMORY: "bytes/s", TRANSCENDENTAL: "functions/s"}


class Cell(NamedTuple):
    """What is timed: what it is, and with how many chains."""

    what: str
    chains: int | None = None

    def __str__(self) -> str:
        return self.what if self.chains is None else f"{self.what}, {self.chains:,} chains"


def measure(
    model: Model,
    *,
    chains: Sequence[int] = CHAINS,
    tiles: Sequence[int] = (),
    repeats: int = 5,
    seconds: float = 0.25,
    seed: int = 0,
    tell: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Measure a model on all local devices.

    Args:
        model: what is sampled, in float32.
        chains: numbers of them.
        tiles: to compare; none for those of the backend.
        repeats: passes over everything that is timed; medians count.
        seconds: of one measurement.
        seed: of starts and draws.
        tell: told what is going on.

    Returns:
        A record (`shoal.bench.record`) with a row for every ceiling, number of chains and tile, and `operations`,
        `bound`, `knee`, `recommended_chains`, `recommended_tile`, `all_devices_to_one`.

    Raises:
        ValueError: the log density is not finite where chains begin.
    """
    devices, chains = jax.local_devices(), sorted(set(chains))
    backend, most = devices[0].platform, LARGE.get(devices[0].platform, LARGE_ON_ACCELERATORS)
    large = max([number for number in chains if number <= most] or chains[:1])
    usual = Placement.of(large).layout.tile
    tiles = sorted({min(tile, large) for tile in tiles or TILES.get(backend, TILES_ON_ACCELERATORS)} | {usual})
    target = model.target(np.float32)
    tell("finding where chains begin")
    starts = dispersed(model, target, root_key(seed), MOST_SUPERCHAINS, MOST_SUPERCHAINS, np.float32).position

    def work(placement: Placement) -> Work:
        return whole_draws(target, np.resize(starts, (placement.num_chains, target.dim)), placement, seed)

    works = {Cell(name): ceiling for name, ceiling in ceilings(devices).items()}
    works |= {Cell(DRAWS, number): work(Placement.of(number)) for number in chains}
    works |= {Cell(f"{TILE}{tile}", large): work(Placement.of(large, tile)) for tile in tiles}
    if len(devices) > 1:
        works[Cell(ONE_DEVICE, large)] = work(Placement.of(large, devices=devices[:1]))
    with kept_programs():
        rates, asked = in_turns(works, repeats, seconds, tell), operations(target, usual)
    settings = {
        "target": model.name,
        "dim": model.dim,
        "precision": "float32",
        "leapfrog_steps": STEPS,
        "tile": usual,
        "tiles": tiles,
        "chains": chains,
        "devices": len(devices),
        "repeats": repeats,
        "seconds": seconds,
    }
    rows = [row(cell, rates, asked) for cell in rates]
    return record("device", seed, settings, rows, operations=asked._asdict(), **found(rates, rows, usual, large))


def row(cell: Cell, rates: Mapping[Cell, np.ndarray], asked: Operations) -> dict[str, Any]:
    """What was measured of a cell: medians; of draws also the shares of the ceilings."""
    made = rates[cell]
    unit = UNITS.get(cell.what, "gradients/s")
    told = {"what": cell.what, "chains": cell.chains, "rate": float(np.median(made)), "unit": unit}
    told |= {"least": float(made.min()), "most": float(made.max())}
    if cell.what == DRAWS:
        of = by_ceiling(asked._asdict())
        told["shares"] = {name: float(np.median(made * amount / rates[Cell(name)])) for name, amount in of.items()}
    return told


def found(
    rates: Mapping[Cell, np.ndarray], rows: Sequence[Mapping[str, Any]], usual: int, large: int
) -> dict[str, Any]:
    """What follows from the rows."""
    draws = [row for row in rows if row["what"] == DRAWS]
    by_chains = [Rate(row["chains"], row["rate"]) for row in draws]
    one = rates.get(Cell(ONE_DEVICE, large))
    return {
        "bound": bound(max(draws, key=lambda row: row["rate"])["shares"]),
        "knee": knee(by_chains),
        "recommended_chains": recommended(by_chains),
        "recommended_tile": fastest_tile(rates, usual),
        "all_devices_to_one": None if one is None else float(np.median(rates[Cell(DRAWS, large)] / one)),
    }


def bound(shares: Mapping[str, float]) -> str:
    """The ceiling that draws are nearest to, or what there is around the gradient where they are near none.

    On a CPU memory is none: what a tile reads and writes stays in the cache, which is what tiles are for.
    """
    near = {name: share for name, share in shares.items() if share >= NEAR}
    if jax.default_backend() == "cpu":
        near.pop(MEMORY, None)
    return max(near, key=lambda name: near[name]) if near else OVERHEAD


def knee(rates: Sequence[Rate]) -> int:
    """With how many chains half of the best rate is reached, by straight lines between those measured on log-log paper.

    Args:
        rates: by growing number of chains. Where all of them make half of the best, the answer is the fewest.
    """
    half = max(rate.gradients_per_second for rate in rates) / 2
    above = next(index for index, rate in enumerate(rates) if rate.gradients_per_second >= half)
    if above == 0:
        return rates[0].num_chains
    (fewer, slower), (more, faster) = (np.log(rate) for rate in rates[above - 1 : above + 1])
    return round(math.exp(fewer + (more - fewer) * (math.log(half) - slower) / (faster - slower)))


def fastest_tile(rates: Mapping[Cell, np.ndarray], usual: int) -> int:
    """The tile that is fastest, or the default where that is nearly as fast."""
    tiles = {int(cell.what.removeprefix(TILE)): made for cell, made in rates.items() if cell.what.startswith(TILE)}
    gains = {tile: float(np.median(made / tiles[usual])) for tile, made in tiles.items()}
    best = max(gains, key=lambda tile: gains[tile])
    return best if gains[best] > WORTH else usual
