"""What keeping a run on disk costs: seconds of sampling the founding posterior in memory and to a directory, by turns.

    python benchmarks/writing.py [--draws 300] [--rounds 3] [--out benchmarks/results/writing.json]

Every run has 128 chains, the sampler `auto`, and the tuning of one warmup; the two kinds take turns, so that a machine
whose speed drifts does so for both. The ratio is of the medians. Beside it, what a run on disk takes up.
"""

import argparse
import json
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import shoal


def size(folder: Path) -> int:
    """Bytes in all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model = shoal.examples.load("breast_cancer")
    tuned = shoal.sample(model, num_samples=10, progress_bar=False)
    starts = {name: tuned.draws[name][:, -1] for name in tuned.parameters}
    asked = {"num_samples": arguments.draws, "tuning": tuned.tuning, "initial_positions": starts, "progress_bar": False}
    seconds: dict[str, list[float]] = {"memory": [], "disk": []}
    occupied = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            out = Path(folder) / str(number)
            seconds["memory"].append(shoal.sample(model, **asked).timing.sampling)
            seconds["disk"].append(shoal.sample(model, out=out, **asked).timing.sampling)
            occupied = size(out)
            print(f"memory {seconds['memory'][-1]:.2f} s, disk {seconds['disk'][-1]:.2f} s", flush=True)
    ratio = statistics.median(seconds["disk"]) / statistics.median(seconds["memory"])
    print(f"to a directory sampling takes {ratio:.3f} times as long; the run takes up {occupied / 1e6:.0f} MB")
    if arguments.out:
        found = {"draws": arguments.draws, "seconds": seconds, "ratio": ratio, "bytes": occupied}
        found["versions"] = {name: version(name) for name in ("jax", "zarr", "numpy")}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
