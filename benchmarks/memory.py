"""Whether the memory of a run on disk grows with its length: resident bytes of two runs of different lengths.

    python benchmarks/memory.py [--draws 1000 20000] [--out benchmarks/results/memory.json]

A normal distribution of 61 coordinates, 512 chains, one leapfrog step for a draw: next to nothing is computed, so that
draws come as fast as a disk can take them, 125 kB each. Every run is a process of its own, which ends when it has
sampled. Linux keeps the most that it had in memory meanwhile; the picture, a PNG beside the figures, shows what it has
ten times a second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

CHAINS, DIM = 512, 61
CODE = """
import os
import sys
from pathlib import Path

import jax.numpy as jnp
import shoal
import shoal.drawing


def most():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")  # from now on
    return int(line.split()[1]) * 1024


def timed(*arguments, drawn=shoal.drawing._drawn):
    print("before", most(), flush=True)
    drawn(*arguments)
    print("sampling", most(), flush=True)
    os._exit(0)


shoal.drawing._drawn = timed
model = shoal.Model(params={{"x": shoal.real({dim})}}, log_density=lambda p: -0.5 * jnp.sum(p["x"] ** 2))
asked = {{"num_chains": {chains}, "num_samples": {draws}, "sampler": shoal.HMC(step_size=1.0, num_steps=1)}}
shoal.sample(model, out=sys.argv[1], progress_bar=False, **asked)
"""


def resident(process: int) -> int | None:
    """Bytes that a process has in memory; None where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024
    except (OSError, StopIteration):
        return None


def measured(draws: int, out: Path) -> dict[str, Any]:
    """One run: the most bytes by phase, and what was resident after so many seconds."""
    code = CODE.format(dim=DIM, chains=CHAINS, draws=draws)
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)
    began, rows = time.perf_counter(), []
    while process.poll() is None:
        if (now := resident(process.pid)) is not None:
            rows.append((round(time.perf_counter() - began, 1), now))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"the run of {draws} draws ended with {process.returncode}")
    assert process.stdout is not None
    most = {phase: int(size) for phase, size in map(str.split, process.stdout.read().splitlines())}
    return {"draws": draws, "most": most, "resident": rows}


def picture(runs: list[dict[str, Any]], path: Path) -> None:
    """Resident memory against time, a line for every run, with what was the most while sampling."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes = drawn.subplots()
    for run, colour in zip(runs, ("#1f77b4", "#d95f02", "#555555"), strict=False):
        seconds, sizes = zip(*run["resident"], strict=True)
        size = run["draws"] * CHAINS * DIM * 4 / 1e9
        label = f"{run['draws']:,} draws of each chain, {size:.2f} GB"
        axes.plot(seconds, [one / 1e9 for one in sizes], color=colour, label=label)
        axes.axhline(run["most"]["sampling"] / 1e9, color=colour, linewidth=0.8, linestyle=":")
    axes.set(xlabel="seconds since the process began", ylabel="resident memory, GB", ylim=(0, None))
    axes.set_title(f"{CHAINS} chains, {DIM} parameters, to disk; dotted: the most while sampling", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    drawn.savefig(path, dpi=130)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = []
    for draws in arguments.draws:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measured(draws, Path(folder) / "run"))
        told = ", ".join(f"{phase} {size / 1e6:.0f} MB" for phase, size in runs[-1]["most"].items())
        print(f"{draws:,} draws: at most {told}", flush=True)
    first, last = (run["most"]["sampling"] for run in (runs[0], runs[-1]))
    print(f"while sampling, {last / first:.3f} times as much for {arguments.draws[-1] / arguments.draws[0]:g} times")
    if arguments.out:
        found = {"chains": CHAINS, "dim": DIM, "runs": runs}
        found["versions"] = {name: version(name) for name in ("jax", "zarr", "numpy")}
        arguments.out.write_text(json.dumps(found) + "\n")
        picture(runs, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
