"""Programs kept from one process to the next as they run, so that a later process need not trace them.

A program is found by a name: a digest of Shoal's own code, of JAX, its settings and the compiler's, of what the program
is asked to be, and of the log density that it has in it, as JAX traces that. So equal names are equal programs. What
cannot be named for certain has none, and is traced: a sampler that is not Shoal's, data that are split over devices, a
model that calls back to Python.
"""

import contextlib
import dataclasses
import hashlib
import os
import pickle
import platform
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import serialize_executable
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jaxtyping import PyTree

from shoal.target import Target, is_sharded

# Those that were used longest ago go first. The programs of a run of `breast_cancer` are 2 MB.
MOST_BYTES = 2**29
# Settings of JAX that say where programs are kept and what is written of them, not what they are.
_BESIDE = (
    "jax_compilation_cache",
    "jax_persistent_cache",
    "jax_enable_compilation_cache",
    "jax_raise_persistent_cache",
    "jax_log",
    "jax_debug_log",
    "jax_compiler_detailed_log",
)
# What Python has imported may be older than what is in a file that has changed since, or within so many seconds before.
_IMPORTED, SETTLED_SECONDS = time.time(), 10.0
# Backends on which it has been tried.
BACKENDS = ("cpu",)


class Unnamed(Exception):
    """Something that a name could not tell from something else."""


@dataclasses.dataclass(frozen=True)
class Hole:
    """Stands for an array among what a program returns: its number."""

    number: int


class Ready(NamedTuple):
    """A compiled program.

    Attributes:
        run: from the arrays among the arguments to those among what it returns.
        made: what it returns, with a `Hole` for every array.
    """

    run: Callable[..., Sequence[jax.Array]]
    made: PyTree

    def __call__(self, arrays: Sequence[jax.Array]) -> Any:
        filled = self.run(*arrays)
        return jax.tree.map(lambda leaf: filled[leaf.number] if isinstance(leaf, Hole) else leaf, self.made)


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
        words = _own(), str(settings()), str(os.environ.get("XLA_FLAGS")), *asked
    except Unnamed:
        return None
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def load(path: Path) -> Ready | None:
    """The program that is kept there, or None where there is none that is whole."""
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
        os.utime(path)
    except Exception:  # whatever is wrong with it, the program is compiled
        return None
    return Ready(run, made)


def keep(path: Path, program: Any, made: PyTree) -> None:
    """Keep a program for later processes, if that can be done.

    Args:
        path: of it: its name, in the folder of all.
        program: as JAX has compiled it, of arrays to a list of arrays.
        made: what it returns, with holes for arrays.
    """
    with contextlib.suppress(Exception):  # a full disk, or what cannot be written down
        payload, inputs, outputs = serialize_executable.serialize(program)
        kept = pickle.dumps((payload, inputs.num_leaves, outputs.num_leaves, _devices_of(program), made))
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _make_room(path.parent, len(kept))
        descriptor, unfinished = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(kept).digest() + kept)
            Path(unfinished).replace(path)
        except BaseException:
            Path(unfinished).unlink()
            raise


def _make_room(folder: Path, size: int) -> None:
    """Delete what was used longest ago, and what a process that was killed had begun to write."""
    there = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in folder.iterdir())
    left = sum(size for _, size, _ in there) + size
    for _, own, file in there:
        if left <= MOST_BYTES:
            break
        file.unlink(missing_ok=True)
        left -= own


def _devices_of(program: Any) -> list[int]:
    shardings = jax.tree.leaves((program.input_shardings, program.output_shardings))
    for sharding in shardings:
        if isinstance(sharding, NamedSharding):
            return [device.id for device in np.asarray(sharding.mesh.devices).flat]
    return sorted({device.id for sharding in shardings for device in sharding.device_set})


@cache
def _own() -> str:
    """Shoal's code, and what runs it.

    Raises:
        Unnamed: a file has changed since it was imported, or nearly so: this process may not run what is there.
    """
    code, root = hashlib.sha256(), Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        if path.stat().st_mtime > _IMPORTED - SETTLED_SECONDS:
            raise Unnamed
        code.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{code.hexdigest()} {jax.__version__} {eqx.__version__} {platform.python_version()}"


def settings() -> tuple[tuple[str, Any], ...]:
    """JAX's, as they are for this thread."""
    config: Any = jax.config
    return tuple((name, getattr(config, name, config.values.get(name))) for name in _names())


@cache
def _names() -> tuple[str, ...]:
    config: Any = jax.config
    return tuple(sorted(name for name in config.values if not name.startswith(_BESIDE)))


def form_of(array: Any) -> tuple[tuple[int, ...], Any, bool, Any]:
    """What a program knows of an array: shape, dtype, whether that is weak, and where it is, if that has been said."""
    where = array.sharding if getattr(array, "committed", False) else None
    return array.shape, array.dtype, getattr(array, "weak_type", False), where


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
    if isinstance(node, type) and (_is_own(node) or node.__module__ in ("numpy", "builtins", "jax.numpy")):
        return f"type {node.__module__}.{node.__qualname__}"
    if isinstance(node, FunctionType) and _is_own(node) and "<" not in node.__qualname__:
        return f"function {node.__module__}.{node.__qualname__}"
    return None


def _of_jax(node: Any) -> str | None:
    match node:
        case jax.Array() | np.ndarray():
            shape, dtype, weak, where = form_of(node)
            return f"{dtype} {shape} {weak} {None if where is None else _placed(where)}"
        case jax.Device():
            return f"device {node.platform} {node.device_kind} {node.id}"
        case Mesh():
            return f"mesh {node.axis_names} {node.axis_types} {node.devices.shape} {_all(node.devices.flat)}"
    return None


def _tree(node: Any) -> str | None:
    kind = type(node)
    if kind is Target:
        return f"target {traced_density(node)} {_all((node.dim, node.data, node.in_double))}"
    if kind is dict:
        return "{" + ", ".join(f"{key!r}: {described(node[key])}" for key in sorted(node)) + "}"
    if kind in (tuple, list) or (_is_own(kind) and isinstance(node, tuple)):
        return f"{kind.__module__}.{kind.__qualname__}({_all(node)})"
    if dataclasses.is_dataclass(kind) and _is_own(kind):
        fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(kind)}
        return f"{kind.__module__}.{kind.__qualname__}{described(fields)}"
    return None


def _all(nodes: Iterable[Any]) -> str:
    return ", ".join(described(node) for node in nodes)


def _is_own(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("shoal.") and hasattr(thing, "__qualname__")


def _placed(sharding: Any) -> str:
    if isinstance(sharding, NamedSharding):
        return f"{described(sharding.mesh)} {tuple(sharding.spec)} {sharding.memory_kind}"
    if isinstance(sharding, SingleDeviceSharding):
        return f"{described(next(iter(sharding.device_set)))} {sharding.memory_kind}"
    raise Unnamed


# Digests that this process knows.
_DENSITIES: dict[Hashable, str] = {}
MOST_DENSITIES = 64


def traced_density(target: Target) -> str:
    """A digest of all that programs compute of a target: values, gradients, and the way to the user's supports.

    Raises:
        Unnamed: it is more than arrays to arrays, or cannot be traced by itself.
    """
    if any(is_sharded(leaf) for leaf in jax.tree.leaves((target.data, target.in_double), is_leaf=is_sharded)):
        raise Unnamed
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), target)
    leaves, structure = jax.tree.flatten(shapes)
    known = structure, tuple(map(str, leaves)), settings()
    if known not in _DENSITIES:
        if len(_DENSITIES) >= MOST_DENSITIES:
            _DENSITIES.clear()
        try:
            _DENSITIES[known] = _digest_of(shapes)
        except Exception as error:
            raise Unnamed from error
    return _DENSITIES[known]


def _digest_of(target: Target) -> str:
    def everything(position: jax.Array, target: Target) -> Any:
        log_density, gradient = target(position)
        values = target.constrained(position), target.of_model(log_density, position)
        return log_density, gradient, target.gradient(position), values

    digest = hashlib.sha256()
    for dtype in (jnp.float32, jnp.float64)[: 1 + jax.config.jax_enable_x64]:
        position = jax.ShapeDtypeStruct((2, target.dim), dtype)
        text = str(jax.jit(everything).lower(position, target).compiler_ir("stablehlo"))
        if "callback" in text:
            raise Unnamed
        digest.update(text.encode())
    return digest.hexdigest()
