"""Whether the memory of a run grows with its length: resident bytes of runs of different lengths.

    python benchmarks/memory.py [--rounds 7] [--draws 1000 20000] [--moments 250 2500]
        [--out benchmarks/results/memory.json]

A normal distribution of 61 coordinates, one leapfrog step for a draw: next to nothing is computed. 512 chains write
their draws to disk as fast as it can take them, 125 kB each. 4,096 chains keep moments (keep="moments"), with and
without a directory; a draw of theirs is a megabyte. Every run is a process of its own, which ends when it has sampled,
those with moments when they have been judged and summarised; the last one of these compiles its programs. Linux keeps
the most that a process had in memory meanwhile; the picture, a PNG beside the figures, shows what it has ten times a
second. Programs of all others come from the cache, which short runs fill first. What is the most depends on how buffers
come to lie side by side: medians of some rounds are compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

CHAINS, DIM, MANY_CHAINS = 512, 61, 4096
# What a process with moments may have beyond the import, in bytes.
LIMIT = 200e6
CODE = """
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import shoal
import shoal.drawing


def most():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")  # from now on
    return int(line.split()[1]) * 1024


def timed(*arguments, drawn=shoal.drawing._drawn):
    print("before", most(), flush=True)
    found = drawn(*arguments)
    print("sampling", most(), flush=True)
    return found if asked.get("keep") else os._exit(0)


shoal.drawing._drawn = timed
shoal.Model, jax.devices()
print("import", most(), flush=True)
model = shoal.Model(params={{"x": shoal.real({dim})}}, log_density=lambda p: -0.5 * jnp.sum(p["x"] ** 2))
asked = {{"num_chains": {chains}, "num_samples": {draws}, "sampler": shoal.HMC(step_size=1.0, num_steps=1), **{kept}}}
result = shoal.sample(model, progress_bar=False, **asked)
result.findings, result.table
print("verdict", most(), flush=True)
os._exit(0)
"""


def resident(process: int) -> int | None:
    """Bytes that a process has in memory; None where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024
    except (OSError, StopIteration):
        return None


def measured(chains: int, draws: int, out: Path | None, cold: bool = False, **kept: str) -> dict[str, Any]:
    """One run: the most bytes by phase, and what was resident after so many seconds."""
    asked = kept | ({} if out is None else {"out": str(out)})
    code = CODE.format(dim=DIM, chains=chains, draws=draws, kept=asked)
    environment = os.environ | ({"SHOAL_COMPILE_CACHE": "off"} if cold else {})
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    began, rows = time.perf_counter(), []
    while process.poll() is None:
        if (now := resident(process.pid)) is not None:
            rows.append((round(time.perf_counter() - began, 1), now))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"the run of {draws} draws ended with {process.returncode}")
    assert process.stdout is not None
    most = {phase: int(size) for phase, size in map(str.split, process.stdout.read().splitlines())}
    kind = f"{kept.get('keep', 'all draws')}, {'in memory' if out is None else 'to disk'}{', compiled' if cold else ''}"
    told = ", ".join(f"{phase} {size / 1e6:.0f} MB" for phase, size in most.items())
    print(f"{chains:,} chains, {draws:,} draws, {kind}: at most {told}", flush=True)
    return {"chains": chains, "draws": draws, "on_disk": out is not None, "cold": cold, "most": most, "resident": rows}


def beyond_import(run: dict[str, Any]) -> int:
    """The most bytes of a run beyond what its process had after the import."""
    return max(size for phase, size in run["most"].items() if phase != "import") - run["most"]["import"]


def picture(runs: list[dict[str, Any]], moments: list[dict[str, Any]], path: Path) -> None:
    """Resident memory against time, a line for every run, with what was the most while sampling."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True)
    for run, colour in zip(runs, ("#1f77b4", "#d95f02", "#555555"), strict=False):
        label = f"{run['draws']:,} draws of each chain, {run['draws'] * CHAINS * DIM * 4 / 1e9:.2f} GB"
        left.plot(*in_gigabytes(run), color=colour, label=label)
        left.axhline(run["most"]["sampling"] / 1e9, color=colour, linewidth=0.8, linestyle=":")
    left.set_title(f"{CHAINS} chains, all draws to disk; dotted: the most while sampling", fontsize=9)
    for run, colour in zip(moments, ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#555555"), strict=False):
        label = f"{run['draws']:,} draws{', to disk' if run['on_disk'] else ''}{', compiled' if run['cold'] else ''}"
        right.plot(*in_gigabytes(run), color=colour, label=f"{label}: {beyond_import(run) / 1e6:.0f} MB")
    bound = (max(run["most"]["import"] for run in moments) + LIMIT) / 1e9
    right.axhline(bound, color="#555555", linewidth=0.8, linestyle=":")
    right.set_title(f'{MANY_CHAINS:,} chains, keep="moments"; dotted: 200 MB above the import', fontsize=9)
    for axes in (left, right):
        axes.set(xlabel="seconds since the process began", ylim=(0, None))
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    left.set_ylabel("resident memory, GB")
    drawn.suptitle(f"{DIM} parameters; beside the names on the right: the most above the import", fontsize=9)
    drawn.savefig(path, dpi=130)


def in_gigabytes(run: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Seconds and gigabytes of a run."""
    seconds, sizes = zip(*run["resident"], strict=True)
    return list(seconds), [size / 1e9 for size in sizes]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--draws", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--moments", type=int, nargs="+", default=[250, 2500])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs, moments = [], []
    with tempfile.TemporaryDirectory() as folder:
        measured(CHAINS, 20, Path(folder) / "first")
        for number in range(arguments.rounds):
            for draws in arguments.draws:
                runs.append(measured(CHAINS, draws, Path(folder) / f"all-{number}-{draws}"))
        measured(MANY_CHAINS, 20, None, keep="moments")
        for number, draws in enumerate(arguments.moments):
            moments.append(measured(MANY_CHAINS, draws, None, keep="moments"))
            moments.append(measured(MANY_CHAINS, draws, Path(folder) / f"moments-{number}", keep="moments"))
        moments.append(measured(MANY_CHAINS, arguments.moments[0], Path(folder) / "cold", cold=True, keep="moments"))
    sampling = lambda draws: statistics.median(run["most"]["sampling"] for run in runs if run["draws"] == draws)
    first, last = sampling(arguments.draws[0]), sampling(arguments.draws[-1])
    print(f"while sampling, {last / first:.3f} times as much for {arguments.draws[-1] / arguments.draws[0]:g} times")
    print(f"moments: at most {max(map(beyond_import, moments)) / 1e6:.0f} MB above the import")
    if arguments.out:
        found = {"chains": CHAINS, "dim": DIM, "runs": runs, "moments": moments}
        found["versions"] = {name: version(name) for name in ("jax", "zarr", "numpy")}
        arguments.out.write_text(json.dumps(found) + "\n")
        picture(runs[: len(arguments.draws)], moments, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
