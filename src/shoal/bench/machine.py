"""What a measurement was made on: machine, versions, seed, commit, date; of types that JSON has."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import shoal

PACKAGES = ("jax", "jaxlib", "numpyro", "numpy")


def about(seed: int) -> dict[str, Any]:
    """What stands at the top of every file of results; starts JAX.

    Args:
        seed: of the measurement.

    Returns:
        `machine` (cpu, system, cores, memory_bytes, backend, devices), `versions`, `seed`, `commit` (None where the
        source is no checkout; with "-dirty" where files of it were changed) and `date` (UTC).
    """
    from shoal.doctor import examine

    found = examine()
    machine, devices = found["machine"], found["jax"].get("devices", [])
    return {
        "machine": {
            "cpu": cpu(),
            "system": machine["system"],
            "cores": machine["cores"],
            "memory_bytes": machine["memory_bytes"],
            "backend": found["jax"].get("backend"),
            "devices": [{name: device[name] for name in ("kind", "platform", "memory_bytes")} for device in devices],
        },
        "versions": {
            "shoal": found["shoal"],
            **{name: found["versions"][name] for name in PACKAGES},
            "python": found["python"],
        },
        "seed": seed,
        "commit": commit(Path(shoal.__file__).parents[2]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu() -> str:
    """The model of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit(root: Path) -> str | None:
    """The commit of a checkout; None where there is none, or no git.

    Args:
        root: of the checkout itself, since an installed package may lie somewhere inside of another project's.
    """
    if not (root / ".git").exists():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
