"""Whether what is folded while sampling says the same as ArviZ of the stored draws, over the panel.

    python benchmarks/agreement.py [--chains 128 16] [--targets arK-arK ...] [--out benchmarks/results/agreement.json]
    python benchmarks/agreement.py --replicates 8 [--targets axis_gaussian ...]
    python benchmarks/agreement.py --render

A run of each target and number of chains, by `auto`: 400 draws of each of 128 chains, whose error is the spread of
their means, and 2,000 of 16, whose error is that of stretches (lugsail batch means). Compared are the Monte Carlo error
of the mean and the effective draws of every parameter, of its square about the middle of the chains, and of the log
density: as folded in the compiled loop in single precision, and `arviz.mcse` and `arviz.ess` (`method="mean"`) of the
draws. Of each number there is

    z = log(folded / ArviZ's) / sqrt(1 / (2 f))

with f the degrees of freedom of the folded error: its own error, of normal means. ArviZ's is small beside it, but for
chains that are slow or alternate.

Where they differ by more, runs of other seeds say which is right: the spread of their means, against what each says.
"""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import arviz_stats.base
import jax
import numpy as np
from panel.targets import TARGETS, Target

import shoal
from shoal.compiling import forget_programs
from shoal.diagnostics.precision import Precision
from shoal.statistics import ChainMeans

DRAWS = {128: 400, 16: 2000}
RESULTS = Path(__file__).parent / "results" / "agreement.json"
PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"
BEGIN, END = "<!-- agreement: begin -->", "<!-- agreement: end -->"


# Of every quantity, as folded and as ArviZ has it.
Both = tuple[np.ndarray, np.ndarray]


def run(target: Target, chains: int, seed: int) -> tuple[shoal.Result, ChainMeans, Precision]:
    """A run, what folds its draws, and what that said at the end."""
    said: list[tuple[ChainMeans, Precision]] = []
    precision = ChainMeans.precision

    def noted(fold: ChainMeans, *arguments: Any) -> Precision:
        said.append((fold, precision(fold, *arguments)))
        return said[-1][1]

    endless = shoal.Until(ess=1e12, max_samples=DRAWS[chains])
    with mock.patch.object(ChainMeans, "precision", noted):
        result = shoal.sample(
            target.model(), num_chains=chains, seed=seed, precision=target.precision, progress_bar=False, until=endless
        )
    return result, *said[-1]


def errors(result: shoal.Result, fold: ChainMeans, folded: Precision) -> tuple[np.ndarray, Both, Both]:
    """The mean of every quantity of the draws, its error, and its effective draws."""
    chains, draws = result.num_chains, result.num_draws
    columns = [np.asarray(result.draws[name], float).reshape(chains, draws, -1) for name in fold.names]
    values = np.concatenate([*columns, np.asarray(result.sample_stats["lp"], float)[..., None]], axis=2)
    values -= np.asarray(fold.centre, float)[: values.shape[2]]
    values = np.concatenate([values[..., :-1], values[..., :-1] ** 2, values[..., -1:]], axis=2)
    stats, rows = arviz_stats.base.array_stats, slice(0, values.shape[2])
    with np.errstate(all="ignore"):
        mcse, ess = (
            np.atleast_1d(function(values, chain_axis=0, draw_axis=1, method="mean"))
            for function in (stats.mcse, stats.ess)
        )
    return values.mean(axis=(0, 1)), (folded.mcse[rows], mcse), (folded.ess[rows], ess)


def compared(target: Target, chains: int) -> dict[str, Any]:
    """The folded errors of a run against ArviZ's."""
    result, fold, folded = run(target, chains, 0)
    _, mcse, ess = errors(result, fold, folded)
    with np.errstate(all="ignore"):
        of_error, of_ess = np.log(mcse[0] / mcse[1]), np.log(ess[0] / ess[1])
    known = np.isfinite(of_error) & np.isfinite(of_ess)
    of_error, of_ess, by_arviz = of_error[known], of_ess[known], ess[1][known]
    z = of_error * np.sqrt(2 * folded.freedom)
    return {
        "draws": result.num_draws,
        "converged": not [one for one in result.findings if one.blocking and one.kind != "imprecise"],
        "numbers": int(known.sum()),
        "not_compared": int((~known).sum()),
        "mcse_ratio": round(float(np.exp(of_error.mean())), 4),
        "ess_ratio": round(float(np.exp(of_ess.mean())), 4),
        "ess_per_chain": round(float(np.exp(np.log(by_arviz).mean()) / chains), 1),
        "least_ess_per_chain": round(float(by_arviz.min() / chains), 2),
        "rms_z": round(float(np.sqrt((z**2).mean())), 3),
        "worst_z": round(float(z[np.abs(z).argmax()]), 2),
        "beyond_3": int((np.abs(z) > 3).sum()),
    }


def spread(target: Target, chains: int, replicates: int) -> dict[str, Any]:
    """The spread of the means of runs against the errors that they say: 1 where an error is right.

    About the middle of each run's chains there would be no common mean: squares are left out.
    """
    means, folded, by_arviz = [], [], []
    for seed in range(1, replicates + 1):
        result, fold, said = run(target, chains, seed)
        mean, mcse, _ = errors(result, fold, said)
        numbers = (len(mean) - 1) // 2
        means.append(mean[:numbers] + np.asarray(fold.centre, float)[:numbers])
        folded.append(mcse[0][:numbers])
        by_arviz.append(mcse[1][:numbers])
    true = np.var(means, axis=0, ddof=1)
    of = lambda errors: round(float(np.sqrt(np.mean(true / np.mean(np.square(errors), axis=0)))), 3)
    # Of independent numbers; those of a posterior are not quite.
    error = round(float(1 / np.sqrt(2 * (replicates - 1) * len(true))), 3)
    return {"runs": replicates, "numbers": len(true), "folded": of(folded), "arviz": of(by_arviz), "error": error}


def tables(made: dict[str, Any]) -> str:
    """In Markdown, those that had converged first; then the spread of runs."""
    head = ["target", "numbers"]
    for chains, draws in DRAWS.items():
        head += [f"{chains} × {draws:,}: folded / ArviZ's error", "rms z", "worst z"]
    lines = ["| " + " | ".join(head) + " |", "|:--|" + "--:|" * (len(head) - 1)]
    found = {(row["target"], row["chains"]): row for row in made["rows"]}
    converged = {name: all(found[name, chains]["converged"] for chains in DRAWS) for name, _ in found}
    for name in sorted(converged, key=lambda name: not converged[name]):
        cells = [_short(name) + ("" if converged[name] else " (not converged)"), f"{found[name, 16]['numbers']:,}"]
        for chains in DRAWS:
            row = found[name, chains]
            cells += [f"{row['mcse_ratio']:.2f}", f"{row['rms_z']:.2f}", f"{row['worst_z']:+.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    head = ["target", "chains", "runs", "numbers", "spread / folded error", "spread / ArviZ's error", "±"]
    lines += ["", "| " + " | ".join(head) + " |", "|:--|" + "--:|" * (len(head) - 1)]
    for row in made["spread"]:
        cells = [_short(row["target"]), row["chains"], row["runs"], row["numbers"]]
        cells += [f"{row[name]:.2f}" for name in ("folded", "arviz", "error")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _short(name: str) -> str:
    return f"`{name.partition('_missing_middle')[0]}`"


def render(made: dict[str, Any]) -> None:
    """Write the table into the page."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{PAGE} has not both of '{BEGIN}' and '{END}', between which the tables go.")
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(made)}\n\n{END}{after}")


def main() -> None:
    """Run what is asked for and not there, write each row as it is made, print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chains", type=int, nargs="+", default=list(DRAWS), choices=list(DRAWS))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS), metavar="NAME")
    parser.add_argument("--replicates", type=int, metavar="N", help="only the spread of the means of so many runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--render", action="store_true", help="only write the table of what is there")
    arguments = parser.parse_args()
    made = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": [], "spread": []}
    if arguments.render:
        render(made)
        return
    versions = {name: version(name) for name in ("shoal", "jax", "numpy", "arviz-stats")}
    machine = f"{platform.machine()}, {jax.local_device_count()} devices of {jax.default_backend()}"
    made["made_with"] = {"machine": machine, **versions, "python": sys.version.split()[0], "seed": 0}
    rows = made["spread" if arguments.replicates else "rows"]
    for chains in arguments.chains:
        for name in arguments.targets:
            if any((row["target"], row["chains"]) == (name, chains) for row in rows):
                continue
            began, target = time.perf_counter(), TARGETS[name]
            found = spread(target, chains, arguments.replicates) if arguments.replicates else compared(target, chains)
            forget_programs()  # The programs of so many targets are more than a process can hold.
            rows.append({"target": name, "chains": chains, **found})
            arguments.out.write_text(json.dumps(made, indent=1) + "\n")
            print(rows[-1], f"{time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
