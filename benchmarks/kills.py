"""Whether a run that is killed again and again ends as one that was left alone: bit by bit, whenever it is killed.

    python benchmarks/kills.py [--kills 100] [--seed 0] [--samplers auto ...] [--out benchmarks/results/kills.json]

For every sampler a run that is left alone comes first. Then the same run is begun in another directory, by a process
that gets SIGKILL after a random time, at most what another run took with its programs compiled, and the same command
begins again, until it ends by itself: the kills fall into imports, compiling, warmup, sampling, writing and resuming.
All processes keep their compiled programs in one folder, which is new for every sampler. What the last one leaves is
compared with what the first run left: draws, sample statistics, tuning, gradients, the record of the warmup, findings
and the summary.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

SAMPLERS = ("auto", "chees", "nuts", "meads", "mams")
CODE = """
import sys
import shoal
model, asked = shoal.examples.load("{target}"), dict(num_chains=64, num_samples={draws}, seed=3)
shoal.sample(model, sampler="{sampler}", out=sys.argv[1], progress_bar=False, **asked)
"""


def begin(code: str, out: Path) -> subprocess.Popen[bytes]:
    """The run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        env={**os.environ, "SHOAL_COMPILE_CACHE": str(out.parent / "programs")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def phase(out: Path) -> str:
    """What the run was doing, by the files that it left."""
    files = {path.name for path in (out / "checkpoints").glob("*")} if out.is_dir() else set()
    if any(name.startswith("draws-") for name in files):
        return "sampling"
    if "warm.npz" in files:
        return "before sampling"
    if any(name.startswith(("stage-", "warmup-")) for name in files):
        return "warmup"
    return "starting or compiling" if files else "importing"


def difference(one: Path, other: Path) -> str:
    """What differs between the results in two directories; empty where nothing does."""
    import shoal

    a, b = shoal.load(one), shoal.load(other)
    for part in ("draws", "sample_stats", "tuning"):
        mine, theirs = getattr(a, part), getattr(b, part)
        if list(mine) != list(theirs):
            return f"{part}: {list(mine)} and {list(theirs)}"
        for name in mine:
            if np.asarray(mine[name]).tobytes() != np.asarray(theirs[name]).tobytes():
                return f"{part}: {name}"
    for part in ("gradients", "warmup", "interrupted"):
        if getattr(a, part) != getattr(b, part):
            return f"{part}: {getattr(a, part)} and {getattr(b, part)}"
    if str(a.findings) != str(b.findings):
        return f"findings: {a.findings} and {b.findings}"
    return "" if a.summary().equals(b.summary()) else "summary"


def trial(code: str, alone: Path, out: Path, longest: float, chance: random.Random) -> dict[str, Any]:
    """One run, killed at random until it has ended."""
    kills: list[dict[str, Any]] = []
    while True:
        process = begin(code, out)
        after = chance.uniform(0.0, longest)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills.append({"after_s": round(after, 3), "phase": phase(out)})
            # A machine slower than at first would be killed for ever.
            longest *= 1.1
            continue
        if process.returncode:
            assert process.stderr is not None
            said = process.stderr.read().decode()[-500:]
            return {"kills": kills, "difference": f"ended with {process.returncode}: {said}"}
        return {"kills": kills, "difference": difference(alone, out)}


def main() -> None:
    """Kill, compare, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="in all, at least")
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--target", default="eight_schools")
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    rows: list[dict[str, Any]] = []
    print(f"seed of the times: {arguments.seed}")
    each = -(-arguments.kills // len(arguments.samplers))
    with tempfile.TemporaryDirectory() as folder:
        for sampler in arguments.samplers:
            code = CODE.format(target=arguments.target, sampler=sampler, draws=arguments.draws)
            place, killed = Path(folder) / sampler, 0
            alone, out = place / "alone", place / "killed"
            if begin(code, alone).wait():
                raise SystemExit(f"{sampler}: the run that was left alone failed")
            began = time.perf_counter()
            begin(code, place / "timed").wait()
            longest = time.perf_counter() - began
            while killed < each:
                row = {"sampler": sampler, **trial(code, alone, out, longest, chance)}
                phases = Counter(kill["phase"] for kill in row["kills"])
                told = ", ".join(f"{count} in {name}" for name, count in phases.items()) or "none"
                print(f"{sampler:8} kills: {told}; {row['difference'] or 'the same'}", flush=True)
                killed += len(row["kills"])
                rows.append(row)
                shutil.rmtree(out, ignore_errors=True)
    different = sum(bool(row["difference"]) for row in rows)
    total = sum(len(row["kills"]) for row in rows)
    print(f"{total} kills in {len(rows)} runs; {different} ended otherwise than when left alone")
    if arguments.out:
        arguments.out.write_text(json.dumps({"seed": arguments.seed, "rows": rows}, indent=1) + "\n")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
