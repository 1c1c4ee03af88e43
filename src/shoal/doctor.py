"""What a machine has for sampling: versions, devices, memory, precision; and what is missing."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import shoal
from shoal.compile_cache import place
from shoal.cores import cores


class Package(NamedTuple):
    """A package that Shoal uses.

    Attributes:
        name: on the package index.
        purpose: what needs it.
        install: what to type when it is missing.
    """

    name: str
    purpose: str
    install: str


PACKAGES = (
    Package("jax", "everything", "pip install shoal"),
    Package("jaxlib", "everything", "pip install shoal"),
    Package("equinox", "everything", "pip install shoal"),
    Package("numpy", "everything", "pip install shoal"),
    Package("numpyro", "supports and NumPyro models", "pip install shoal"),
    Package("zarr", "draws on disk", 'pip install "shoal[store]"'),
    Package("xarray", "to_datatree", 'pip install "shoal[store]"'),
    Package("pandas", "summary tables", 'pip install "shoal[diagnostics]"'),
    Package("arviz", "ArviZ's plots and diagnostics", 'pip install "shoal[diagnostics]"'),
    Package("matplotlib", "shoal report", 'pip install "shoal[report]"'),
    Package("tensorboardX", "events for TensorBoard", 'pip install "shoal[tensorboard]"'),
    Package("h5netcdf", "shoal export --to netcdf", 'pip install "shoal[export]"'),
    Package("pyarrow", "shoal export --to arrow or parquet", 'pip install "shoal[export]"'),
    Package("rich", "tables on the terminal", 'pip install "shoal[cli]"'),
    Package("scikit-learn", "the data of two examples", 'pip install "shoal[examples]"'),
)


def examine() -> dict[str, Any]:
    """Look at this machine.

    Returns:
        What was found, of types that JSON has: `versions` (None where missing), `missing`, `machine`, `jax`
        (devices, memory, precision, where compiled programs are kept), `environment`, `advice`.
    """
    versions = {package.name: _version(package.name) for package in PACKAGES}
    missing = [package._asdict() for package in PACKAGES if versions[package.name] is None]
    found: dict[str, Any] = {
        "shoal": shoal.__version__,
        "python": platform.python_version(),
        "versions": versions,
        "missing": missing,
        "machine": _machine(),
        "jax": _jax(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(("JAX_", "XLA_", "SHOAL_"))},
    }
    found["advice"] = _advice(found)
    return found


def sections(found: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The same to read: titles, each with pairs of a word and a text."""
    jax, machine = found["jax"], found["machine"]
    versions = [("shoal", found["shoal"]), ("python", found["python"])]
    versions += [(name, version or "missing") for name, version in found["versions"].items()]
    if "error" in jax:
        devices = [("JAX failed", jax["error"])]
        precision = []
    else:
        devices = [("backend", jax["backend"])]
        devices += [(f"device {device['id']}", _device_words(device)) for device in jax["devices"]]
        precision = [
            ("default", "double (x64 on)" if jax["x64"] else "single; --precision float64 runs in double"),
            ("matrix products", f"{jax['matmul_precision'] or 'backend default'}; highest inside Shoal"),
            ("random numbers", f"{jax['prng']}{', partitionable' if jax['threefry_partitionable'] else ''}"),
            ("compiled programs", jax["compiled_programs"]),
        ]
    available = _gigabytes(machine["memory_available_bytes"])
    memory = f"{_gigabytes(machine['memory_bytes'])}, {available} available"
    devices += [("cores", f"{machine['cores']}"), ("memory", memory), ("system", machine["system"])]
    listed = [("Versions", versions), ("Devices", devices), ("Precision", precision)]
    listed.append(("Environment", list(found["environment"].items())))
    return [(title, pairs) for title, pairs in listed if pairs]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    sizes: dict[str, int | None] = {"SC_PHYS_PAGES": None, "SC_AVPHYS_PAGES": None}
    for name in sizes:
        try:
            sizes[name] = os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            sizes[name] = None
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": cores(),
        "memory_bytes": sizes["SC_PHYS_PAGES"],
        "memory_available_bytes": _available() or sizes["SC_AVPHYS_PAGES"],
        "nvidia": shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists(),
    }


def _available() -> int | None:
    """Linux's own estimate, which counts caches that can be given up."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _jax() -> dict[str, Any]:
    try:
        import jax

        devices = [_device(device) for device in jax.local_devices()]
        config: Any = jax.config
        return {
            "backend": jax.default_backend(),
            "devices": devices,
            "x64": bool(config.jax_enable_x64),
            "matmul_precision": config.jax_default_matmul_precision,
            "prng": config.jax_default_prng_impl,
            "threefry_partitionable": bool(config.jax_threefry_partitionable),
            "compiled_programs": place().words,
        }
    except Exception as error:  # A broken driver raises anything; the doctor reports it and goes on.
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _device(device: Any) -> dict[str, Any]:
    try:
        memory = device.memory_stats() or {}
    except Exception:
        memory = {}
    return {
        "id": device.id,
        "kind": device.device_kind,
        "platform": device.platform,
        "memory_bytes": memory.get("bytes_limit"),
        "memory_used_bytes": memory.get("bytes_in_use"),
    }


def _device_words(device: dict[str, Any]) -> str:
    kind, platform_name = device["kind"], device["platform"]
    words = kind if kind == platform_name else f"{kind} ({platform_name})"
    if device["memory_bytes"] is None:
        return words
    size, used = _gigabytes(device["memory_bytes"]), _gigabytes(device["memory_used_bytes"])
    return f"{words}, {size} for JAX, {used} used"


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"


def _advice(found: dict[str, Any]) -> list[str]:
    """What to do, in sentences; empty when all is well."""
    advice = [
        f"{package['name']} is missing, needed for {package['purpose']}: {package['install']}"
        for package in found["missing"]
    ]
    jax = found["jax"]
    if "error" in jax:
        advice.append("JAX does not start on this machine; JAX_PLATFORMS=cpu runs on the CPU meanwhile.")
    elif found["machine"]["nvidia"] and jax["backend"] == "cpu":
        advice.append(
            'There is an NVIDIA GPU, but this JAX runs on the CPU: pip install "shoal[cuda13]" (driver 580 '
            'or newer) or "shoal[cuda12]".'
        )
    return advice
