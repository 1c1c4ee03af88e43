"""Effective draws per second on the founding posterior, from a cold start, of Shoal and its peers, side by side.

    python benchmarks/founding.py [--samplers NAME ...] [--seeds 0 1 2] [--out benchmarks/results/founding.json]

Each sampler runs `breast_cancer` as in the panel (`benchmarks/panel`), in a process of its own and with all cores, one
after another; seeds in the outer loop, so that a machine whose speed drifts does so for all. The rate is that of a run
to 4,000 effective draws: 4,000 over the seconds of warmup and 4,000 effective draws' worth of sampling, with and
without the seconds of compiling. Effective draws are the smallest over x and x², by ArviZ, once of the parameters as
the model has them and once of the unconstrained coordinates, whose heavy left tails are slower. Medians over seeds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from shoal.compile_cache import VARIABLE as CACHE
from shoal.cores import VARIABLE

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

SAMPLERS = ("shoal_auto", "blackjax_chees_64", "blackjax_nuts", "numpyro_nuts", "nutpie", "nutpie_low_rank")
GOAL, LIMIT = 4_000, 120.0
SPACES = ("parameters", "unconstrained")


def measured(name: str, seed: int) -> dict[str, float]:
    """One run: seconds, and effective draws in both spaces."""
    from benchmarks.panel.measures import smallest_ess
    from benchmarks.panel.outcome import Problem
    from benchmarks.panel.samplers import SAMPLERS as KNOWN
    from benchmarks.panel.targets import TARGETS

    problem = Problem(TARGETS["breast_cancer"], seed, LIMIT)
    outcome = KNOWN[name](problem)
    values = problem.model.constrain(outcome.position)
    parameters = np.concatenate([np.asarray(v).reshape(*v.shape[:2], -1) for v in values.values()], axis=-1)
    sizes = smallest_ess(parameters), smallest_ess(outcome.position)
    return {**outcome.seconds._asdict(), **dict(zip(SPACES, sizes, strict=True))}


def apart(name: str, seed: int) -> dict[str, float] | None:
    """`measured` in a process of its own; None where it failed.

    Shoal has JAX show a device for every core; peers get the one that JAX has by default. Nobody takes the
    compiled programs of an earlier process.
    """
    command = [sys.executable, __file__, "--one", name, str(seed)]
    variables = {**os.environ, CACHE: "off", **({} if name.startswith("shoal") else {VARIABLE: "1"})}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if ended.returncode:
        print(f"{name}, seed {seed}: {ended.stderr.strip().splitlines()[-1]}", flush=True)
        return None
    return json.loads(ended.stdout.splitlines()[-1])


def rates(run: dict[str, float]) -> dict[str, float]:
    """Effective draws per second of a run to 4,000, in both spaces, without and with compiling."""
    found = {}
    for space in SPACES:
        seconds = run["warmup"] + GOAL * run["sampling"] / max(run[space], 1e-9)
        found[space] = GOAL / seconds
        found[f"{space}, with compiling"] = GOAL / (seconds + run["compile"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=FOLDER / "results" / "founding.json")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help="one run, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.one[0], int(arguments.one[1]))))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.samplers}
    for seed in arguments.seeds:
        for name in arguments.samplers:
            if run := apart(name, seed):
                runs[name].append(run)
                shown = ", ".join(f"{key} {value:,.1f}" for key, value in (run | rates(run)).items())
                print(f"{name}, seed {seed}: {shown}", flush=True)
        keep(runs, arguments.out)
    table = medians(runs)
    peers = [name for name in table if not name.startswith("shoal")]
    print()
    for key in next(iter(table.values())):
        best = max(peers, key=lambda name, key=key: table[name][key], default=None)
        cells = "  ".join(f"{name} {row[key]:,.0f}" for name, row in table.items())
        ratio = f"   {table['shoal_auto'][key] / table[best][key]:.1f} times the best peer's" if best else ""
        print(f"{key:>30}: {cells}{ratio}")


def medians(runs: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The rates of every sampler that ended a run, over its seeds."""
    return {
        name: {key: statistics.median(rates(run)[key] for run in made) for key in rates(made[0])}
        for name, made in runs.items()
        if made
    }


def keep(runs: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Write what there is: after every seed, so that one that is cut short leaves the others."""
    packages = ("jax", "blackjax", "numpyro", "nutpie", "arviz-stats")
    said = {"cores": os.cpu_count(), "versions": {name: version(name) for name in packages}}
    kept = {**said, "limit": LIMIT, "rates": medians(runs), "runs": runs}
    path.write_text(json.dumps(kept, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
