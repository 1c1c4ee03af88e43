"""Executables kept from one process to the next, so that a later process need not trace the program.

An executable is found by a name: a digest of Shoal's own code, of JAX, its settings and the compiler's, of what the
program is asked to be, and of the log density that it has in it, as JAX traces that. So equal names are equal programs.
What cannot be named for certain has none, and is traced: a sampler that is not Shoal's, data or parameters that are
split over devices, a model that calls back to Python.

A log density may read what can change, such as a variable of a notebook. So a run traces it anew, whatever JAX
remembers of it, and its programs are kept when it still is what it was at first (`Densities`).
"""

import contextlib
import dataclasses
import hashlib
import os
import pickle
import platform
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import serialize_executable
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from shoal import __imported__
from shoal.target import PARAMETERS, Target, is_sharded
from shoal.traced import equations

# Those that were used longest ago go first. The programs of a run of `breast_cancer` are 2 MB.
MOST_BYTES = 2**30
# What a process is in the midst of writing; after so many seconds it is not any more.
UNFINISHED, UNFINISHED_SECONDS = ".unfinished", 3600.0
# Settings of JAX that say where programs are kept and what is written of them, not what they are.
_IRRELEVANT = (
    "jax_compilation_cache",
    "jax_persistent_cache",
    "jax_enable_compilation_cache",
    "jax_raise_persistent_cache",
    "jax_log",
    "jax_debug_log",
    "jax_compiler_detailed_log",
)
# A file of Shoal that has changed since that was imported, or in so many seconds before, may not be what was imported.
_IMPORTED, SETTLED_SECONDS = __imported__, 10.0
# Backends on which it has been tried.
BACKENDS = ("cpu",)


class Unnamed(Exception):
    """Something that a name could not tell from something else."""


@dataclasses.dataclass(frozen=True)
class Placeholder:
    """Stands for an array among what a program returns: its number."""

    number: int


class Ready(NamedTuple):
    """A compiled program.

    Attributes:
        run: from the arrays among the arguments to those among what it returns.
        made: what it returns, with a `Placeholder` for every array.
    """

    run: Callable[..., Sequence[jax.Array]]
    made: PyTree

    def __call__(self, arrays: Sequence[jax.Array]) -> Any:
        filled = self.run(*arrays)
        return jax.tree.map(lambda leaf: filled[leaf.number] if isinstance(leaf, Placeholder) else leaf, self.made)


def name_of(function: Callable[..., Any], options: Mapping[str, Any], arguments: Any) -> str | None:
    """The name of a program; None where none would be certain.

    Args:
        function: of Shoal, that the program computes.
        options: of the compiler.
        arguments: of it, as it is called.
    """
    if jax.default_backend() not in BACKENDS:
        return None
    try:
        asked = (described(part) for part in (function, dict(options), arguments))
        words = _code_version(), str(settings()), str(os.environ.get("XLA_FLAGS")), *asked
    except Exception:  # it would spare some seconds, and is not worth a failure
        return None
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def load(path: Path) -> Ready | None:
    """The program that is kept there, or None where there is none that is whole; a new one then takes its place."""
    try:
        kept = path.read_bytes()
        if hashlib.sha256(kept[32:]).digest() != kept[:32]:
            return None
        payload, inputs, outputs, devices, made = pickle.loads(kept[32:])
        known = {device.id: device for device in jax.devices()}
        run = serialize_executable.deserialize_and_load(
            payload,
            jax.tree.structure(((0,) * inputs, {})),
            jax.tree.structure([0] * outputs),
            execution_devices=[known[number] for number in devices],
        )
    except Exception:  # whatever is wrong with it, the program is compiled
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return Ready(run, made)


def keep(path: Path, program: Any, made: PyTree) -> None:
    """Keep a program for later processes, if that can be done.

    Args:
        path: of it: its name, in the folder of all.
        program: as JAX has compiled it, of arrays to a list of arrays.
        made: what it returns, with placeholders for arrays.
    """
    with contextlib.suppress(Exception):  # a full disk, or what cannot be written down
        payload, inputs, outputs = serialize_executable.serialize(program)
        kept = pickle.dumps((payload, inputs.num_leaves, outputs.num_leaves, _devices_of(program), made))
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _make_room(path.parent, len(kept))
        descriptor, unfinished = tempfile.mkstemp(UNFINISHED, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(kept).digest() + kept)
            Path(unfinished).replace(path)
        except BaseException:
            Path(unfinished).unlink()
            raise


def _make_room(folder: Path, size: int) -> None:
    """Delete what was used longest ago, and what a process that was killed had begun to write."""
    there = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # another process has deleted it
            facts = file.stat()
            if file.suffix == UNFINISHED and facts.st_mtime < time.time() - UNFINISHED_SECONDS:
                file.unlink()
            elif stat.S_ISREG(facts.st_mode):
                there.append((facts.st_mtime, facts.st_size, file))
    left = size + sum(own for _, own, _ in there)
    for _, own, file in sorted(there):
        if left <= MOST_BYTES:
            break
        file.unlink(missing_ok=True)
        left -= own


def _devices_of(program: Any) -> list[int]:
    shardings = jax.tree.leaves((program.input_shardings, program.output_shardings))
    for sharding in shardings:
        if isinstance(sharding, NamedSharding):
            return [device.id for device in np.asarray(sharding.mesh.devices).flat]
    (device,) = {device for sharding in shardings for device in sharding.device_set}
    return [device.id]


@cache
def _code_version() -> str:
    """Shoal's code, and what runs it.

    Raises:
        Unnamed: there are no files, or one has changed since it was imported, or nearly so.
    """
    code, root = hashlib.sha256(), Path(__file__).parent
    paths = sorted(root.rglob("*.py"))
    if Path(__file__) not in paths:
        raise Unnamed
    for path in paths:
        facts = path.stat()
        if max(facts.st_mtime, facts.st_ctime) > _IMPORTED - SETTLED_SECONDS:
            raise Unnamed
        code.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{code.hexdigest()} {jax.__version__} {eqx.__version__} {np.__version__} {platform.python_version()}"


def settings() -> tuple[tuple[str, Any], ...]:
    """JAX's, as they are for this thread."""
    config: Any = jax.config
    usual = config.values  # a copy
    return tuple((name, getattr(config, name, usual.get(name))) for name in _relevant(len(usual)))


@cache
def _relevant(known: int) -> tuple[str, ...]:
    """The names of the settings that matter, looked up again when JAX knows more of them than so many."""
    config: Any = jax.config
    return tuple(sorted(name for name in config.values if not name.startswith(_IRRELEVANT)))


def form_of(array: Any) -> tuple[tuple[int, ...], Any, bool, Hashable]:
    """What a program knows of an array: shape, dtype, whether that is weak, and where it is, if that has been said."""
    where = _where(array.sharding) if getattr(array, "committed", False) else None
    dtype = array.dtype if isinstance(array, jax.Array) else jax.dtypes.canonicalize_dtype(array.dtype)
    return array.shape, dtype, getattr(array, "weak_type", False), where


def _where(sharding: Any) -> Hashable:
    """Where an array is: the same for shardings that say the same, as those do that programs get and return."""
    if len(sharding.device_set) == 1:
        return next(iter(sharding.device_set)), sharding.memory_kind
    if not isinstance(sharding, NamedSharding):
        return sharding
    several = {name for name, size in sharding.mesh.shape.items() if size > 1}
    names = [() if axes is None else (axes,) if isinstance(axes, str) else tuple(axes) for axes in sharding.spec]
    split = [tuple(name for name in axes if name in several) for axes in names]
    while split and not split[-1]:
        split.pop()
    return sharding.mesh, tuple(split), sharding.memory_kind


def described(node: Any) -> str:
    """What distinguishes a node of a program's arguments from all others, in words that are the same in any process.

    Raises:
        Unnamed: there may be others with the same.
    """
    for words in (_constant(node), _of_jax(node), _tree(node)):
        if words is not None:
            return words
    raise Unnamed


def _constant(node: Any) -> str | None:
    if node is None or type(node) in (bool, int, float, str, bytes):
        return repr(node)
    if isinstance(node, np.dtype):
        return f"dtype {node}"
    if isinstance(node, type) and (_found(node) or node.__module__ in ("numpy", "builtins", "jax.numpy")):
        return f"type {node.__module__}.{node.__qualname__}"
    if isinstance(node, FunctionType) and _found(node):
        return f"function {node.__module__}.{node.__qualname__}"
    return None


def _of_jax(node: Any) -> str | None:
    match node:
        case jax.Array() | np.ndarray():
            shape, dtype, weak, where = form_of(node)
            return f"{dtype} {shape} {weak} {described(where)}"
        case jax.Device():
            return f"device {node.platform} {node.device_kind} {node.id}"
        case Mesh() if PARAMETERS not in node.axis_names:
            return f"mesh {node.axis_names} {node.axis_types} {node.devices.shape} {_all(node.devices.flat)}"
    return None


def _tree(node: Any) -> str | None:
    kind = type(node)
    if kind is Target:
        known = densities.get()
        if known is None:
            raise Unnamed
        return f"target {known.digest(node)} {_all((node.dim, node.data, node.in_double))}"
    if kind is dict and all(type(key) is str for key in node):
        return "{" + ", ".join(f"{key!r}: {described(node[key])}" for key in sorted(node)) + "}"
    if kind in (tuple, list) or (_is_own(kind) and isinstance(node, tuple) and _found(kind)):
        return f"{kind.__module__}.{kind.__qualname__}({_all(node)})"
    if dataclasses.is_dataclass(kind) and _found(kind):
        fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(kind)}
        return f"{kind.__module__}.{kind.__qualname__}{described(fields)}"
    return None


def _all(nodes: Iterable[Any]) -> str:
    return ", ".join(described(node) for node in nodes)


def _is_own(kind: type) -> bool:
    return kind.__module__.startswith("shoal.")


def _found(thing: Any) -> bool:
    """Whether it is the class or function of Shoal that is called so: others may have taken over the name."""
    found: Any = sys.modules.get(thing.__module__) if _is_own(thing) else None
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    # A function of `shoal.compiling.Compiled` is found in its place.
    return found is thing or getattr(found, "__wrapped__", None) is thing


class Densities:
    """The log densities of a run, each traced anew, so that a name says what is in the programs that have it."""

    def __init__(self) -> None:
        self._anew: dict[Hashable, Target] = {}
        self._digests: dict[Hashable, tuple[Target, str | None]] = {}

    def anew(self, target: Target) -> Target:
        """The same target, for JAX one that it has not traced before this run."""
        functions = target.log_density, target.constrain
        if functions not in self._anew:
            self._anew[functions] = _renewed(target)
        there = self._anew[functions]
        return dataclasses.replace(target, log_density=there.log_density, constrain=there.constrain)

    def digest(self, target: Target) -> str:
        """A digest of all that programs compute of a target: values, gradients, and the way to the user's supports.

        Raises:
            Unnamed: it is more than arrays to arrays, or cannot be traced by itself.
        """
        if any(is_sharded(leaf) for leaf in jax.tree.leaves((target.data, target.in_double), is_leaf=is_sharded)):
            raise Unnamed
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), target)
        leaves, structure = jax.tree.flatten(shapes)
        key = structure, tuple(map(str, leaves)), settings()
        if key not in self._digests:
            self._digests[key] = shapes, _digest_of(self.anew(shapes))
        _, digest = self._digests[key]
        if digest is None:
            raise Unnamed
        return digest

    def have_changed(self) -> bool:
        """Whether some log density is not any more what it was when it got its digest."""
        return any(_digest_of(_renewed(shapes)) != digest for shapes, digest in self._digests.values())


# Those of the run that goes on in this thread; without one nothing is named.
densities: ContextVar[Densities | None] = ContextVar("densities", default=None)


def _renewed(target: Target) -> Target:
    log_density, constrain = target.log_density, target.constrain
    return dataclasses.replace(
        target,
        log_density=lambda position, data: log_density(position, data),
        constrain=lambda position, data: constrain(position, data),
    )


def _digest_of(target: Target) -> str | None:
    def everything(position: jax.Array, target: Target) -> Any:
        log_density, gradient = target(position)
        values = target.constrained(position), target.of_model(log_density, position)
        return log_density, gradient, target.gradient(position), values

    digest = hashlib.sha256()
    try:
        for dtype in (jnp.float32, jnp.float64)[: 1 + jax.config.jax_enable_x64]:
            if _has_rule_for_many(target, dtype):
                return None
            position = jax.ShapeDtypeStruct((2, target.dim), dtype)
            # Arguments that are not used are kept: which of the data are is a part of it.
            text = str(jax.jit(everything, keep_unused=True).lower(position, target).compiler_ir("stablehlo"))
            if "callback" in text:
                return None
            digest.update(text.encode())
    except Exception:  # the model needs more than its arguments, such as the mesh of a run
        return None
    return digest.hexdigest()


def _has_rule_for_many(target: Target, dtype: Any) -> bool:
    """Whether it says itself how it is computed for many chains: that may depend on their number."""
    position = jax.ShapeDtypeStruct((target.dim,), dtype)
    for of_one in (target.log_density, jax.grad(target.log_density), target.constrain):
        traced = jax.make_jaxpr(of_one)(position, target.data)
        if any("custom_vmap" in equation.primitive.name for equation, _ in equations(traced.jaxpr)):
            return True
    return False
