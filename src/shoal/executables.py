"""Compiled programs as files: what XLA made, and the structure of what it returns, so that nothing is traced again."""

import contextlib
import hashlib
import os
import pickle
import tempfile
import threading
import zlib
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.monitoring
import numpy as np
from jax.experimental import serialize_executable
from jax.sharding import NamedSharding

_HOLE = Ellipsis  # where an array was; it can be pickled, and nothing that is compiled holds it otherwise
_DIGEST = hashlib.sha256().digest_size


class _FromCache(threading.local):
    """How many programs this thread had from JAX's cache. XLA writes such programs, but what it writes does not run."""

    hits = 0

    def __call__(self, event: str, **_: object) -> None:
        self.hits += event == "/jax/compilation_cache/cache_hits"


_from_cache = _FromCache()
jax.monitoring.register_event_listener(_from_cache)


class Rest(NamedTuple):
    """A pytree without its arrays.

    Attributes:
        structure: of the tree.
        static: its leaves, with holes for arrays.
    """

    structure: Any
    static: tuple[Hashable, ...]

    def joined(self, leaves: list[Any]) -> Any:
        """The tree with these arrays."""
        arrays = iter(leaves)
        return jax.tree.unflatten(self.structure, [next(arrays) if leaf is _HOLE else leaf for leaf in self.static])


def split(tree: Any) -> tuple[list[Any], Rest]:
    """The arrays of a tree, and what is left of it."""
    leaves, structure = jax.tree.flatten(tree)
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    static = tuple(_HOLE if array else leaf for leaf, array in zip(leaves, is_array, strict=True))
    return arrays, Rest(structure, static)


class Executable:
    """A program that was taken from a file."""

    def __init__(self, path: Path, compiled: jax.stages.Compiled, rest: Rest) -> None:
        """As it was taken.

        Args:
            path: of the file.
            compiled: from a list of arrays to another.
            rest: of what it returns.
        """
        self._path, self._compiled, self._rest = path, compiled, rest
        self._works: bool | None = None

    def __call__(self, leaves: list[Any]) -> Any | None:
        """Run it; None where it does not run: some of what is missing in a file is missed when it first runs."""
        if self._works is False:
            return None
        try:
            arrays = self._compiled(leaves)
            if self._works is None:
                jax.block_until_ready(arrays)
            self._works = True
        except Exception:
            if self._works:
                raise
            self._works = False
            self._path.unlink(missing_ok=True)
            return None
        return self._rest.joined(arrays)


def keep(path: Path, compile_it: Callable[[], jax.stages.Compiled], rest: Rest) -> None:
    """Compile a program of a list of arrays and write it down, whole or not at all. What cannot be written is not kept.

    Args:
        path: where.
        compile_it: to the program.
        rest: of what it returns.
    """
    _from_cache.hits = 0
    compiled = compile_it()
    if _from_cache.hits:
        return
    with contextlib.suppress(Exception):
        payload, *_ = serialize_executable.serialize(compiled)
        data = zlib.compress(pickle.dumps((payload, rest.joined([_HOLE] * rest.static.count(_HOLE)))), level=1)
        descriptor, name = tempfile.mkstemp(prefix="new-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise


def taken(path: Path, leaves: list[Any]) -> Executable:
    """A program that was written down; one that cannot be read is deleted.

    Args:
        path: where it is.
        leaves: arguments such as it was compiled for, placed where it runs.

    Raises:
        Exception: it cannot be read, or not be loaded.
    """
    try:
        content = path.read_bytes()
        digest, data = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(data).digest() != digest:
            raise ValueError(f"'{path}' is damaged.")
        payload, template = pickle.loads(zlib.decompress(data))
        static, structure = jax.tree.flatten(template)
        compiled = serialize_executable.deserialize_and_load(
            payload,
            jax.tree.structure(((leaves,), {})),
            jax.tree.structure([0] * static.count(_HOLE)),
            execution_devices=_devices(leaves),
        )
        os.utime(path)
    except Exception:
        path.unlink(missing_ok=True)
        raise
    return Executable(path, compiled, Rest(structure, tuple(static)))


def _devices(leaves: list[Any]) -> list[Any]:
    """Where the arguments are, in the order of their mesh."""
    meshes = [leaf.sharding.mesh for leaf in leaves if isinstance(getattr(leaf, "sharding", None), NamedSharding)]
    return list(max(meshes, key=lambda mesh: mesh.size).devices.flat) if meshes else jax.local_devices()[:1]
