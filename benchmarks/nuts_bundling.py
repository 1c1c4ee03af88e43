"""What waiting costs NUTS: Shoal's bundles of draws against BlackJAX's NUTS under `vmap`.

    python benchmarks/nuts_bundling.py [--draws 500] [--chains 100] [--out benchmarks/results/nuts_bundling.json]

The target is that of Dance et al. (2025, arXiv:2503.17405, section 7): in 100 dimensions, the density of
N(0, S) times that of an equal mixture of N(10, S) and N(-10, S), S having ones on its diagonal and 0.99 elsewhere; this
is a mixture of N(5, S / 2) and N(-5, S / 2). Steps of 0.01 * 10 ** 0.5, no metric, at most 10 doublings. All begin at
the same exact draws.

The measure is the number of draws per evaluation of the gradient for all chains at once: under `vmap` a draw takes as
many as the largest tree of all chains; in Shoal a bundle takes as many as the chain with the most leaves in it. It does
not depend on the machine. Seconds, compilation not counted, are printed beside it.

BlackJAX does not look at a half of a trajectory together with the nearest leaf of the other half, as Stan and Shoal do.
Here that makes its trees heavy-tailed: a few miss the turn of the fast directions and go on to that of the slow one. So
what bundles are worth is said in three ways: by arithmetic, for the very trees that BlackJAX made; for Shoal without
those checks, whose trees are about of the same sizes (BlackJAX also takes half of the outer momenta off their sum); and
for Shoal as it is, whose draws are others. What the longer trees buy is the last column, the mean squared jump along
the slow direction, in units of its variance, per leaf.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import shoal
from shoal.dynamics.metrics import Diagonal
from shoal.dynamics.trees import Checkpoints
from shoal.ensemble import Transition
from shoal.kernels import NUTS
from shoal.kernels.bundle import Machine
from shoal.mesh import Placement
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import advance, begin, enter
from shoal.statistics import Health
from shoal.target import Target

DIM, CORRELATION, CENTRE = 100, 0.99, 5.0
STEP_SIZE = 0.01 * 10**0.5
BUNDLES = (1, 10, 100)


class Measured(NamedTuple):
    """Seconds, iterations of the loop over leaves, and by draw and chain: leaves, place in the slow direction."""

    seconds: float | None
    iterations: int
    leaves: np.ndarray
    slow: np.ndarray


class BlindToHalves(Checkpoints):
    """Without the checks across halves."""

    def half_turned(self, first, second):
        return jnp.zeros_like(first)


class BlindMachine(Machine):
    """The loop without the checks across halves."""

    def first(self, ensemble):
        at, *rest = super().first(ensemble)
        blind = BlindToHalves(at.checkpoints.leaves, at.checkpoints.earlier, at.checkpoints.first_half)
        return eqx.tree_at(lambda at: at.checkpoints, at, blind), *rest


class BlindNUTS(NUTS):
    """NUTS without the checks across halves."""

    def machine(self, plans, tuning, target):
        right = super().machine(plans, tuning, target)
        return BlindMachine(right.flow, right.plans, right.max_tree_depth)


def covariance() -> np.ndarray:
    """Of each of the two components."""
    return 0.5 * ((1.0 - CORRELATION) * np.eye(DIM) + CORRELATION)


def log_density(x, precision):
    quadratic = lambda off: -0.5 * off @ precision @ off
    return jnp.logaddexp(quadratic(x - CENTRE), quadratic(x + CENTRE))


def exact_draws(chains: int) -> np.ndarray:
    """One for each chain."""
    rng = np.random.default_rng(0)
    centre = CENTRE * rng.choice([-1.0, 1.0], (chains, 1))
    return (centre + rng.normal(size=(chains, DIM)) @ np.linalg.cholesky(covariance()).T).astype(np.float32)


def slow(position):
    """Along the diagonal, in standard deviations of a component."""
    scale = np.sqrt(covariance().sum())
    return position.sum(-1) * (1.0 / scale)


def keep(transition: Transition, target: Target):
    return transition.info.num_steps, slow(transition.after.position)


def shoal_nuts(kernel: NUTS, precision, start: np.ndarray, draws: int) -> Measured:
    """All chains in one tile."""
    chains = len(start)
    placement = Placement.of(chains, chains, jax.local_devices()[:1])
    target = Target(log_density, lambda x, data: {}, precision, DIM)
    program = Program(target, kernel, statistics={"health": Health()}, keep=keep)
    tuning = kernel.Tuning(jnp.float32(STEP_SIZE), Diagonal(jnp.ones(DIM, jnp.float32)))
    run = enter(program, begin(program, placement, root_key(0), start, tuning), placement, draws)
    sweeps = draws // kernel.draws_per_sweep
    jax.block_until_ready(advance(program, run, jnp.int32(0), placement, sweeps))
    began = time.perf_counter()
    run, kept = jax.block_until_ready(advance(program, run, jnp.int32(sweeps), placement, sweeps))
    seconds = time.perf_counter() - began
    return Measured(seconds, int(run.statistics["health"].paid[0]), *map(np.asarray, kept))


def blackjax_nuts(precision, start: np.ndarray, draws: int) -> Measured:
    """A draw has as many iterations as the largest tree has leaves."""
    nuts = blackjax.nuts(lambda x: log_density(x, precision), STEP_SIZE, jnp.ones(DIM, jnp.float32))

    @jax.jit
    def sampled(states, keys):
        def draw(states, key):
            states, info = jax.vmap(nuts.step)(jax.random.split(key, len(start)), states)
            return states, (info.num_integration_steps, slow(states.position))

        return jax.lax.scan(draw, states, keys)

    states = jax.vmap(nuts.init)(jnp.asarray(start))
    keys = jax.random.split(jax.random.key(1), draws)
    compiled = sampled.lower(states, keys).compile()
    began = time.perf_counter()
    _, kept = jax.block_until_ready(compiled(states, keys))
    seconds = time.perf_counter() - began
    leaves, place = map(np.asarray, kept)
    return Measured(seconds, int(leaves.max(1).sum()), leaves, place)


def bundled(measured: Measured, bundle: int) -> Measured:
    """The same trees, had they been made in bundles: what each costs is known."""
    chains = measured.leaves.shape[1]
    iterations = int(measured.leaves.reshape(-1, bundle, chains).sum(1).max(1).sum())
    return measured._replace(seconds=None, iterations=iterations)


def row(name: str, measured: Measured, against: Measured) -> dict[str, float | int | str | None]:
    """What is reported of one sampler."""
    draws, chains = measured.leaves.shape
    leaves = measured.leaves
    return {
        "sampler": name,
        "draws": draws,
        "chains": chains,
        "iterations": measured.iterations,
        "draws_per_iteration": draws * chains / measured.iterations,
        "ratio": against.iterations / measured.iterations,
        "lockstep_efficiency": float(leaves.sum() / (measured.iterations * chains)),
        "seconds": measured.seconds,
        "mean_leaves": float(leaves.mean()),
        "below_20_leaves": float((leaves < 20).mean()),
        "above_100_leaves": float((leaves > 100).mean()),
        "above_1000_leaves": float((leaves > 1000).mean()),
        "largest_tree": int(leaves.max()),
        "slow_jump_per_leaf": float(np.square(np.diff(measured.slow, axis=0)).mean() / leaves[1:].mean()),
    }


def measure(chains: int, draws: int) -> list[dict[str, float | int | str | None]]:
    """BlackJAX first: the others are compared with it."""
    precision = jnp.asarray(np.linalg.inv(covariance()), jnp.float32)
    start = exact_draws(chains)
    against = blackjax_nuts(precision, start, draws)
    rows = [row("BlackJAX, vmap", against, against)]
    for bundle in BUNDLES[1:]:
        rows.append(row(f"its trees in bundles of {bundle}", bundled(against, bundle), against))
    for name, kernel in (("Shoal, no halves", BlindNUTS), ("Shoal", NUTS)):
        for bundle in BUNDLES:
            measured = shoal_nuts(kernel(draws_per_sweep=bundle), precision, start, draws)
            rows.append(row(f"{name}, bundles of {bundle}", measured, against))
    return rows


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.chains, arguments.draws)
    print(f"{'':34} draws per iteration  ratio  lockstep  seconds  leaves   < 20  > 100  largest   jump per leaf")
    for entry in rows:
        seconds = "" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
        print(
            f"{entry['sampler']:34} {entry['draws_per_iteration']:19.3f} {entry['ratio']:6.2f} "
            f"{entry['lockstep_efficiency']:9.1%} {seconds:>8} {entry['mean_leaves']:7.1f} "
            f"{entry['below_20_leaves']:6.1%} {entry['above_100_leaves']:6.2%} {entry['largest_tree']:8d} "
            f"{entry['slow_jump_per_leaf']:15.2e}"
        )
    if arguments.out:
        device = jax.local_devices()[0]
        about = {
            "target": "mixture of two correlated Gaussians, 100 dimensions, float32",
            "step_size": STEP_SIZE,
            "machine": f"{platform.machine()}, {device.platform} ({device.device_kind}), one JAX device",
            "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
            "versions": {
                "shoal": shoal.__version__,
                "blackjax": blackjax.__version__,
                "jax": jax.__version__,
                "python": platform.python_version(),
            },
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
