"""Time and memory against the rows of the data and against the number of chains: straight lines, or not.

    python benchmarks/scaling.py [--rows 1e3 1e4 1e5 1e6 1e7] [--chains 1 4 16 64 256 1024 4096 16384] [--repeats 3]
                                 [--out benchmarks/results]

Every cell is a process of its own, so that its peak memory is its own: one call of `shoal.sample` by HMC with a step
size set by hand, without warmup, from points near the mode. Seconds are those of sampling, by the leapfrog step of all
chains: what more draws take in a longer run than in a shorter one. Medians over processes.

- rows: a logistic regression of 50 columns (`shoal.glm.bernoulli_logit`), 64 chains. The data are in a file that is
  mapped into memory, as of a user whose data barely fit.
- chains: the founding posterior (`breast_cancer`, 61 dimensions, 569 rows).

Writes `scaling.json` and the figure `scaling.png`.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COLUMNS, CHAINS, SEED = 50, 64, 0
# A cell takes about so many seconds of sampling where a step takes less.
SECONDS = 4.0
# Rows that are drawn at once.
PART = 100_000


def make_data(rows: int, folder: Path) -> None:
    """A file of covariates and one of labels."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    w = rng.normal(0.0, 0.3, COLUMNS)
    shape = (rows, COLUMNS)
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.float32, shape=shape)
    y = np.empty(rows, np.float32)
    for first in range(0, rows, PART):
        here = slice(first, min(first + PART, rows))
        x[here] = rng.standard_normal((here.stop - here.start, COLUMNS), np.float32)
        y[here] = rng.random(here.stop - here.start) < 1 / (1 + np.exp(-x[here] @ w))
    x.flush()
    np.save(folder / "y.npy", y)
    np.save(folder / "w.npy", w)


def regression(folder: Path):
    """The model of these files, and the coefficients that they were drawn with."""
    import jax.numpy as jnp
    import numpy as np

    import shoal

    data = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "y")}
    model = shoal.Model(
        params={"w": shoal.real(COLUMNS)},
        log_prior=lambda p: -0.5 * jnp.sum(jnp.square(p["w"])),
        log_likelihood=lambda p, rows: shoal.glm.bernoulli_logit(rows["y"], rows["x"], p["w"]),
        data=data,
    )
    return model, np.load(folder / "w.npy")


def cell(kind: str, amount: int, folder: Path) -> dict:
    """One measurement, in this process."""
    import numpy as np

    import shoal
    from shoal.starts import default_superchains

    if kind == "rows":
        chains, steps, step_size = CHAINS, 5, 0.2 / math.sqrt(amount)
        model, centre = regression(folder)
    else:
        chains, steps, step_size = amount, 20, 0.02
        model = shoal.examples.load("breast_cancer")
        centre = np.zeros(model.dim)
    groups = default_superchains(chains)
    noise = np.random.default_rng(SEED).normal(size=(chains, model.dim))
    # Chains of a superchain begin alike, as by default.
    start = (centre + 0.01 * step_size * noise)[np.arange(chains) * groups // chains]

    def run(draws: int):
        return shoal.sample(
            model,
            num_chains=chains,
            num_warmup=0,
            num_samples=draws,
            sampler=shoal.HMC(step_size=step_size, num_steps=steps),
            initial_positions=start,
            seed=SEED,
            keep=model.parameter_names[:1],
            progress_bar=False,
        )

    run(1)
    one, three = (run(draws).timing.sampling for draws in (1, 3))
    draws = max(1, min(2000, int(SECONDS / max((three - one) / 2, 1e-4))))
    short, long = (run(count).timing.sampling for count in (draws, 2 * draws))
    return {
        "seconds_per_step": (long - short) / (draws * steps),
        "peak_bytes": peak(),
        "data_bytes": sum(leaf.nbytes for leaf in model.data.values()),
        "chains": chains,
    }


def peak() -> int:
    """Bytes of memory that this process has had at most."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except OSError:
        # On other systems, in bytes. On Linux it would count what the parent had.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measured(kind: str, amount: int, folder: Path, repeats: int) -> dict:
    """The median of several processes."""
    command = [sys.executable, __file__, "--cell", kind, str(amount), str(folder)]
    runs = []
    for _ in range(repeats):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    middle = lambda name: statistics.median(run[name] for run in runs)
    return {
        kind: amount,
        "seconds_per_step": middle("seconds_per_step"),
        "gradients_per_second": runs[0]["chains"] / middle("seconds_per_step"),
        "peak_bytes": middle("peak_bytes"),
        "data_bytes": runs[0]["data_bytes"],
    }


def slope(rows: list[dict], by: str) -> float:
    """Of the time in log-log axes between the last two thirds of the cells."""
    late = rows[len(rows) // 3 :]
    ratio = late[-1]["seconds_per_step"] / late[0]["seconds_per_step"]
    return math.log(ratio) / math.log(late[-1][by] / late[0][by]) if len(late) > 1 and ratio > 0 else math.nan


def draw(found: dict, machine: str, path: Path) -> None:
    """Time above, memory below; rows on the left, chains on the right."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), sharex="col", layout="constrained")
    said = {"rows": f"rows of the data (64 chains, {COLUMNS} columns)", "chains": "chains (569 rows, 61 dimensions)"}
    for (above, below), kind in zip(axes.T, said, strict=True):
        rows = found[kind]
        amounts = [row[kind] for row in rows]
        above.loglog(amounts, [1e3 * row["seconds_per_step"] for row in rows], "o-", color="#2a78c4", label="measured")
        last = rows[-1]
        line = [1e3 * last["seconds_per_step"] * amount / last[kind] for amount in amounts]
        above.loglog(amounts, line, ":", color="#808a94", label=f"proportional to the {kind}")
        above.set_ylabel("milliseconds per leapfrog step\nof all chains")
        above.legend(frameon=False)
        peak, data = ([row[name] / 1e9 for row in rows] for name in ("peak_bytes", "data_bytes"))
        below.loglog(amounts, peak, "o-", color="#d96b14", label="peak of the process")
        below.loglog(amounts, data, "s--", color="#2a78c4", label="data")
        if kind == "rows":
            stated = [(row["data_bytes"] + 2e9) / 1e9 for row in rows]
            below.loglog(amounts, stated, ":", color="#808a94", label="data + 2 GB")
        below.set_ylabel("memory, GB")
        below.set_xlabel(said[kind])
        below.legend(frameon=False)
        for each in (above, below):
            each.grid(visible=True, color="#d8dde2", linewidth=0.6)
            each.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Time and memory of sampling by HMC ({machine}, float32)", fontsize=11)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, print the table, write it and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=float, nargs="*", default=[1e3, 1e4, 1e5, 1e6, 1e7])
    parser.add_argument("--chains", type=int, nargs="*", default=[4**power for power in range(8)])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        kind, amount, folder = arguments.cell
        print(json.dumps(cell(kind, int(amount), Path(folder))))
        return
    found: dict = {"rows": [], "chains": []}
    print(f"{'':8} {'amount':>10} {'ms/step':>10} {'gradients/s':>12} {'peak, MB':>9} {'data, MB':>9}")
    with tempfile.TemporaryDirectory() as temporary:
        for kind, amounts in (("rows", map(int, arguments.rows)), ("chains", arguments.chains)):
            for amount in amounts:
                folder = Path(temporary)
                if kind == "rows":
                    make_data(amount, folder)
                row = measured(kind, amount, folder, arguments.repeats)
                found[kind].append(row)
                print(
                    f"{kind:8} {amount:10,d} {1e3 * row['seconds_per_step']:10.3f} "
                    f"{row['gradients_per_second']:12,.0f} {row['peak_bytes'] / 1e6:9.0f} "
                    f"{row['data_bytes'] / 1e6:9.1f}",
                    flush=True,
                )
    for kind in found:
        if found[kind]:
            print(f"slope of the time against the {kind}, from the second third on: {slope(found[kind], kind):.2f}")
    if arguments.out:
        write(found, arguments)


def write(found: dict, arguments: argparse.Namespace) -> None:
    """Cells, what they were made on, and the figure."""
    from shoal.bench import record
    from shoal.cores import use_cores

    use_cores()
    settings = {"repeats": arguments.repeats, "columns": COLUMNS}
    rows = [
        {
            "what": f"{row['rows']:,} rows" if kind == "rows" else "breast_cancer",
            "chains": CHAINS if kind == "rows" else row["chains"],
            "rate": row["gradients_per_second"],
            "unit": "gradients/s",
            **row,
        }
        for kind, cells in found.items()
        for row in cells
    ]
    slopes = {kind: round(slope(cells, kind), 3) for kind, cells in found.items() if cells}
    made = record.record("scaling", SEED, settings, rows, slopes=slopes)
    record.write(made, record.place(str(arguments.out)))
    if all(found.values()):
        machine = made["machine"]
        draw(found, f"{machine['cpu']}, {machine['cores']} cores", arguments.out / "scaling.png")


if __name__ == "__main__":
    main()
