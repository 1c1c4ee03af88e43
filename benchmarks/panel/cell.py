"""One cell in a process of its own: `python -m benchmarks.panel.cell TARGET SAMPLER SEED LIMIT FILE`."""

import json
import os
import platform
import sys
import threading
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from .outcome import NotInstalled, Problem
from .rows import row
from .samplers import SAMPLERS
from .targets import TARGETS

# Seconds that a sampler may be late with its last block.
GRACE = 10.0
PACKAGES = ("shoal", "jax", "jaxlib", "numpy", "blackjax", "numpyro", "nutpie", "arviz-stats")


def main(target_name: str, sampler_name: str, seed: str, limit: str, file: str) -> None:
    """Run a cell and leave its row in a file."""
    target = TARGETS[target_name]
    # A process has one precision, so that no part of a peer's code is left behind in the other.
    jax.config.update("jax_enable_x64", target.precision == "float64")
    problem = Problem(target, int(seed), float(limit))
    began = time.perf_counter()

    def leave(made: dict[str, Any]) -> None:
        took = round(time.perf_counter() - began, 1)
        made |= {"precision": target.precision, "total_seconds": took, "versions": versions()}
        Path(file).write_text(json.dumps(made, default=_plain), encoding="utf-8")

    sampled = threading.Event()
    threading.Thread(target=_watch, args=(problem, sampled, leave), daemon=True).start()
    leave(_attempt(problem, sampler_name, sampled))


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, as Python's."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _watch(problem: Problem, sampled: threading.Event, leave: Any) -> None:
    """End the process when the limit is over and the sampler has not come back: JAX cannot be interrupted."""
    while not sampled.wait(max(problem.left + GRACE, 0.1)):
        if problem.left + GRACE <= 0:
            leave({"status": "timeout", "why": f"no draws after {problem.limit:.0f} s"})
            os._exit(0)


def _attempt(problem: Problem, sampler_name: str, sampled: threading.Event) -> dict[str, Any]:
    try:
        outcome = SAMPLERS[sampler_name](problem)
        sampled.set()
        return row(problem, outcome)
    except NotInstalled as error:
        return {"status": "not installed", "why": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"status": "error", "why": f"{type(error).__name__}: {error}"[:300]}
    finally:
        sampled.set()


def versions() -> dict[str, str]:
    """What a row was made with."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main(*sys.argv[1:])
