"""Table 1 and Figures 1 and 2 of the chapter, on this machine: effective draws a second of HMC and NUTS, tuned before.

Sountsov, Carroll & Hoffman, Running Markov Chain Monte Carlo on Modern Hardware and Software (arXiv:2411.04260;
Handbook of Markov Chain Monte Carlo, 2nd ed., 2026, chapter 21).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from shoal.bench.draws import sampling
from shoal.bench.record import record
from shoal.bench.turns import silent
from shoal.compile_cache import kept_programs
from shoal.cores import VARIABLE, cores
from shoal.diagnostics.estimates import ess_mean, ess_replicated
from shoal.mesh import Placement
from shoal.models.causes import cause
from shoal.models.model import Model
from shoal.samplers import NUTS, ChEES, Sampler
from shoal.samplers.arrays import tuning_from_arrays
from shoal.sampling import sample

CHAINS = (1, 4, 16, 64, 256, 1024, 4096, 16_384)
# On a CPU nothing is gained beyond, for minutes of waiting.
MOST_CHAINS = {"cpu": 4096}
TABLE = 64
# Fewer draws of each chain where there are many, but no fewer, and no more, than these.
DRAWS, FEWEST, MOST = 32_000, 10, 500
WARMUP = 500
# Of so many times that the same draws are made the seconds are the median.
REPEATS = 3
# From so many chains on the spread of their means tells effective sizes to 5%, with as few draws as there are then.
SPREAD = 1024
# HMC's number of steps varies from draw to draw, which costs nothing and keeps orbits from resonating.
SAMPLERS: dict[str, Sampler] = {"HMC": ChEES(), "NUTS": NUTS()}


class Published(NamedTuple):
    """A row of the chapter's Table 1: a P100, 64 chains, tuned before."""

    what: str
    seconds: float
    ess_per_second: float


PUBLISHED = (Published("HMC", 2.4, 10_017.0), Published("NUTS", 4.3, 3_731.0))
CAVEAT = (
    "Published: one P100 GPU, 64 chains, tuned before. Which data set the chapter used, and which effective sample "
    "size, could not be confirmed; the re-implementation that is public has these data."
)


def measure(
    model: Model,
    *,
    max_chains: int | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Measure a model on all local devices, and on the CPU where they are others.

    Seconds are those of sampling: 64 chains have been tuned before, and everything is compiled.

    Args:
        model: the founding posterior.
        max_chains: the most chains; by default 16,384, and 4,096 on a CPU.
        seed: of all draws.
        tell: told what is going on.

    Returns:
        A record (`shoal.bench.record`) whose rows have the rate of the worst of x and x² of all parameters and that of
        the mean over parameters.
    """
    backend = jax.default_backend()
    most = max_chains or MOST_CHAINS.get(backend, CHAINS[-1])
    chains = [number for number in CHAINS if number <= most]
    rows = []
    with kept_programs():
        for what, sampler in SAMPLERS.items():
            tell(f"{what}: warmup")
            tuning, starts = tuned(model, sampler, chains[-1], seed)
            for number in chains:
                tell(f"{what}: {number:,} chains")
                rows.append(row(model, what, tuning, starts[:number], seed))
    if backend != "cpu":
        tell("the same on the CPU")
        try:
            rows += on_cpu(seed, max_chains)
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            tell(f"the CPU is left out: {cause(error)}")
    settings = {"target": model.name, "dim": model.dim, "warmup": WARMUP, "precision": "float32", "chains": chains}
    settings["repeats"] = REPEATS
    published = [row._asdict() for row in PUBLISHED]
    return record("chapter", seed, settings, rows, published=published, caveat=CAVEAT)


def tuned(model: Model, sampler: Sampler, chains: int, seed: int) -> tuple[PyTree, np.ndarray]:
    """The tuning that 64 chains find, and draws of theirs for so many chains to begin at, the last ones first."""
    draws = -(-chains // TABLE)
    result = sample(
        model, num_chains=TABLE, num_warmup=WARMUP, num_samples=draws, sampler=sampler, seed=seed, progress_bar=False
    )
    tuning = tuning_from_arrays(result.tuning, sampler.tuning(model.dim, np.float32))
    starts = model.unconstrain({name: np.asarray(result.draws[name]) for name in model.parameter_names})
    return tuning, np.swapaxes(starts, 0, 1)[::-1].reshape(-1, model.dim)[:chains].astype(np.float32)


def row(model: Model, what: str, tuning: PyTree, starts: np.ndarray, seed: int) -> dict[str, Any]:
    """Seconds and effective draws of as many chains as there are starts."""
    chains, kernel = len(starts), SAMPLERS[what].kernel()
    sweeps = min(MOST, max(FEWEST, DRAWS // chains)) // kernel.draws_per_sweep
    placement = Placement.of(chains)
    draw = sampling(model.target(np.float32), kernel, tuning, starts, placement, sweeps, seed + 1)
    kept, took = draw(0), []  # compiles
    for _ in range(REPEATS):
        began = time.perf_counter()
        kept = draw(sweeps)
        took.append(time.perf_counter() - began)
    seconds = float(np.median(took))
    values = {name: by_chain(kept["values"][name], placement) for name in model.parameter_names}
    worst, mean = effective(values)
    gradients = by_chain(kept["stats"]["n_steps"], placement).sum(dtype=np.int64)
    return {
        "what": what,
        "backend": jax.default_backend(),
        "chains": chains,
        "rate": worst / seconds,
        "unit": "effective draws/s",
        "seconds": seconds,
        "draws": sweeps * kernel.draws_per_sweep,
        "ess_worst": worst,
        "ess_mean": mean,
        "mean_rate": mean / seconds,
        "gradients_per_second": int(gradients) / seconds,
    }


def by_chain(kept: Any, placement: Placement) -> np.ndarray:
    """`[draw, row, *shape]` on the device to `[chain, draw, *shape]`."""
    return np.swapaxes(np.asarray(kept)[:, placement.rows], 0, 1)


def effective(values: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Effective draws of `[chain, draw, *shape]`: the fewest over x and x² of all numbers, and the mean over x."""
    both = []
    for power in (1, 2):
        rows = [np.asarray(value, np.float64) ** power for value in values.values()]
        both.append(np.concatenate([(ess_replicated if len(r) >= SPREAD else ess_mean)(r).ravel() for r in rows]))
    return float(np.min(both)), float(both[0].mean())


def on_cpu(seed: int, max_chains: int | None) -> list[dict[str, Any]]:
    """The rows of a process of its own, since one has one backend."""
    words = [sys.executable, "-m", "shoal", "bench", "chapter", "--json", "--seed", str(seed)]
    words += ["--max-chains", str(max_chains)] if max_chains else []
    there = {**os.environ, "JAX_PLATFORMS": "cpu", VARIABLE: str(cores())}
    made = subprocess.run(words, env=there, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(made.stdout)["rows"]
