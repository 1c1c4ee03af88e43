"""What watching a run costs: seconds of sampling the founding posterior with and without it, by turns.

    python benchmarks/watching.py [--draws 300] [--rounds 3] [--out benchmarks/results/watching.json]

Every run has 128 chains, the sampler `auto`, the tuning of one warmup, and a directory. "alone" writes draws only: its
listeners are taken away. "metrics" has the progress (as lines of a log) and `metrics.jsonl`, and "tensorboard" the
events, too. The kinds take turns, so that a machine whose speed drifts does so for all. The ratios are of the medians.
Beside them, the share of the time that is spent in the listeners themselves, which drifts less.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import shoal
from shoal import sampling
from shoal.watching.watch import watched

KINDS = ("alone", "metrics", "tensorboard")


@contextlib.contextmanager
def timed(spent: list[float], listens: bool) -> Iterator[None]:
    """Count the seconds in listeners, or take them away."""

    @contextlib.contextmanager
    def counted(folder: Any, *rest: Any) -> Iterator[Any]:
        with watched(folder if listens else None, *rest) as watch:

            def tell(*told: Any) -> None:
                began = time.perf_counter()
                watch(*told)
                spent.append(time.perf_counter() - began)

            yield tell

    sampling.watched = counted
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sampling.watched = watched


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model = shoal.examples.load("breast_cancer")
    tuned = shoal.sample(model, num_samples=10, progress_bar=False)
    starts = {name: tuned.draws[name][:, -1] for name in tuned.parameters}
    asked = {"num_samples": arguments.draws, "tuning": tuned.tuning, "initial_positions": starts}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    listeners: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            # Whoever comes first in a round comes last in the next.
            for kind in KINDS if number % 2 else reversed(KINDS):
                out, spent, watches = Path(folder) / f"{kind}{number}", [], kind != "alone"
                with timed(spent, watches):
                    result = shoal.sample(
                        model, out=out, progress_bar=watches, tensorboard=kind == "tensorboard", **asked
                    )
                seconds[kind].append(result.timing.sampling)
                listeners[kind].append(sum(spent))
            print(", ".join(f"{kind} {seconds[kind][-1]:.2f} s" for kind in KINDS), flush=True)
    middle = {kind: statistics.median(seconds[kind]) for kind in KINDS}
    ratios = {kind: middle[kind] / middle["alone"] for kind in KINDS[1:]}
    shares = {kind: statistics.median(listeners[kind]) / middle[kind] for kind in KINDS[1:]}
    for kind in KINDS[1:]:
        print(f"with {kind} sampling takes {ratios[kind]:.3f} times as long; in listeners {shares[kind]:.2%} of it")
    if arguments.out:
        found = {"draws": arguments.draws, "seconds": seconds, "ratios": ratios, "shares": shares}
        found["versions"] = {name: version(name) for name in ("jax", "tensorboardX", "numpy")}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
