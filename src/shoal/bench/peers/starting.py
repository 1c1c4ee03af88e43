"""From the start of a process to 1,000 effective draws that have converged, with programs to be compiled or kept.

Each run is a process of its own: the interpreter, imports, compiling, warmup, sampling. The draws are enough when the
worst bulk effective sample size over x and x² of every parameter is 1,000, by ArviZ. Shoal is called with its defaults
and ends by itself, with its verdict; peers are looked at from time to time, while their clock stands still, and have
converged when no rank-normalised R-hat is 1.01 or more. Their clock also stands still while the model is built.

Everybody's programs are kept by JAX's cache, its thresholds at nothing: a run in a new folder, then one in the same.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shoal.bench.peers.rounds import FEW
from shoal.compile_cache import VARIABLE as PROGRAMS
from shoal.cores import VARIABLE as DEVICES
from shoal.cores import cores

SHOAL = "shoal"
SAMPLERS = (
    SHOAL,
    "blackjax_chees",
    "blackjax_nuts",
    "blackjax_nuts_pmap",
    "numpyro_nuts",
    "numpyro_nuts_pmap",
    "nutpie",
)
CACHES = ("empty", "filled")
# A process has as long as this for what its clock leaves out.
PATIENCE = 2.0
# What a shell may say of devices, of kept programs and of bytecode, by how it begins; each cell says it for itself.
CHOSEN = ("PYTHONDONTWRITEBYTECODE", "XLA_FLAGS", "JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", DEVICES)
# Of the runs that nothing is told of, which only leave Python's bytecode behind.
MOMENT = 0.1


class Plan(NamedTuple):
    """What is measured.

    Attributes:
        posteriors: by name.
        samplers: by name.
        repeats: of every cell; seeds and samplers take turns.
        limit: seconds of a cell.
        seed: of the first repeat.
    """

    posteriors: Sequence[str]
    samplers: Sequence[str] = SAMPLERS
    repeats: int = 3
    limit: float = 180.0
    seed: int = 0


def measured(plan: Plan, say: Callable[[str], None] = lambda words: None) -> list[dict[str, Any]]:
    """A row for every run: `posterior`, `sampler`, `cache`, `seed`, `status`, and what else `.cell` says."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for sampler in plan.samplers:
            say(f"{sampler}: a first run, which does not count")
            cell(sampler, plan.posteriors[-1], plan.seed, MOMENT, environment(sampler, folder, "first"), plan.limit)
        for seed in range(plan.seed, plan.seed + plan.repeats):
            for posterior in plan.posteriors:
                for sampler in plan.samplers:
                    around = environment(sampler, folder, f"{sampler}-{posterior}-{seed}")
                    for cache in CACHES:
                        found = cell(sampler, posterior, seed, plan.limit, around)
                        shown = f"{found['seconds']:.1f} s" if found["seconds"] else found["why"]
                        say(f"{posterior}, {sampler}, cache {cache}, seed {seed}: {found['status']}, {shown}")
                        rows.append({"posterior": posterior, "sampler": sampler, "cache": cache, "seed": seed, **found})
                        if found["status"] == "missing":
                            break
    return rows


def environment(sampler: str, folder: Path, programs: str) -> dict[str, str]:
    """Of a process that keeps bytecode and programs in a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(CHOSEN)}
    kept["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    if sampler == SHOAL:
        return {**kept, PROGRAMS: str(folder / programs)}
    return {
        **kept,
        PROGRAMS: "off",
        DEVICES: str(FEW if sampler.endswith("_pmap") else 1),
        "JAX_COMPILATION_CACHE_DIR": str(folder / programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def cell(
    sampler: str, posterior: str, seed: int, limit: float, around: Mapping[str, str], most: float | None = None
) -> dict[str, Any]:
    """One run.

    Args:
        sampler: by name.
        posterior: by name.
        seed: of starts and draws.
        limit: seconds that count.
        around: the environment.
        most: seconds after which the process is ended all the same; by default a few times `limit`.
    """
    words = [sys.executable, "-m", "shoal.bench.peers.cell", sampler, posterior, str(seed), str(limit)]
    patience = PATIENCE * limit + 60.0 if most is None else most
    nothing = {
        "seconds": None,
        "cpu_seconds": None,
        "ess": None,
        "r_hat": None,
        "chains": None,
        "draws": None,
        "stages": {},
    }
    try:
        # Asked for here: what the system takes to make a process counts.
        words.append(repr(time.monotonic()))
        ended = subprocess.run(words, env=around, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        return {"status": "not reached", "why": f"no draws that were enough in {limit:.0f} s", **nothing}
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"]
        return {"status": "failed", "why": lines[-1][:300], **nothing}
    found = nothing | json.loads(ended.stdout.splitlines()[-1])
    if found["seconds"] is not None and found["seconds"] > limit:
        found |= {"status": "not reached", "why": f"not in {limit:.0f} s"}
    return found


def compared(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every posterior and cache the medians by sampler, and Shoal's time as a part of the best peer's.

    A sampler counts that reached the goal every time. The best peer is the one with the smallest median; the ratio is
    the median of those within a repeat.

    Returns:
        Dictionaries with `posterior`, `cache`, `seconds` (by sampler; None where it was not reached), `peer` and
        `ratio`, which are None where there is none.
    """
    made = []
    for posterior, cache in dict.fromkeys((row["posterior"], row["cache"]) for row in rows):
        here = [row for row in rows if (row["posterior"], row["cache"]) == (posterior, cache)]
        runs = {
            name: [row for row in here if row["sampler"] == name] for name in dict.fromkeys(r["sampler"] for r in here)
        }
        runs = {name: some for name, some in runs.items() if some[0]["status"] != "missing"}
        whole = {name: all(row["status"] == "reached" for row in some) for name, some in runs.items()}
        seconds = {name: statistics.median(r["seconds"] for r in some) for name, some in runs.items() if whole[name]}
        peers = [name for name in seconds if name != SHOAL]
        best = min(peers, key=lambda name: seconds[name], default=None)
        ratios = []
        if best is not None and SHOAL in seconds:
            pairs = zip(runs[SHOAL], runs[best], strict=True)
            ratios = [ours["seconds"] / theirs["seconds"] for ours, theirs in pairs]
        made.append(
            {
                "posterior": posterior,
                "cache": cache,
                "seconds": {name: seconds.get(name) for name in runs},
                "peer": best,
                "ratio": statistics.median(ratios) if ratios else None,
                "ratios": ratios,
            }
        )
    return made


def conditions() -> dict[str, Any]:
    """What the runs had: cores of the machine, and the chains of peers that run few."""
    return {"cores": cores(), "few_chains": FEW}
