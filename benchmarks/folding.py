"""What the statistics of a run cost: seconds of sampling with and without them, by turns.

    python -m benchmarks.folding [--chains 128 4096] [--steps 8 64] [--out benchmarks/results/folding.json]

HMC of so many leapfrog steps on the founding posterior, where `auto` takes 50 to 250. "nothing" folds nothing, "usual"
what every run by `auto` does (health, moments and reach), "precise" also what a run rests on that ends by itself. Kinds
take turns, each for about a second. Ratios are of medians over rounds.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

import shoal
from shoal.mesh import Placement
from shoal.program import KeepDraws, Program
from shoal.randomness import root_key
from shoal.request import checked
from shoal.run import advance, begin, compile_phase, sweeps_as_array
from shoal.session import PRECISION
from shoal.statistics import ChainMeans, Health, Moments, Reach

KINDS = ("nothing", "usual", "precise")
SECONDS, CAPACITY = 1.0, 64


def program(model: shoal.Model, target: object, kernel: object, kind: str) -> Program:
    """What is done of one kind."""
    folds = {} if kind == "nothing" else {"health": Health(), "moments": Moments(), "reach": Reach()}
    if kind == "precise":
        values = eqx.filter_eval_shape(target.constrained, jax.ShapeDtypeStruct((1, model.dim), np.float32))
        numbers = sum(values[name].size for name in model.parameter_names)
        folds[PRECISION] = ChainMeans(model.parameter_names, np.zeros(numbers + 1 + model.dim, np.float32))
    return Program(target, kernel, statistics=folds, keep=KeepDraws())


def measured(chains: int, steps: int, rounds: int) -> dict[str, float]:
    """Seconds of a sweep, by kind."""
    model = shoal.examples.load("breast_cancer")
    recipe = shoal.HMC(step_size=0.03, num_steps=steps)
    request = checked(model, chains, 0, 1, recipe, None, "float32")
    target, placement = model.target(np.float32), Placement.of(chains)
    rng = np.random.default_rng(0)
    position = rng.uniform(-0.5, 0.5, (chains, model.dim)).astype(np.float32)
    tuning = request.sampler.frozen(request.sampler.tuning(model.dim, np.float32))
    runs, sweeps, seconds = {}, 1, {kind: [] for kind in KINDS}
    programs = {kind: program(model, target, request.sampler.kernel(), kind) for kind in KINDS}
    for kind in KINDS:
        runs[kind] = begin(programs[kind], placement, root_key(0), position, tuning)
        compile_phase(programs[kind], runs[kind], placement, CAPACITY)
    for number in range(rounds + 1):
        for kind in KINDS if number % 2 else reversed(KINDS):
            began = time.perf_counter()
            runs[kind], _ = jax.block_until_ready(
                advance(programs[kind], runs[kind], sweeps_as_array(sweeps), placement, CAPACITY)
            )
            took = (time.perf_counter() - began) / sweeps
            if number:  # the first round only says how many sweeps a second has
                seconds[kind].append(took)
        if not number:
            sweeps = int(np.clip(SECONDS / took, 1, CAPACITY))
    return {kind: statistics.median(times) for kind, times in seconds.items()}


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chains", type=int, nargs="+", default=[128, 4096])
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for chains, steps in itertools.product(arguments.chains, arguments.steps):
        seconds = measured(chains, steps, arguments.rounds)
        row = {
            "chains": chains,
            "steps": steps,
            **{f"{kind}_ms": round(1e3 * took, 3) for kind, took in seconds.items()},
        }
        row |= {f"{kind}_ratio": round(seconds[kind] / seconds["nothing"], 4) for kind in KINDS[1:]}
        rows.append(row)
        print(row, flush=True)
    if arguments.out:
        made = {"machine": f"{platform.machine()}, {jax.local_device_count()} devices of {jax.default_backend()}"}
        made |= {name: version(name) for name in ("shoal", "jax", "numpy")} | {"python": sys.version.split()[0]}
        arguments.out.write_text(json.dumps({"made_with": made, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
