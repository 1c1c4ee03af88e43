"""Where the time of one run goes, from the start of its process to its verdict, without kept programs and with.

    python benchmarks/profiling.py [--target breast_cancer] [--rounds 3] [--out benchmarks/results]

A process of its own for each round and cache: `shoal.sample` with its defaults, which ends by itself. Segments are the
interpreter, the imports, the model, compiling (tracing, lowering, XLA or reading what is kept, on all cores), warmup,
sampling, and the rest: starts, looks at the draws, and the verdict. Medians over rounds; writes `profiling.json` and
the figure `profiling.png`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEGMENTS = ("interpreter", "imports", "model", "compiling", "warmup", "sampling", "the rest")
SEED = 0
# What a shell may say of devices and kept programs, by how it begins.
CHOSEN = ("XLA_FLAGS", "JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "JAX_NUM_CPU_DEVICES")


def child(target: str, spawned: float) -> None:
    """One run, in this process."""
    began = time.time()
    import shoal
    from shoal.sampling import sample

    imported = time.time()
    model = shoal.examples.load(target)
    loaded = time.time()
    result = sample(model, seed=SEED, progress_bar=False)
    converged = result.converged
    ended = time.time()
    timing = result.timing
    known = timing.compile + timing.warmup + timing.sampling
    seconds = [
        began - spawned,
        imported - began,
        loaded - imported,
        timing.compile,
        timing.warmup,
        timing.sampling,
        ended - loaded - known,
    ]
    print(json.dumps({"seconds": dict(zip(SEGMENTS, seconds, strict=True)), "converged": converged}))


def run(target: str, programs: Path) -> dict[str, float]:
    """Seconds by segment of a process that keeps its programs there."""
    command = [sys.executable, __file__, "--child", target, str(time.time())]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(CHOSEN)}
    environment = {**kept, "SHOAL_COMPILE_CACHE": str(programs)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


def draw(found: dict[str, dict[str, float]], target: str, machine: str, path: Path) -> None:
    """A bar for each kind of start."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    colours = ("#c5ccd3", "#9aa5b0", "#6f7c88", "#d96b14", "#e3a35c", "#2a78c4", "#7fb2e0")
    figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
    for row, seconds in enumerate(found.values()):
        left = 0.0
        for segment, colour in zip(SEGMENTS, colours, strict=True):
            axes.barh(row, seconds[segment], left=left, color=colour, label=segment if row == 0 else None, height=0.6)
            if seconds[segment] > 0.45:
                axes.text(left + seconds[segment] / 2, row, f"{seconds[segment]:.1f}", ha="center", va="center", size=9)
            left += seconds[segment]
        axes.text(left + 0.1, row, f"{left:.1f} s", va="center", size=10)
    axes.set_yticks(range(len(found)), [f"{kind} cache" for kind in found])
    axes.invert_yaxis()
    axes.set_xlabel("seconds from the start of the process")
    axes.margins(x=0.08)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=len(SEGMENTS), frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=8.5)
    figure.suptitle(f"One run of {target} to its verdict ({machine})", fontsize=11)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, print the table, write it and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", default="breast_cancer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], float(arguments.child[1]))
        return
    taken: dict[str, list[dict[str, float]]] = {"empty": [], "filled": []}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as programs:
            for runs in taken.values():
                runs.append(run(arguments.target, Path(programs)))
    found = {
        kind: {name: statistics.median(seconds[name] for seconds in runs) for name in SEGMENTS}
        for kind, runs in taken.items()
    }
    print(f"{'seconds':12}" + "".join(f"{kind + ' cache':>14}" for kind in found))
    for name in SEGMENTS:
        print(f"{name:12}" + "".join(f"{seconds[name]:14.2f}" for seconds in found.values()))
    print(f"{'in all':12}" + "".join(f"{sum(seconds.values()):14.2f}" for seconds in found.values()))
    if arguments.out:
        from shoal.bench import record
        from shoal.cores import use_cores

        use_cores()
        rows = [
            {"what": f"{kind} cache, {name}", "chains": None, "rate": seconds[name], "unit": "seconds"}
            for kind, seconds in found.items()
            for name in SEGMENTS
        ]
        settings = {"target": arguments.target, "rounds": arguments.rounds}
        made = record.record("profiling", SEED, settings, rows)
        record.write(made, record.place(str(arguments.out)))
        machine = made["machine"]
        words = f"{machine['cpu']}, {machine['cores']} cores"
        draw(found, arguments.target, words, arguments.out / "profiling.png")


if __name__ == "__main__":
    main()
