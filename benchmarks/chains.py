"""What more chains buy: effective draws per second of `auto` on the founding posterior, by the number of chains.

    python benchmarks/chains.py [--chains 128 1024 ...] [--seeds 0 1] [--tile N] [--out benchmarks/results/chains.json]

Every cell is one call of `shoal.sample(load("breast_cancer"), num_chains=..., num_samples=...)` from a cold start, on
all the devices that JAX sees. With more chains each makes fewer draws, but no fewer than `LEAST_DRAWS`. Seconds are
those that the result reports; effective draws are the smallest over x and x² by ArviZ, of the parameters as the model
has them and of the unconstrained coordinates. The first call of a process also pays for what JAX starts up with, so a
small run goes ahead of the first cell.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import jax
import numpy as np

import shoal
from shoal.cores import cores

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

DRAWS, LEAST_DRAWS = 64_000, 50


def measured(chains: int, seed: int, tile: int | None) -> dict[str, float | bool]:
    """One run: seconds, gradients, effective draws, and the verdict."""
    from benchmarks.panel.measures import smallest_ess

    model = shoal.examples.load("breast_cancer")
    draws = max(LEAST_DRAWS, DRAWS // chains)
    result = shoal.sample(model, num_chains=chains, num_samples=draws, seed=seed, tile=tile, progress_bar=False)
    values = [np.asarray(result.draws[name]).reshape(chains, draws, -1) for name in model.parameter_names]
    inner = model.unconstrain({name: np.asarray(result.draws[name]) for name in model.parameter_names})
    seconds, gradients = result.timing, result.gradients
    return {
        "chains": chains,
        "seed": seed,
        "draws": draws,
        "compile": seconds.compile,
        "warmup": seconds.warmup,
        "sampling": seconds.sampling,
        "warmup_gradients": gradients.warmup,
        "sampling_gradients": gradients.sampling,
        "gradients_per_second": gradients.sampling / seconds.sampling,
        "ess": smallest_ess(np.concatenate(values, axis=-1)),
        "ess_unconstrained": smallest_ess(inner),
        "converged": result.converged,
    }


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chains", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tile", type=int)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    shoal.sample(shoal.examples.load("eight_schools"), num_samples=10, progress_bar=False)
    print(
        f"{'chains':>7} {'draws':>6} {'compile s':>10} {'warmup s':>9} {'sampling s':>11} {'gradients/s':>12} "
        f"{'ESS':>9} {'ESS/s sampling':>15} {'ESS/s in all':>13}  converged"
    )
    rows = []
    for seed in arguments.seeds:
        for chains in arguments.chains:
            row = measured(chains, seed, arguments.tile)
            rows.append(row)
            everything = row["compile"] + row["warmup"] + row["sampling"]
            print(
                f"{chains:7d} {row['draws']:6d} {row['compile']:10.1f} {row['warmup']:9.2f} {row['sampling']:11.2f} "
                f"{row['gradients_per_second']:12,.0f} {row['ess']:9,.0f} {row['ess'] / row['sampling']:15,.0f} "
                f"{row['ess'] / everything:13,.0f}  {'yes' if row['converged'] else 'no'}",
                flush=True,
            )
            if arguments.out:
                write(rows, arguments.tile, arguments.out)


def write(rows: list[dict], tile: int | None, out: Path) -> None:
    """Rows, and what they were made on."""
    device = jax.local_devices()[0]
    about = {
        "target": "breast_cancer, 61 dimensions, float32",
        "machine": f"{platform.machine()}, {jax.local_device_count()} x {device.device_kind} ({device.platform})",
        "cores": cores(),
        "tile": tile,
        "versions": {"shoal": shoal.__version__, "jax": jax.__version__, "python": platform.python_version()},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**about, "rows": rows}, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
