"""What kept programs save: seconds from the start of `shoal sample` to its first draws on disk, without them and with.

    python benchmarks/starting.py [--rounds 3] [--target breast_cancer] [--out benchmarks/results/starting.json]

Each round has a cold start, in a new folder for programs, then a warm one in the same. Beside them, what no cache can
take off: a process that imports what sampling needs, loads the model, and does nothing. Python keeps its bytecode, as
it does where nobody forbids it; a first start, which does not count, makes that.
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

IDLE = "import shoal; shoal.sample; import jax; jax.local_devices(); shoal.examples.load({!r})"


def environment(bytecode: Path, programs: Path | str = "off") -> dict[str, str]:
    """Of a process that keeps bytecode and programs there."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(bytecode), "SHOAL_COMPILE_CACHE": str(programs)}


def first_draw(target: str, out: Path, environment: dict[str, str]) -> float:
    """Seconds until a run has draws on disk; it is ended then."""
    command = [sys.executable, "-m", "shoal", "sample", target, "--out", str(out), "--quiet"]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any((out / "checkpoints").glob("draws-*.npz")):
        if process.poll() is not None:
            raise SystemExit(f"the run ended with {process.returncode} before its first draw")
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    process.terminate()
    process.wait()
    return seconds


def idle(target: str, environment: dict[str, str]) -> float:
    """Seconds of a process that is ready to sample."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IDLE.format(target)], check=True, env=environment)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target", default="breast_cancer")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"cold": [], "warm": [], "idle": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        first_draw(arguments.target, folder / "first", environment(folder / "bytecode"))
        for number in range(arguments.rounds):
            around = environment(folder / "bytecode", folder / f"programs-{number}")
            for kind in ("cold", "warm"):
                seconds[kind].append(first_draw(arguments.target, folder / f"{kind}-{number}", around))
            seconds["idle"].append(idle(arguments.target, around))
            print(", ".join(f"{kind} {taken[-1]:.2f} s" for kind, taken in seconds.items()), flush=True)
    middle = {kind: statistics.median(taken) for kind, taken in seconds.items()}
    ratio = middle["warm"] / middle["cold"]
    print(f"with kept programs the first draws come after {ratio:.2f} of the time")
    if arguments.out:
        found = {"target": arguments.target, "seconds": seconds, "ratio": ratio}
        found["versions"] = {name: version(name) for name in ("jax", "numpyro", "numpy")}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
