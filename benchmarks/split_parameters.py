"""What devices gain that share parameters: memory of each, and gradients a second of all, beside chains that are split.

    JAX_NUM_CPU_DEVICES=8 python benchmarks/split_parameters.py [--hidden 4096] [--rows 200] [--repeats 3]
                                                                [--out benchmarks/results]

Sampling of the network `neural_network` by HMC with 64 chains and 20 steps. Memory is what XLA says of the compiled
program: arguments and intermediate results of one device. More devices than cores of a CPU tell of memory alone.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.bench import record
from shoal.bench.turns import timed
from shoal.examples import neural_network
from shoal.kernels import HMC
from shoal.placing import in_parts, placement_of, targets_of
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import advance, begin, enter, lowered, sweeps_as_array

CHAINS, STEPS, DRAWS, SEED = 64, 20, 1, 0


def measured(mesh: dict[str, int], hidden: int, rows: int, repeats: int) -> dict[str, float | int]:
    """Memory and rate with one mesh."""
    placement = placement_of(CHAINS, None, mesh, {})
    model = in_parts(neural_network.model(num_hidden=hidden, num_rows=rows), mesh.get("parameters", 1))
    _, target = targets_of(model, np.float32, False, placement)
    kernel = HMC()
    # So small a step that nothing is rejected.
    tuning = eqx.tree_at(
        lambda t: (t.step_size, t.num_steps),
        kernel.tuning(model.dim, np.float32),
        (jnp.float32(1e-3), jnp.int32(STEPS)),
    )
    program, start = Program(target, kernel), np.zeros((CHAINS, model.dim), np.float32)
    run = enter(program, begin(program, placement, root_key(SEED), start, tuning), placement, DRAWS)
    memory = lowered(program, run, placement, DRAWS).compile().memory_analysis()
    work = lambda draws: jax.block_until_ready(advance(program, run, sweeps_as_array(draws), placement, DRAWS))
    work(1)
    seconds = np.median([timed(work, DRAWS) for _ in range(repeats)])
    return {
        "coordinates": model.layout.num_free,
        "rate": CHAINS * DRAWS * STEPS / float(seconds),
        "intermediate_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
    }


def main() -> None:
    """Measure chains on all devices, one device, and parameters on all; print the table, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    devices, found = len(jax.local_devices()), []
    meshes = {"chains on all": {"chains": devices}, "one device": {"chains": 1}}
    meshes["parameters on all"] = {"chains": 1, "parameters": devices}
    for what, mesh in meshes.items():
        row = measured(mesh, arguments.hidden, arguments.rows, arguments.repeats)
        found.append({"what": what, "chains": CHAINS, "unit": "gradients/s", **row})
        sizes = (row[name] / 1e6 for name in ("intermediate_bytes", "argument_bytes"))
        print(f"{what:>18}: {row['rate']:8,.0f} gradients/s, MB of a device: " + ", ".join(f"{s:.1f}" for s in sizes))
    if arguments.out:
        settings = {"hidden": arguments.hidden, "rows": arguments.rows, "devices": devices, "steps": STEPS}
        name = f"split_parameters_{devices}"
        record.write(record.record(name, SEED, settings, found), record.place(str(arguments.out)))


if __name__ == "__main__":
    main()
