"""A device of JAX for every core of the CPU: one XLA CPU device keeps about one core busy."""

import contextlib
import os
import sys
import warnings
from pathlib import Path

# Says how many CPU devices JAX is to show, and that somebody has chosen.
VARIABLE = "JAX_NUM_CPU_DEVICES"
FLAG = "host_platform_device_count"


def cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return count


def use_cores(count: int | None = None) -> None:
    """Have JAX show as many CPU devices as there are cores; measured on two: 1.9 times the gradients per second.

    Must come before the first use of JAX, which fixes their number. One that the user has set, by
    `JAX_NUM_CPU_DEVICES`, `XLA_FLAGS` or `jax.config`, stays.

    Args:
        count: of the devices, whatever was set; None for one per core, where that can still be had.

    Raises:
        RuntimeError: `count` is given, and JAX has been used.
    """
    import jax

    if count is None and chosen():
        return
    with contextlib.nullcontext() if count else contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count or cores())


def chosen() -> bool:
    """Whether somebody has set the number of CPU devices."""
    import jax

    return getattr(jax.config, "jax_num_cpu_devices", -1) != -1 or FLAG in os.environ.get("XLA_FLAGS", "")


def warn_of_idle_cores(tiles: int) -> None:
    """Say so where all chains share one core though there are more.

    Args:
        tiles: of chains, which a core takes one of at a time.
    """
    import jax

    alone = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    if alone and tiles > 1 and cores() > 1 and not chosen():
        warnings.warn(
            f"Shoal runs on 1 of {cores()} cores: JAX was used before any name of Shoal, and the number of CPU devices "
            f"is fixed by then. Use a name of Shoal first, such as shoal.Model, or set {VARIABLE}={cores()} before "
            f"Python starts ({VARIABLE}=1 for one core without this warning).",
            stacklevel=3,
        )
