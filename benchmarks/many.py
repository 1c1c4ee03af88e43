"""Many posteriors at once: seconds for 200 data sets of eight schools, against a warm loop and fresh processes.

    python benchmarks/many.py [--sets 200] [--processes 3] [--out benchmarks/results/many.json]

The data sets are the effects of the eight schools drawn anew with their standard errors. All arms have the same
sampler (`chees`), chains, draws and precision:

- `many`: `shoal.sample_many`, once in a fresh process with importing and compiling, and three times warm;
- `loop`: `shoal.sample(model.with_data(...))` data set by data set in one process that has compiled its programs;
- `fresh`: a process for each data set. A few are measured, with programs kept by earlier processes and without, and
  200 times their median is what all would take.

Seconds are of the wall clock and, beside them, of the processor, which other work on the machine does not lengthen.
The verdict, which a result makes when it is first asked for, is timed on its own: it is the same for all arms.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SEED, CHAINS, WARMUP, DRAWS = 0, 64, 500, 200
SETTINGS: dict[str, Any] = {
    "sampler": "chees", "num_chains": CHAINS, "num_warmup": WARMUP, "num_samples": DRAWS, "progress_bar": False,
}  # fmt: skip
ONE = "import sys; sys.path.insert(0, {!r}); import many; many.one({})"
ALL = "import sys; sys.path.insert(0, {!r}); import many; many.all_of({})"


def data_sets(count: int) -> tuple[Any, np.ndarray]:
    """The model, and the effects of each data set."""
    import shoal

    model = shoal.examples.load("eight_schools")
    rng = np.random.default_rng(SEED)
    return model, rng.normal(model.data["y"], model.data["sigma"], (count, 8))


def one(number: int) -> None:
    """What a fresh process does for one data set."""
    import shoal

    model, effects = data_sets(number + 1)
    shoal.sample(model.with_data(y=effects[number]), seed=number, **SETTINGS)


def all_of(count: int) -> None:
    """What a fresh process does for all."""
    import shoal

    model, effects = data_sets(count)
    shoal.sample_many(model, {"y": effects}, seed=SEED, **SETTINGS)


class Clock:
    """Seconds of the wall and of the processor, of this process and of those that it waited for."""

    def __enter__(self) -> "Clock":
        self.began = time.perf_counter(), self.processor()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.began[0], self.processor() - self.began[1]

    def processor(self) -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(part.ru_utime + part.ru_stime for part in used)

    def seconds(self) -> dict[str, float]:
        return {"wall": round(self.wall, 3), "cpu": round(self.cpu, 3)}


def process(code: str, cache: str) -> dict[str, float]:
    """Seconds of a fresh process."""
    environment = {**os.environ, "SHOAL_COMPILE_CACHE": cache}
    with Clock() as clock:
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return clock.seconds()


def middle(every: list[dict[str, float]]) -> dict[str, float]:
    """The median of each kind of seconds."""
    return {kind: round(statistics.median(seconds[kind] for seconds in every), 3) for kind in ("wall", "cpu")}


def measured(count: int, processes: int) -> dict[str, Any]:
    """All arms."""
    import shoal

    os.environ["SHOAL_COMPILE_CACHE"] = "off"
    here = str(Path(__file__).parent)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as kept:
        process(ONE.format(here, 0), kept)
        found["fresh_kept_programs"] = [process(ONE.format(here, i), kept) for i in range(processes)]
    found["fresh"] = [process(ONE.format(here, i), "off") for i in range(processes)]
    found["many_fresh"] = process(ALL.format(here, count), "off")
    model, effects = data_sets(count)
    shoal.sample(model.with_data(y=effects[0]), seed=0, **SETTINGS)
    shoal.sample_many(model, {"y": effects[:2]}, seed=SEED, **SETTINGS)
    found["many"], found["loop"] = [], []
    for part in np.array_split(np.arange(count), 3):
        # Turn by turn, so that other work on the machine meets both.
        with Clock() as clock:
            results = shoal.sample_many(model, {"y": effects}, seed=SEED, **SETTINGS)
        found["many"].append(clock.seconds())
        with Clock() as clock:
            for number in part:
                shoal.sample(model.with_data(y=effects[number]), seed=int(number), **SETTINGS)
        found["loop"].append({kind: seconds * count / len(part) for kind, seconds in clock.seconds().items()})
        print({arm: every[-1] for arm, every in found.items() if isinstance(every, list)}, flush=True)
    with Clock() as clock:
        converged = int(results.converged.sum())
    found["verdicts"] = clock.seconds()
    return found | {"converged": converged, "lockstep": round(results.lockstep, 3)}


def ratios(found: dict[str, Any], count: int) -> dict[str, float]:
    """How many times faster, by the wall clock and by the processor."""
    many, loop, fresh, kept = (middle(found[arm]) for arm in ("many", "loop", "fresh", "fresh_kept_programs"))
    said = {}
    for kind in ("wall", "cpu"):
        said[f"loop_over_many_{kind}"] = loop[kind] / many[kind]
        verdicts = found["verdicts"][kind]
        said[f"loop_over_many_with_verdicts_{kind}"] = (loop[kind] + verdicts) / (many[kind] + verdicts)
        said[f"fresh_over_many_fresh_{kind}"] = count * fresh[kind] / found["many_fresh"][kind]
        said[f"fresh_kept_programs_over_many_fresh_{kind}"] = count * kept[kind] / found["many_fresh"][kind]
    return {name: round(ratio, 2) for name, ratio in said.items()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    found = measured(arguments.sets, arguments.processes)
    told = {
        "target": "eight_schools",
        "data_sets": arguments.sets,
        "settings": SETTINGS,
        "seed": SEED,
        "seconds": found,
        "ratios": ratios(found, arguments.sets),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(before, 1), round(os.getloadavg()[0], 1)],
        "versions": {name: version(name) for name in ("jax", "numpyro", "numpy")} | {"python": sys.version.split()[0]},
    }
    print(json.dumps(told["ratios"], indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
