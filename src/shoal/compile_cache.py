"""Compiled programs kept from one process to the next: JAX's persistent cache, in the user's cache folder.

JAX's cache is one per process. It is switched on while Shoal samples, and left as it was found.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# A folder, or a word.
VARIABLE = "SHOAL_COMPILE_CACHE"
OFF, ON = ("off", "0", "no", "false"), ("", "on", "1", "yes", "true")
# The programs of a run of `breast_cancer` are 0.9 MB. Those that were used longest ago go first.
MOST_BYTES = 2**30
# With less room on the disk nothing is kept: JAX never mends a program that a full disk has cut off.
LEAST_ROOM = 2**27
# XLA's words for a program that it takes for one of another processor, and compiles again: on some processors that is
# every program (openxla/xla issue 44565).
# What it had against them on this machine, in words; empty where it had nothing.
VERDICT = "verdict"
REJECTED = ("Machine type used for XLA:CPU compilation", "is not supported on the host machine")

_lock = threading.Lock()
_opened: "_Opened | None" = None
_users = 0


class Place(NamedTuple):
    """Where programs are kept.

    Attributes:
        folder: None where they are not.
        words: which of the reasons that is.
    """

    folder: Path | None
    words: str


class _Opened(NamedTuple):
    """What is to be undone: the marker of this process in the folder, and JAX's settings, as they are and were."""

    marker: Path
    descriptor: int
    settings: dict[str, Any]
    before: dict[str, Any]


def place() -> Place:
    """Where the programs of this machine are kept."""
    import jax

    config: Any = jax.config
    if config.jax_compilation_cache_dir is not None:
        return Place(None, f"in {config.jax_compilation_cache_dir}, as JAX was told")
    wanted = os.environ.get(VARIABLE, "")
    if wanted.lower() in OFF or not config.jax_enable_compilation_cache:
        return Place(None, f"not kept: {f'{VARIABLE}={wanted}' if wanted else 'switched off in JAX'}")
    try:
        import filelock  # noqa: F401  (JAX's cache bounds its size with it)
        import platformdirs
    except ImportError as error:
        return Place(None, f"not kept: the package {error.name} is missing")
    try:
        usual = wanted.lower() in ON
        folder = platformdirs.user_cache_path("shoal") / "programs" if usual else Path(wanted).expanduser()
        folder = folder.absolute() / _machine()
        if (folder / VERDICT).exists() and (words := (folder / VERDICT).read_text()):
            return Place(None, f"not kept: {words}")
        if folder.exists() and _others_may_write(folder):
            return Place(None, f"not kept: others may write to {folder}")
    except (OSError, RuntimeError) as error:  # a home that is not known, or cannot be looked into
        return Place(None, f"not kept: {error}")
    return Place(folder, f"in {folder}")


@contextlib.contextmanager
def kept_programs() -> Iterator[None]:
    """Keep what is compiled meanwhile, and take what was. Whatever goes wrong here, programs are compiled."""
    global _opened, _users
    with _lock:
        if not _users:
            _opened = _open()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users and _opened is not None:
                _close(_opened)
                _opened = None


def ready_folder() -> Path | None:
    """Where programs are kept as they run, which need not even be traced; None while nothing is kept."""
    opened = _opened
    folder = None if opened is None else Path(opened.settings["jax_compilation_cache_dir"]) / "ready"
    return None if folder is None or (folder.exists() and _others_may_write(folder)) else folder


def settled() -> None:
    """Say that the programs so far are whole: a process that is killed later leaves none that is cut off."""
    with _lock, contextlib.suppress(OSError):
        if _opened is not None:
            os.utime(_opened.marker)


def _open() -> _Opened | None:
    folder = place().folder
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < LEAST_ROOM or _rejects(folder):
            return None
        with (folder / "lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            _clear_unfinished(folder)
            descriptor, name = tempfile.mkstemp(prefix="open-", dir=folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except Exception:
        return None
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": MOST_BYTES,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    return _Opened(Path(name), descriptor, settings, _configure(settings))


def _close(opened: _Opened) -> None:
    import jax

    # What somebody has set meanwhile stays.
    own = {name for name, value in opened.settings.items() if getattr(jax.config, name) == value}
    _configure({name: value for name, value in opened.before.items() if name in own})
    with contextlib.suppress(OSError):
        opened.marker.unlink()
    os.close(opened.descriptor)


def _configure(settings: dict[str, Any]) -> dict[str, Any]:
    """Change JAX's settings; returns those that it had."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    config: Any = jax.config
    before = {name: getattr(config, name) for name in settings}
    for name, value in settings.items():
        config.update(name, value)
    # JAX asks once per process whether there is a cache.
    compilation_cache.reset_cache()
    return before


def _machine() -> str:
    """What a program runs on: folders are shared between machines, and programs are not."""
    import jaxlib.version

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        processor = platform.processor()
    known = (jaxlib.version.__version__, platform.system(), platform.machine(), processor)
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


def _clear_unfinished(folder: Path) -> None:
    """Delete what a process may have been killed in the midst of writing: JAX would stumble over it for ever."""
    for marker in folder.glob("open-*"):
        with contextlib.suppress(OSError), marker.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            since = marker.stat().st_mtime_ns
            for program in folder.glob("*-cache"):
                if program.stat().st_mtime_ns >= since:
                    program.unlink()
            marker.unlink()


def _others_may_write(folder: Path) -> bool:
    """Whether somebody else can put a program there, which this process would run."""
    found = folder.stat()
    return found.st_uid != os.geteuid() or bool(found.st_mode & 0o022)


def _rejects(folder: Path) -> bool:
    """Whether XLA refuses to read its own programs on this machine; asked once, and written down."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import serialize_executable

    if jax.default_backend() != "cpu" or (folder / VERDICT).exists():
        return False
    program = jax.jit(lambda x: 2.0 * x + 1.0).lower(jnp.zeros(8)).compile()
    payload, words = serialize_executable.serialize(program), ""
    with _standard_error() as said:
        try:
            serialize_executable.deserialize_and_load(*payload)
        except Exception as error:
            words = f"XLA cannot read its own programs here ({type(error).__name__})"
    if any(word in "".join(said) for word in REJECTED):
        words = "XLA compiles programs of this processor again when it reads them (openxla/xla issue 44565)"
    (folder / VERDICT).write_text(words)
    return bool(words)


@contextlib.contextmanager
def _standard_error() -> Iterator[list[str]]:
    """What is written to the process's standard error meanwhile, by C++, too."""
    said: list[str] = []
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
