"""Gradients per second of Shoal's sampling against bare loops over the same log density, side by side.

    python benchmarks/throughput.py [--chains 128 1024] [--repeats 9] [--out benchmarks/results/throughput.json]

Three programs evaluate the founding posterior (`breast_cancer`) at the same number of chains, in turns, so that
a machine whose speed drifts gives the same drift to all three:

- shoal: whole HMC draws of 20 leapfrog steps, momenta, acceptance, statistics and kept draws included;
- bare gradient: a jitted loop over `vmap(grad(log_density))` that does nothing else;
- value and gradient: a jitted leapfrog of 20 steps that asks for value and gradient at each, no acceptance.

Twice: for the log density that ships, whose likelihood has a derivative of its own that makes the value cheap,
and for the same one written with NumPyro's `Bernoulli`, as a user would. One device, and on a CPU one core
(`taskset -c 0` on Linux): the bare loops otherwise run large matrix products on several cores, and Shoal uses one
device per core. Ratios are medians over repeats of ratios within a repeat.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from shoal.bench.draws import STEPS, whole_draws
from shoal.bench.machine import about
from shoal.bench.peers.posteriors import load
from shoal.mesh import Placement

STEP_SIZE = 0.02
SECONDS = 1.0  # of work in one measurement


def targets():
    """The founding posterior with the likelihood that ships, and with NumPyro's."""
    names = {"shipped": "breast_cancer", "numpyro": "breast_cancer_bernoulli"}
    return {likelihood: load(name).target(np.float32) for likelihood, name in names.items()}


def shoal_draws(target, position):
    """A function from a number of draws to the gradients they took, on one device."""
    return whole_draws(target, position, Placement.of(len(position), devices=jax.local_devices()[:1]))


def bare_gradients(target, position):
    """The same for a loop over the gradient alone, all chains at once."""

    @jax.jit
    def loop(position, data, sweeps):
        gradient = jax.vmap(jax.grad(target.log_density), in_axes=(0, None))
        return jax.lax.fori_loop(0, sweeps, lambda _, x: x + 1e-6 * gradient(x, data), position)

    def work(draws: int) -> int:
        jax.block_until_ready(loop(position, target.data, jnp.int32(draws * STEPS)))
        return draws * STEPS * len(position)

    return work


def values_and_gradients(target, position):
    """The same for leapfrog steps that ask for the value, too."""

    @jax.jit
    def loop(position, data, draws):
        both = jax.vmap(jax.value_and_grad(target.log_density), in_axes=(0, None))

        def leapfrog(_, state):
            x, p, _value, g = state
            p = p + 0.5 * STEP_SIZE * g
            x = x + STEP_SIZE * p
            value, g = both(x, data)
            return x, p + 0.5 * STEP_SIZE * g, value, g

        def draw(_, x):
            value, g = both(x, data)
            x, _, value, _ = jax.lax.fori_loop(0, STEPS - 1, leapfrog, (x, jnp.ones_like(x), value, g))
            return jnp.clip(x + 0 * value[:, None], -3.0, 3.0)

        return jax.lax.fori_loop(0, draws, draw, position)

    def work(draws: int) -> int:
        jax.block_until_ready(loop(position, target.data, jnp.int32(draws)))
        return draws * STEPS * len(position)

    return work


def rate(work, draws: int) -> float:
    began = time.perf_counter()
    return work(draws) / (time.perf_counter() - began)


def enough_draws(work) -> int:
    """Draws that take about `SECONDS`."""
    work(1)
    return int(np.clip(SECONDS * rate(work, 2) / work(1), 2, 500))


def measure(name: str, target, chains: int, repeats: int) -> dict[str, float | str]:
    """Median rates and ratios at a number of chains."""
    position = np.random.default_rng(0).normal(0.0, 0.3, (chains, target.dim)).astype(np.float32)
    works = [make(target, position) for make in (shoal_draws, bare_gradients, values_and_gradients)]
    draws = enough_draws(works[0])
    for work in works:
        work(draws)
    rows = np.array([[rate(work, draws) for work in works] for _ in range(repeats)])
    return {
        "likelihood": name,
        "chains": chains,
        "draws": draws,
        "shoal": statistics.median(rows[:, 0]),
        "bare_gradient": statistics.median(rows[:, 1]),
        "value_and_gradient": statistics.median(rows[:, 2]),
        "to_bare_gradient": statistics.median(rows[:, 0] / rows[:, 1]),
        "to_value_and_gradient": statistics.median(rows[:, 0] / rows[:, 2]),
    }


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chains", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print("thousand gradients per second, one device; ratios of Shoal to the loop")
    print(
        f"{'likelihood':10} {'chains':>7} {'shoal':>8} {'gradient':>9} {'ratio':>6} {'value+gradient':>15} {'ratio':>6}"
    )
    rows = []
    for (name, target), chains in itertools.product(targets().items(), arguments.chains):
        row = measure(name, target, chains, arguments.repeats)
        rows.append(row)
        print(
            f"{name:10} {chains:7d} {row['shoal'] / 1e3:8.0f} {row['bare_gradient'] / 1e3:9.0f} "
            f"{row['to_bare_gradient']:6.2f} {row['value_and_gradient'] / 1e3:15.0f} "
            f"{row['to_value_and_gradient']:6.2f}",
            flush=True,
        )
    if arguments.out:
        settings = {"target": "breast_cancer, 61 dimensions, float32, one device", "leapfrog_steps": STEPS}
        about_it = {**about(0), "settings": {**settings, "repeats": arguments.repeats}}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({**about_it, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
