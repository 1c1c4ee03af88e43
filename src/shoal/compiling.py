"""How programs are compiled: so that the same seed gives the same draws, and on the cores that there are."""

import contextlib
import gc
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import PyTree

from shoal.compile_cache import ready_folder
from shoal.cores import cores
from shoal.ready import Densities, Placeholder, Ready, densities, form_of, keep, load, name_of, settings
from shoal.target import Target
from shoal.traced import scatters

LEVEL = "xla_backend_optimization_level"
# What XLA is told, by backend. On a CPU it merges equal expressions early in a program for several devices and late in
# one for a single device; products and sums then fuse, and round, otherwise. Leaving the pass out was measured to cost
# nothing. LLVM's second level takes 0.7 to 1 times as long as its third, and draws of the examples took 0.90 to 1.05
# times as long, 0.99 in the median of fifteen. On a GPU it adds up scattered terms in any order, and computes products
# by whichever of several programs was fastest on trial; being deterministic was measured (one H100) to cost a quarter
# to a half at 128 chains of `breast_cancer` and nothing at 4,096.
COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_disable_hlo_passes": "cse", LEVEL: 2},
    "gpu": {"xla_gpu_deterministic_ops": True},
}
# From so many chains on, sums of scattered terms in a fixed order are what takes the time.
MANY_CHAINS = 1024

# Two threads that launched programs for several devices at one time could have them wait for each other: each device
# takes what comes first.
_LAUNCHES = threading.RLock()

# New objects after which Python looks for garbage while a program is traced.
OBJECTS = 50_000
_COLLECTING = threading.Lock()

_deterministic: ContextVar[bool] = ContextVar("deterministic", default=True)
_background: ContextVar["_Background | None"] = ContextVar("background", default=None)


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Whether programs that are compiled meanwhile give the same draws for the same seed on a GPU, too."""
    token = _deterministic.set(wanted)
    try:
        yield
    finally:
        _deterministic.reset(token)


def is_deterministic() -> bool:
    """Whether programs compiled now do."""
    return _deterministic.get()


def compiler_options(backend: str) -> dict[str, Any]:
    """What XLA is told on a backend."""
    if backend == "gpu" and not is_deterministic():
        return {}
    options = COMPILER_OPTIONS.get(backend, {})
    # Who asks JAX for next to no optimisation gets that.
    own = LEVEL if jax.config.values["jax_disable_most_optimizations"] else None
    return {name: value for name, value in options.items() if name != own}


def _options() -> dict[str, Any]:
    return compiler_options(jax.default_backend())


def launching() -> contextlib.AbstractContextManager[Any]:
    """Held while a program for several devices is launched: one thread at a time."""
    return _LAUNCHES


@contextlib.contextmanager
def background() -> Iterator[None]:
    """Let programs be compiled on other cores meanwhile (`Compiled.ahead`), if there are any, and kept for later."""
    workers = ThreadPoolExecutor(cores() - 1, thread_name_prefix="shoal-compile") if cores() > 1 else None
    tokens = _background.set(_Background(workers, {}, deque())), densities.set(Densities())
    try:
        yield
        keep_compiled()
    finally:
        _background.reset(tokens[0])
        densities.reset(tokens[1])
        if workers is not None:
            workers.shutdown(wait=False, cancel_futures=True)


def keep_compiled() -> None:
    """Keep the programs that have been compiled so far for later processes."""
    known, running = densities.get(), _background.get()
    if known is None or running is None or not running.unkept:
        return
    changed = known.have_changed()
    while running.unkept:
        program = running.unkept.popleft()
        if not changed:
            keep(*program)


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """Have Python look for garbage less often meanwhile: what is traced stays, and a look goes through all of it."""
    with _COLLECTING:
        before = gc.get_threshold()
        if seldom := 0 < before[0] < OBJECTS:
            gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        with _COLLECTING:
            if seldom and gc.get_threshold()[0] == OBJECTS:
                gc.set_threshold(*before)


class _Begun(NamedTuple):
    """A program that is compiled on another core, or will be; whoever needs it before that finishes it."""

    future: Future[Ready | None]
    finish: Callable[[], Ready | None]


class _Background(NamedTuple):
    """What is compiled on other cores: by whom, and by what it is for; and what has been and is to be kept."""

    workers: ThreadPoolExecutor | None
    begun: dict[Hashable, _Begun]
    unkept: deque[tuple[Path, Any, PyTree]]


class Compiled[**P, R]:
    """A function compiled with the `compiler_options` of the default backend, once for each form of its arguments."""

    def __init__(self, function: Callable[P, R]) -> None:
        """Compile nothing yet.

        Args:
            function: of pytrees; what is not an array is compiled in.
        """
        update_wrapper(self, function)
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.bound(*args, **kwargs)(*args, **kwargs)

    def bound(self, *args: P.args, **kwargs: P.kwargs) -> Callable[P, R]:
        """The program for arguments such as these, for many calls: it does not look at the form of what it is given."""
        if _runs_in_python((args, kwargs)):
            return self._function
        if _looks_for_nan():
            # equinox hands what it does not know on to jax.jit, which its types do not say.
            return eqx.filter_jit(self._function, compiler_options=_options())  # pyright: ignore[reportCallIssue]
        running, form = _background.get(), self._form(args, kwargs)
        begun = None if running is None else running.begun.pop(form, None)
        finish = None
        if begun is not None and begun.future.cancel():
            finish = begun.finish  # what has not begun is not waited for
        elif begun is not None:
            with contextlib.suppress(Exception):  # what went wrong there goes wrong below
                begun.future.result()
        with _LAUNCHES, collecting_seldom():
            program = _PROGRAMS.get(form) or (finish or self._begun(args, kwargs))()
            program = _remember(form, program or self._anew(args, kwargs, self._path(args, kwargs))())

        def launched(*args: P.args, **kwargs: P.kwargs) -> R:
            with _LAUNCHES:
                return program(_arrays((args, kwargs)))

        return launched

    def ahead(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Begin to compile for arguments such as these on another core; a call with such arguments waits for it.

        Nothing is done where no other core is to be used (`background`).
        """
        running = _background.get()
        if running is None or running.workers is None or _runs_in_python((args, kwargs)):
            return
        form = self._form(args, kwargs)
        if form not in running.begun and form not in _PROGRAMS:
            # Tracing is Python's and stays in this thread, with its settings; XLA's part does not hold Python up.
            finish = self._begun(args, kwargs)
            future = running.workers.submit(lambda: _remember(form, finish()))
            running.begun[form] = _Begun(future, finish)

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The program for arguments such as these, from arrays to a list of arrays, traced and not compiled."""
        return self._traced(args, kwargs)[0]

    def _begun(self, args: Any, kwargs: Any) -> Callable[[], Ready | None]:
        """What is left to do for a program after this thread's part; None comes of it where a kept one is damaged."""
        path = self._path(args, kwargs)
        return partial(load, path) if path is not None and path.exists() else self._anew(args, kwargs, path)

    def _path(self, args: Any, kwargs: Any) -> Path | None:
        """Where the program is kept as it runs, or would be; None where it is not to be."""
        folder = None if densities.get() is None else ready_folder()
        name = None if folder is None else name_of(self._function, _options(), (args, kwargs))
        return None if folder is None or name is None else folder / name

    def _anew(self, args: Any, kwargs: Any, path: Path | None) -> Callable[[], Ready]:
        """As `_begun`, of a program that is traced, and is to be kept there."""
        known, running = densities.get(), _background.get()
        if path is None or known is None or running is None:
            traced, made = self._traced(args, kwargs)
            return lambda: Ready(traced.compile(), made)
        args, kwargs = jax.tree.map(
            lambda node: known.anew(node) if isinstance(node, Target) else node,
            (args, kwargs),
            is_leaf=lambda node: isinstance(node, Target),
        )
        # XLA writes down no more than a part of what it has itself read from JAX's cache: there it is not to be found.
        traced, made = self._traced(args, kwargs, f"_{os.urandom(6).hex()}")

        def compiled() -> Ready:
            program = traced.compile()
            running.unkept.append((path, program, made))
            return Ready(program, made)

        return compiled

    def _traced(self, args: Any, kwargs: Any, ending: str = "") -> tuple[Any, PyTree]:
        """The program, whose name ends so, and what it returns, with placeholders for arrays."""
        function: Callable[..., Any] = self._function
        arrays, rest = eqx.partition((args, kwargs), eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        returned: list[PyTree] = []

        def of_arrays(*leaves: jax.Array) -> list[jax.Array]:
            args, kwargs = eqx.combine(jax.tree.unflatten(structure, leaves), rest)
            filled, others = eqx.partition(function(*args, **kwargs), eqx.is_array)
            filled, where = jax.tree.flatten(filled)
            placeholders = jax.tree.unflatten(where, [Placeholder(number) for number in range(len(filled))])
            returned.append(eqx.combine(placeholders, others))
            return filled

        of_arrays.__name__ = function.__name__ + ending
        with collecting_seldom():
            # jax.jit knows the options of compilers; its types do not.
            program: Any = jax.jit(of_arrays, compiler_options=dict(_options()))
            return program.lower(*leaves), returned[0]

    def _form(self, *arguments: Any) -> Hashable:
        """What is the same for arguments that one program serves."""
        leaves, structure = jax.tree.flatten(arguments)
        options = frozenset(_options().items())
        each = tuple(form_of(leaf) if eqx.is_array(leaf) else (type(leaf), leaf) for leaf in leaves)
        return self._function, options, settings(), structure, each


# The programs of this process, the latest used last. Each is some hundred memory maps, of which Linux grants 65,530.
_PROGRAMS: dict[Hashable, Ready] = {}
_REMEMBERING = threading.Lock()
MOST_PROGRAMS = 128


def forget_programs() -> None:
    """Free all programs of this process, and what JAX remembers."""
    with _REMEMBERING:
        _PROGRAMS.clear()
    jax.clear_caches()


def _remember[Made: Ready | None](form: Hashable, program: Made) -> Made:
    """Put a program last, and forget those that were used longest ago."""
    with _REMEMBERING:
        _PROGRAMS.pop(form, None)
        if program is not None:
            _PROGRAMS[form] = program
        for oldest in list(_PROGRAMS)[:-MOST_PROGRAMS]:
            del _PROGRAMS[oldest]
    return program


def _runs_in_python(arguments: Any) -> bool:
    """Whether nothing is to be compiled: JAX is told so, or is tracing what calls it."""
    config: Any = jax.config
    return config.jax_disable_jit or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments))


def _looks_for_nan() -> bool:
    """Whether JAX is to say which operation made a NaN: of what was compiled ahead of time it does not know."""
    config: Any = jax.config
    return config.jax_debug_nans or config.jax_debug_infs


def _arrays(arguments: Any) -> list[jax.Array]:
    return [leaf for leaf in jax.tree.leaves(arguments) if eqx.is_array(leaf)]


def compiled[**P, R](function: Callable[P, R]) -> Compiled[P, R]:
    """`function` as a compiled one."""
    return Compiled(function)


def warn_of_slow_sums(target: Target, dtype: DTypeLike, num_chains: int) -> None:
    """Say so where determinism is dear: sums of scattered terms for many chains on a GPU."""
    dear = jax.default_backend() == "gpu" and is_deterministic() and num_chains >= MANY_CHAINS
    if dear and scatters(target, dtype):
        warnings.warn(
            "The gradient of this model adds up terms by index (as that of level[group] does), and doing so in a fixed "
            f"order can be slow on a GPU with {num_chains:,} chains: 11 times, in one measurement with 4,096. "
            "deterministic=False adds them up in any order; the same seed then gives other draws from the same "
            "posterior.",
            stacklevel=3,
        )
