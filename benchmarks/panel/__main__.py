"""Command line of the panel: run what is not there yet, one cell at a time, and print or render the tables."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from shoal.cores import VARIABLE

from . import store
from .targets import TARGETS

# A process that has not ended after this many times its limit is ended: a cell watches its limit itself, and only
# one that hangs without working gets here.
PATIENCE = 10.0
# What is run when nothing is asked for.
SEEDS = {"ours": range(10), "peers": range(3)}


def main() -> None:
    """Read the command line and do what it says."""
    from .samplers import OURS, SAMPLERS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.panel", description=__doc__)
    parser.add_argument("--targets", nargs="+", default=["*"], help="names or patterns; all by default")
    parser.add_argument("--samplers", nargs="+", default=["*"], help="names or patterns; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 to 9 for Shoal's and 0 to 2 for peers by default")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds of a cell")
    parser.add_argument("--again", action="store_true", help="run cells that are there already")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--table", action="store_true", help="print the rows that are there, and run nothing")
    parser.add_argument("--render", action="store_true", help="write docs/panel.md and its figures, and run nothing")
    arguments = parser.parse_args()
    targets = chosen(TARGETS, arguments.targets, "target")
    samplers = chosen(SAMPLERS, arguments.samplers, "sampler")
    if arguments.list:
        listing(targets, samplers)
    elif arguments.render:
        from .render import render

        render()
    elif arguments.table:
        table(targets, samplers)
    else:
        for target, sampler, seed in cells(targets, samplers, arguments.seeds, OURS):
            if arguments.again or str(seed) not in store.read(target, sampler)["rows"]:
                made = run(target, sampler, seed, arguments.limit)
                store.write(target, sampler, seed, made)
                print(line(target, sampler, seed, made), flush=True)


def chosen(known: Any, patterns: Sequence[str], what: str) -> list[str]:
    """The names that match, in the order of the tables."""
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in known):
            raise SystemExit(f"no {what} is called {pattern!r}; there are {', '.join(known)}")
    return [name for name in known if any(fnmatch(name, pattern) for pattern in patterns)]


def cells(
    targets: list[str], samplers: list[str], seeds: list[int] | None, ours: Any
) -> Iterator[tuple[str, str, int]]:
    """Target, sampler and seed: all samplers of a target before the next one, a seed at a time."""
    for seed in seeds or sorted({*SEEDS["ours"], *SEEDS["peers"]}):
        for target in targets:
            for sampler in samplers:
                if seeds or seed in SEEDS["ours" if sampler in ours else "peers"]:
                    yield target, sampler, seed


def run(target: str, sampler: str, seed: int, limit: float) -> dict[str, Any]:
    """A cell in its own process: a crash or a hang is a row."""
    package = __package__ or "panel"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        command = [sys.executable, "-m", f"{package}.cell", target, sampler, str(seed), str(limit), str(file)]
        root = Path(__file__).parents[len(package.split("."))]
        # Shoal has JAX show a device for every core; peers get the one that JAX has by default.
        variables = dict(os.environ) if sampler.startswith("shoal") else {**os.environ, VARIABLE: "1"}
        began = time.perf_counter()
        try:
            ended = subprocess.run(
                command, cwd=root, env=variables, capture_output=True, text=True, timeout=PATIENCE * limit
            )
        except subprocess.TimeoutExpired:
            made: dict[str, Any] = {"status": "timeout", "why": f"no result after {PATIENCE * limit:.0f} s"}
        else:
            if file.exists():
                made = json.loads(file.read_text(encoding="utf-8"))
            else:
                words = (ended.stderr.strip().splitlines() or ["no words"])[-1]
                made = {"status": "crash", "why": f"exit status {ended.returncode}: {words}"[:300]}
        made.setdefault("total_seconds", round(time.perf_counter() - began, 1))
    return {**made, "limit": limit, "machine": machine(), "date": time.strftime("%Y-%m-%d")}


def machine() -> str:
    """What it ran on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()} CPU, {cores} cores"


def listing(targets: list[str], samplers: list[str]) -> None:
    """Targets and samplers, and how many rows there are."""
    for name in targets:
        target = TARGETS[name]
        reason = f" ({target.reason})" if target.reason else ""
        print(f"{name:62} {target.dim:4d} {target.family:12} {target.precision}{reason}")
    print()
    for sampler in samplers:
        rows = sum(len(store.read(target, sampler)["rows"]) for target in targets)
        print(f"{sampler:30} {rows} rows")


def table(targets: list[str], samplers: list[str]) -> None:
    """Every row, a line each."""
    for target in targets:
        for sampler in samplers:
            for seed, row in store.read(target, sampler)["rows"].items():
                print(line(target, sampler, int(seed), row))


def line(target: str, sampler: str, seed: int, row: dict[str, Any]) -> str:
    """A row in words."""
    start = f"{target[:40]:40} {sampler:26} {seed:2d} {row['total_seconds']:6.0f} s"
    if row["status"] != "done":
        return f"{start} {row['status']}: {row.get('why', '')[:80]}"
    words = "SILENT FAILURE" if row["silent_failure"] else "right" if row["right"] else "wrong"
    said = "converged" if row["converged"] else "not converged"
    numbers = f"ess {row['ess']} r_hat {row['r_hat']} cost_4000 {row['cost_4000']} bias {row['to_small_bias']}"
    return f"{start} {words}, {said}; worst {row['worst_error']} {row['worst_quantity']}; {numbers} {row['findings']}"


if __name__ == "__main__":
    main()
