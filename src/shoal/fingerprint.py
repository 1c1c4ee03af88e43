"""What a compiled program depends on, as a hash: another process finds the program by it, without tracing.

Whatever is not known to be told whole has no hash, and then the program is traced: the user's own functions are told by
the jaxprs that they trace to, Shoal's by their names and the text of all its files, values by their bytes.
"""

import dataclasses
import enum
import functools
import hashlib
import inspect
import os
import platform
import sys
from collections.abc import Callable, Hashable, Sequence
from functools import cache, singledispatchmethod
from importlib.metadata import version
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Literal
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding

from shoal.target import Target

PACKAGES = ("jax", "jaxlib", "equinox", "numpyro", "numpy")
# Of whose classes and functions a name tells all: their versions are told.
TRUSTED = ("shoal", "jax", "jaxlib", "numpy", "equinox", "builtins")
# They keep rules for derivatives, which were used where the derivative was traced.
WITH_RULES = ("custom_jvp_call", "custom_vjp_call")
# What they do is not in the jaxpr.
OPAQUE = ("callback", "pallas", "ffi", "custom_partitioning", "infeed", "outfeed")
# Of JAX's settings, where programs are kept, and not what they are.
ELSEWHERE = ("cache",)


class Unknown(Exception):
    """Something that cannot be told whole."""


def fingerprint(function: Callable[..., Any], arguments: Sequence[Any], options: Any) -> str | None:
    """A hash of all that a program depends on; None where that cannot be told.

    Args:
        function: that is compiled; one of Shoal's.
        arguments: it is compiled for. A `Target` in them is told by what it traces to for as many positions as make a
            tile, which the `tile` of one of the arguments says.
        options: what XLA is told.
    """
    tile = next((argument.tile for argument in arguments if hasattr(argument, "tile")), None)
    told = _Told(tile)
    try:
        told.name_of(function)
        told.value(arguments)
        told.value(sorted(options))
    except Exception:  # an optional saving: whatever goes wrong in it, programs are traced
        return None
    return hashlib.sha256("\n".join([*_surroundings(), repr(settings()), told.digest]).encode()).hexdigest()


def settings() -> tuple[Hashable, ...]:
    """JAX's, as they are in this thread: a program that was traced with others is another."""
    config: Any = jax.config
    return tuple(getattr(config, name, None) for name in _names_of_settings())


@cache
def _names_of_settings() -> tuple[str, ...]:
    return tuple(sorted(name for name in jax.config.values if not any(word in name for word in ELSEWHERE)))


@cache
def _surroundings() -> tuple[str, ...]:
    """What is the same for all programs of a process."""
    source = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        source.update(path.read_bytes())
    devices = jax.local_devices()
    return (
        source.hexdigest(),
        platform.python_version(),
        *(f"{name} {version(name)}" for name in PACKAGES),
        *(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(("XLA_", "LIBTPU_"))),
        devices[0].client.platform_version,
        *(f"{device.platform} {device.device_kind} {device.id}" for device in devices),
    )


class _Told:
    """A hash that things are told to, one after another."""

    def __init__(self, tile: int | None) -> None:
        self._hash = hashlib.sha256()
        self._tile = tile
        self._jaxprs: dict[int, tuple[Jaxpr, str]] = {}

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def say(self, *words: Any) -> None:
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            self._hash.update(b"%d:" % len(data) + data)

    @singledispatchmethod
    def value(self, thing: Any) -> None:
        """A pytree of arrays and of what describes a computation."""
        if not dataclasses.is_dataclass(thing):
            raise Unknown(type(thing))
        self.name_of(type(thing))
        for field in dataclasses.fields(thing):
            self.say(field.name)
            self.value(getattr(thing, field.name, None))

    @value.register(NoneType | bool | int | float | complex | str | bytes | np.dtype)
    def _(self, thing: Any) -> None:
        self.say(type(thing).__name__, repr(thing))

    @value.register(np.ndarray | np.generic)
    def _(self, thing: Any) -> None:
        self.constant(thing)

    @value.register(jax.Array)
    def _(self, thing: Any) -> None:
        kind = jax.typeof(thing)
        self.say("array", kind.str_short(), getattr(kind, "weak_type", False), thing.committed)
        self.value(thing.sharding)

    @value.register
    def _(self, thing: NamedSharding) -> None:
        self.say("named", repr(thing.spec), thing.memory_kind)
        self.value(thing.mesh)

    @value.register
    def _(self, thing: SingleDeviceSharding) -> None:
        self.say("single", thing.memory_kind)
        self.value(list(thing.device_set))

    @value.register
    def _(self, thing: Mesh) -> None:
        self.say("mesh", thing.axis_names, thing.axis_types)
        self.value(list(thing.devices.flat) if thing.axis_names else [])

    @value.register(jax.Device)
    def _(self, thing: Any) -> None:
        self.say("device", thing.platform, thing.device_kind, thing.id)

    @value.register
    def _(self, thing: enum.Enum) -> None:
        self.name_of(type(thing))
        self.say(thing.name)

    @value.register
    def _(self, thing: functools.partial) -> None:
        self.say("partial")
        self.value((thing.func, thing.args, thing.keywords))

    @value.register(FunctionType | BuiltinFunctionType | type)
    def _(self, thing: Any) -> None:
        self.name_of(thing)

    @value.register
    def _(self, thing: dict) -> None:
        self.say("dict", len(thing))
        for item in thing.items():
            self.value(item)

    @value.register(tuple | list)
    def _(self, thing: Any) -> None:
        self.name_of(type(thing))
        self.say(len(thing))
        for item in thing:
            self.value(item)

    @value.register
    def _(self, thing: Target) -> None:
        """By what its functions trace to, derivatives included, at the positions of a tile."""
        if self._tile is None:
            raise Unknown(thing)
        # Sampling in double precision has JAX use it throughout.
        position = jnp.zeros((self._tile, thing.dim))
        for function in (Target.__call__, Target.constrained):
            traced = jax.make_jaxpr(lambda target, position, function=function: function(target, position))
            self.value(traced(thing, position))
        self.value(thing.data)

    @value.register
    def _(self, thing: Jaxpr) -> None:
        """By its hash, since one may occur many times. It is held, so that nothing else gets its identity."""
        if id(thing) not in self._jaxprs:
            inner = _Told(self._tile)
            inner._jaxprs = self._jaxprs
            inner.equations(thing)
            self._jaxprs[id(thing)] = thing, inner.digest
        self.say(self._jaxprs[id(thing)][1])

    def name_of(self, thing: Any) -> None:
        """A class or a function that its module has by this name, so that the name tells all."""
        module, name = getattr(thing, "__module__", None) or "", getattr(thing, "__qualname__", "<")
        if module.partition(".")[0] not in TRUSTED or "<" in name:
            raise Unknown(thing)
        there = functools.reduce(getattr, name.split("."), sys.modules[module])
        if inspect.unwrap(there) is not inspect.unwrap(thing):
            raise Unknown(thing)
        self.say(module, name)

    def constant(self, value: Any) -> None:
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise Unknown(array.dtype)
        self.say("constant", array.shape, array.dtype, array.tobytes())

    def equations(self, jaxpr: Jaxpr) -> None:
        numbers: dict[Any, int] = {}
        constants = getattr(jaxpr, "consts", ())
        if len(constants) != len(jaxpr.constvars):
            raise Unknown(jaxpr)
        for constant in constants:
            self.constant(constant)
        self.bound(jaxpr.constvars, numbers)
        self.bound(jaxpr.invars, numbers)
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if equation.effects or any(word in name for word in OPAQUE):
                raise Unknown(name)
            self.say(name)
            self.used(equation.invars, numbers)
            self.bound(equation.outvars, numbers)
            for key, parameter in sorted(equation.params.items()):
                self.say(key)
                self.parameter(parameter, skip=name in WITH_RULES)
        self.used(jaxpr.outvars, numbers)

    def bound(self, variables: Sequence[Any], numbers: dict[Any, int]) -> None:
        for variable in variables:
            numbers[variable] = len(numbers)
            self.say(variable.aval.str_short(), getattr(variable.aval, "weak_type", False))

    def used(self, atoms: Sequence[Any], numbers: dict[Any, int]) -> None:
        for atom in atoms:
            if isinstance(atom, Literal):
                self.constant(atom.val)
                self.say(getattr(atom.aval, "weak_type", False))
            else:
                self.say(numbers[atom])

    def parameter(self, thing: Any, skip: bool) -> None:
        """Of an equation.

        Args:
            thing: what it is.
            skip: whether functions in it are of no further use.
        """
        match thing:
            case Jaxpr() | Mesh():
                self.value(thing)
            case np.ndarray() | jax.Array():
                self.constant(thing)
            case dict():
                self.parameter(sorted(thing.items()), skip)
            case tuple() | list() if not hasattr(thing, "_fields"):
                self.say(type(thing).__name__, len(thing))
                for item in thing:
                    self.parameter(item, skip)
            case _ if callable(thing) and not isinstance(thing, type):
                if not skip:
                    raise Unknown(thing)
            case _:
                self.described(thing)

    def described(self, thing: Any) -> None:
        """What says all there is to say of itself."""
        words = repr(thing)
        if " at 0x" in words or "..." in words:
            raise Unknown(thing)
        self.say(type(thing).__name__, words)
