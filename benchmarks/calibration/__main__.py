"""Calibrate runs that end by themselves.

    python -m benchmarks.calibration [--seeds 40] [--few 8] [--out benchmarks/results/calibration.json]

Stops: every law of `cases.STOPS` with 16, 64, 256 and 1,024 chains and `shoal.Until()`, that is 1,000 effective draws
of every mean and mean square; `--few` seeds of the founding posterior. Intervals are the reported mean and 1.96 times
its reported error, beside it the error as ArviZ has it. A false stop is one quantity of one run whose squared error
is above nine times the promised one. The oracle knows how many draws 1,000 effective ones take: from the errors of
all runs of a law, of the quantity that takes most in every second run, measured in the others. What a run costs is
its gradients, warmup included.

Adversaries: `cases.ADVERSARIES` with as many chains, at most 1,000 draws of each. A wrong answer that is certified is
off by more than five of its errors and a fifth of a standard deviation, in a run that says it has converged.

`python -m benchmarks.calibration --render` writes the tables and the figure of the docs from the file.
"""

import argparse
import json
import platform
import re
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from shoal.compiling import forget_programs

from .cases import ADVERSARIES, STOPS
from .stops import FALSE, WITHIN, run

RESULTS = Path(__file__).parents[1] / "results" / "calibration.json"
CHAINS = (16, 64, 256, 1024)
DEAR = ("breast_cancer",)
MOST = 1000
# Of all laws together.
COVERED, MOST_FALSE = (0.93, 0.97), 0.01
LESS = shoal.Until(max_samples=MOST)


def main() -> None:
    """Measure, print the tables, write them; ends with an error where word was not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--few", type=int, default=8)
    parser.add_argument("--adversary-seeds", type=int, default=5)
    parser.add_argument("--chains", type=int, nargs="+", default=CHAINS)
    parser.add_argument("--laws", nargs="*", default=list(STOPS))
    parser.add_argument("--adversaries", nargs="*", default=list(ADVERSARIES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--render", action="store_true")
    arguments = parser.parse_args()
    if arguments.render:
        from .render import render

        render(json.loads(RESULTS.read_text()))
        return
    made: dict[str, Any] = {"made_with": made_with(), "stops": {}, "adversaries": {}}
    for name in arguments.laws:
        seeds = range(arguments.few if name in DEAR else arguments.seeds)
        made["stops"][name] = stops(name, arguments.chains, seeds)
        forget_programs()  # The programs of so many laws are more than a process can hold.
        print(name, json.dumps({k: v for k, v in made["stops"][name].items() if k != "runs"}), flush=True)
        write(made, arguments.out)
    for name in arguments.adversaries:
        made["adversaries"][name] = against(name, arguments.chains, range(arguments.adversary_seeds))
        forget_programs()
        print(name, json.dumps(made["adversaries"][name]["by_chains"]), flush=True)
        write(made, arguments.out)
    total = overall(made["stops"].values())
    print(json.dumps(total, indent=1))
    silent = [name for name, found in made["adversaries"].items() if found["covers"] and certified_wrong(found)]
    kept = not total or (COVERED[0] <= total["covered"] <= COVERED[1] and total["false"] <= MOST_FALSE)
    sys.exit(0 if kept and not silent else f"Word was not kept: {total}; certified and wrong: {silent}")


def certified_wrong(found: dict[str, Any]) -> int:
    """Of an adversary's runs."""
    return sum(row["certified_wrong"] for row in found["by_chains"])


def write(made: dict[str, Any], out: Path | None) -> None:
    """What there is so far."""
    if out is not None:
        text = json.dumps(made | {"overall": overall(made["stops"].values())}, indent=1)
        a_line_each = re.sub(r'\{\s+"chains".*?\}', lambda row: " ".join(row[0].split()), text, flags=re.DOTALL)
        out.write_text(a_line_each + "\n")


def stops(name: str, chains: Iterable[int], seeds: Iterable[int]) -> dict[str, Any]:
    """Runs of a law, and what they say together."""
    case, rows = STOPS[name], []
    model = case.target.model()
    for count in chains:
        for seed in seeds:
            rows.append(run(case, model, count, seed, shoal.Until()))
    ended = [row for row in rows if row["ended"]]
    needed = oracle(ended)
    runs = [
        {
            "chains": row["chains"],
            "seed": row["seed"],
            "draws": row["draws"],
            "ended": row["ended"],
            "converged": row["converged"],
            "cost": cost(row, needed),
            "z": round(row["z"], 2),
        }
        for row in rows
    ]
    return {"effective_share": needed, **counted(ended), "not_ended": len(rows) - len(ended), "runs": runs}


def counted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Intervals and false stops of some runs."""
    inside = {kind: np.concatenate([within(row, kind, WITHIN) for row in rows]) for kind in ("mcse", "mcse_arviz")}
    beyond = np.concatenate([~within(row, "mcse", FALSE) for row in rows])
    return {
        "stops": len(rows),
        "intervals": len(beyond),
        "covered": round(float(inside["mcse"].mean()), 4),
        "covered_arviz": round(float(inside["mcse_arviz"].mean()), 4),
        "false": round(float(beyond.mean()), 5),
    }


def within(row: dict[str, Any], kind: str, errors: float) -> np.ndarray:
    """Of each quantity, whether the answer is in the interval of so many errors."""
    known = np.isfinite(row["errors"]) & (row[kind] > 0)
    return (np.abs(row["errors"]) <= errors * np.hypot(row[kind], row["reference"]))[known]


def oracle(rows: list[dict[str, Any]]) -> float:
    """Effective draws of the quantity that has fewest, for each draw: from how far answers are off."""
    squares = np.array([row["errors"] ** 2 * row["draws"] * row["chains"] for row in rows])
    worst = int(np.nanargmax(np.nanmean(squares[::2], axis=0)))
    return float(1 / np.nanmean(squares[1::2, worst]))


def cost(row: dict[str, Any], share: float) -> list[float]:
    """Gradients of a run by those of the oracle, warmup included, and of sampling alone."""
    warmup, sampling = row["gradients"]
    needed = int(np.ceil(1000 / (share * row["chains"])))
    enough = sampling * needed / row["draws"]
    return [round((warmup + sampling) / (warmup + enough), 3), round(sampling / enough, 3)]


def against(name: str, chains: Iterable[int], seeds: Iterable[int]) -> dict[str, Any]:
    """Runs against an adversary."""
    case, by_chains = ADVERSARIES[name], []
    model = case.target.model()
    for count in chains:
        rows = []
        for seed in seeds:
            began = time.perf_counter()
            try:
                row = run(case, model, count, seed, LESS)
            except ValueError as error:  # refused, in words
                row = {"converged": False, "wrong": False, "findings": [str(error)[:80]], "draws": 0}
            rows.append(row | {"took": time.perf_counter() - began})
        certified = [row["converged"] for row in rows]
        silent = [row["converged"] and row["wrong"] for row in rows]
        kinds = sorted({kind for row in rows for kind in row["findings"]})
        by_chains.append(
            {
                "chains": count,
                "runs": len(rows),
                "certified": sum(certified),
                "certified_wrong": sum(silent),
                "wrong": sum(row["wrong"] for row in rows),
                "draws": int(np.median([row["draws"] for row in rows])),
                "findings": kinds,
            }
        )
    return {"covers": case.covers, "note": case.note, "by_chains": by_chains}


def overall(laws: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Of all laws together; each interval counts once."""
    laws = list(laws)
    if not laws:
        return {}
    intervals = sum(law["intervals"] for law in laws)
    mean = lambda key: round(sum(law[key] * law["intervals"] for law in laws) / intervals, 5)
    costs = np.array([run["cost"] for law in laws for run in law["runs"] if run["ended"]])
    return {
        "stops": sum(law["stops"] for law in laws),
        "not_ended": sum(law["not_ended"] for law in laws),
        "intervals": intervals,
        **{key: mean(key) for key in ("covered", "covered_arviz", "false")},
        "median_cost": round(float(np.median(costs[:, 0])), 3),
        "median_cost_of_sampling": round(float(np.median(costs[:, 1])), 3),
    }


def made_with() -> dict[str, str]:
    """Versions and the machine."""
    names = ("shoal", "jax", "numpy")
    return {name: version(name) for name in names} | {
        "python": sys.version.split()[0],
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    main()
