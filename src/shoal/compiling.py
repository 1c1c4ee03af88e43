"""How programs are compiled, so that the same seed gives the same draws."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.target import Target

# What XLA is told, by backend. On a CPU it merges equal expressions early in a program for several devices and late in
# one for a single device; products and sums then fuse, and round, otherwise. Leaving the pass out was measured to cost
# nothing. On a GPU it adds up scattered terms in any order, and computes products by whichever of several programs was
# fastest on trial; being deterministic was measured (one H100) to cost a quarter to a half at 128 chains of
# `breast_cancer` and nothing at 4,096.
COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_disable_hlo_passes": "cse"},
    "gpu": {"xla_gpu_deterministic_ops": True},
}
# From so many chains on, sums of scattered terms in a fixed order are what takes the time.
MANY_CHAINS = 1024

_deterministic: ContextVar[bool] = ContextVar("deterministic", default=True)


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
    return {} if backend == "gpu" and not is_deterministic() else COMPILER_OPTIONS.get(backend, {})


def compiled[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """`function` compiled with the `compiler_options` of the default backend."""

    @cache
    def program(options: frozenset[tuple[str, Any]]) -> Callable[P, R]:
        # equinox hands what it does not know on to jax.jit, which its types do not say.
        return eqx.filter_jit(function, compiler_options=dict(options))  # pyright: ignore[reportCallIssue]

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return program(frozenset(compiler_options(jax.default_backend()).items()))(*args, **kwargs)

    return call


def scatters(target: Target, dtype: DTypeLike) -> bool:
    """Whether the gradient of the log density adds up several terms by index, as that of `level[group]` does."""
    position = jnp.zeros((1, target.dim), dtype)
    return _has_scatter(jax.make_jaxpr(target.gradient)(position).jaxpr)


def _has_scatter(jaxpr: Any) -> bool:
    def adds_up(equation: Any) -> bool:
        if equation.primitive.name != "scatter-add" or equation.params["unique_indices"]:
            return False
        return bool(np.prod(equation.invars[1].aval.shape[:-1]) > 1)

    inner = (sub for equation in jaxpr.eqns for sub in jax.tree.leaves(list(equation.params.values())))
    return any(adds_up(equation) for equation in jaxpr.eqns) or any(
        _has_scatter(getattr(sub, "jaxpr", sub)) for sub in inner if hasattr(getattr(sub, "jaxpr", sub), "eqns")
    )


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
