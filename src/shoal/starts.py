"""Where chains begin: dispersed points, one per superchain, at which the log density is finite.

Chains that share a start disagree with those of other superchains until they have forgotten it: that is what
nested R-hat measures (Margossian et al., 2024, arXiv:2110.13017).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from shoal.compiling import compiled
from shoal.diagnostics.findings import Finding
from shoal.models.model import Model
from shoal.target import Target

# Stan's and NumPyro's rule for starts: uniform on (-2, 2) in each unconstrained coordinate.
RADIUS = 2.0
ATTEMPTS = 100
MOST_SUPERCHAINS = 64
FEW_CHAINS = 16
_STARTS = 2**32 - 1  # sets the starts' key apart from the keys of draws, which count from 0


# From the positions of all chains to the log density and its gradient there.
Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Starts(NamedTuple):
    """Where chains begin.

    Attributes:
        position: unconstrained.
        superchain: which chains began at the same point.
        findings: what had to be done to get there.
        chosen: whether they are where the user wants them.
    """

    position: Float[np.ndarray, "chains dim"]
    superchain: Int[np.ndarray, " chains"]
    findings: tuple[Finding, ...]
    chosen: bool = False


def default_superchains(num_chains: int) -> int:
    """About as many superchains as chains in each, a power of two, at most 64; below 16 chains, one each."""
    if num_chains < FEW_CHAINS:
        return num_chains
    return min(MOST_SUPERCHAINS, 2 ** int(np.log2(np.sqrt(2 * num_chains))))


def dispersed(
    model: Model,
    target: Target,
    root: PRNGKeyArray,
    num_chains: int,
    num_superchains: int,
    dtype: type,
    evaluate: Evaluate | None = None,
) -> Starts:
    """Points uniform on (-2, 2)^dim, one per superchain.

    Points where the log density or its gradient is not finite are drawn again, and a finding says how many.

    Args:
        model: what is sampled.
        target: its log density.
        root: the key of the run.
        num_chains: the number of chains.
        num_superchains: the number of points.
        dtype: of positions.
        evaluate: what the first points are evaluated by, of all chains, where a program for that is compiled anyway.

    Raises:
        ValueError: some point was not finite in any attempt; the message names the parameter.
    """
    key = key_of_starts(root)
    points = np.empty((num_superchains, model.dim), dtype)
    superchain = np.arange(num_chains) * num_superchains // num_chains
    missing = np.arange(num_superchains)
    redrawn = 0
    for attempt in range(ATTEMPTS):
        drawn = _points(key, jnp.asarray(attempt, jnp.int32), points.shape, dtype)
        points[missing] = np.asarray(drawn)[missing]
        finite = _finite(target, points, superchain, None if attempt else evaluate)
        missing = missing[~finite[missing]]
        if missing.size == 0:
            break
        redrawn += missing.size
    else:
        raise ValueError(why_not_finite(model, target, points[missing[0]], missing.size, num_superchains))
    return Starts(points[superchain], superchain, starts_redrawn(redrawn, num_superchains))


def given(model: Model, target: Target, positions: Any, num_chains: int, dtype: type) -> Starts:
    """The user's own starts; chains whose starts are equal make up a superchain.

    Args:
        model: what is sampled.
        target: its log density.
        positions: `{parameter: [chains, *shape]}` on the supports, or an unconstrained array `[chains, dim]`.
        num_chains: the number of chains.
        dtype: of the positions.

    Raises:
        ValueError: a wrong name or shape, a value off its support, or a start that is not finite.
    """
    layout = model.layout
    expected = (num_chains, layout.num_free)
    if isinstance(positions, Mapping):
        try:
            position = np.asarray(model.unconstrain(positions), dtype)
        except ValueError as error:
            raise ValueError(f"initial_positions: {error}") from error
        shape = (*position.shape[:-1], layout.num_free)
    else:
        position = np.asarray(positions, dtype)
        shape = position.shape
        position = layout.in_order(position) if shape == expected else position
    if shape != expected:
        raise ValueError(
            f"initial_positions: got an array of shape {shape}, expected one row per chain and one column per "
            f"unconstrained coordinate, {expected}, or a mapping from each parameter to an array with a leading axis "
            "of chains. num_chains must agree with it."
        )
    points, superchain = np.unique(position, axis=0, return_inverse=True)
    points, superchain = _in_order(points, superchain.reshape(-1))
    bad = np.flatnonzero(~np.asarray(is_finite_at(target, jnp.asarray(points))))
    if bad.size:
        why = why_not_finite(model, target, points[bad[0]], bad.size, len(points))
        raise ValueError(f"initial_positions: chain {np.argmax(superchain == bad[0])}. {why}")
    return Starts(position, superchain, (), chosen=True)


def _in_order(points: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the groups by their first chain."""
    _, first = np.unique(group, return_index=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return points[order], rank[group]


@compiled
def _points(
    key: PRNGKeyArray, attempt: Int[Array, ""], shape: tuple[int, int], dtype: type
) -> Float[Array, "points dim"]:
    return points_of(key, attempt, shape, dtype)


def _finite(target: Target, points: np.ndarray, superchain: np.ndarray, evaluate: Evaluate | None) -> np.ndarray:
    """Whether each point is one to begin at."""
    if evaluate is None:
        return np.asarray(is_finite_at(target, jnp.asarray(points)))
    log_density, gradient = evaluate(points[superchain])
    finite = np.isfinite(log_density) & np.isfinite(gradient).all(-1)
    return finite[np.searchsorted(superchain, np.arange(len(points)))]


def key_of_starts(root: PRNGKeyArray) -> PRNGKeyArray:
    """The key of the points at which the chains of a run begin."""
    return jax.random.fold_in(root, _STARTS)


def points_of(key: PRNGKeyArray, attempt: Int[Array, ""], shape: tuple[int, int], dtype: Any) -> Array:
    """The points of an attempt, whether one can begin there or not; the first of many are those of few."""
    return jax.random.uniform(jax.random.fold_in(key, attempt), shape, dtype, -RADIUS, RADIUS)


@compiled
def is_finite_at(target: Target, position: Float[Array, "points dim"]) -> Bool[Array, " points"]:
    """Whether log density and gradient are finite, so that a chain can begin there."""
    log_density, gradient = target(position)
    return jnp.isfinite(log_density) & jnp.isfinite(gradient).all(-1)


def starts_redrawn(count: int, num_superchains: int) -> tuple[Finding, ...]:
    """What to say of starts that had to be drawn again."""
    if count == 0:
        return ()
    words = (
        f"{count} starting points, drawn uniformly on (-2, 2) in the unconstrained coordinates for "
        f"{num_superchains} superchains, had a log density or gradient that was not finite and were drawn again."
    )
    remedy = "Harmless if the log density overflows far from the bulk. Otherwise pass initial_positions=."
    return (Finding("starts redrawn", "starts", float(count), words, remedy, blocking=False),)


def why_not_finite(model: Model, target: Target, point: np.ndarray, bad: int, points: int) -> str:
    """One paragraph: what is not finite, which parameter is to blame, and what to do."""
    log_density, gradient = (np.asarray(part)[0] for part in _value(target, jnp.asarray(point[None])))
    names = np.array(model.layout.parameters())
    what = f"the log density is {log_density}" if not np.isfinite(log_density) else "its gradient is not finite"
    is_finite = lambda trials: np.asarray(is_finite_at(target, jnp.asarray(trials)))
    culprits = culprits_at(point, names, gradient, is_finite)
    where = f"The cause is in {', '.join(culprits)}" if culprits else "No single parameter is the cause"
    values = model.constrain(point)
    shown = ", ".join(f"{name} = {_short(values[name])}" for name in (culprits or model.parameter_names)[:3])
    return (
        f"The log density cannot be sampled at {bad} of {points} starting points: {what}. {where} (there "
        f"{shown}). Check the log density for log(0), 0/0, overflow, or a support narrower than the declared "
        "one; or pass initial_positions= with points where it is finite."
    )


@eqx.filter_jit
def _value(target: Target, position: Float[Array, "points dim"]) -> tuple[Array, Array]:
    return target(position)


def log_density_at(target: Target, position: Float[Array, "points dim"]) -> Float[Array, " points"]:
    """The log density at some points."""
    return _value(target, position)[0]


def culprits_at(
    point: np.ndarray, names: np.ndarray, gradient: np.ndarray, is_finite: Callable[[np.ndarray], np.ndarray]
) -> list[str]:
    """Parameters with a non-finite gradient, if not all have; else those whose change alone makes it finite.

    Args:
        point: `[dim]`, where the log density or its gradient is not finite.
        names: `[dim]`, the parameter of each coordinate.
        gradient: `[dim]`.
        is_finite: of points `[trials, dim]`, whether both are.
    """
    every = list(dict.fromkeys(names))
    bad = [name for name in every if not np.isfinite(gradient[names == name]).all()]
    if 0 < len(bad) < len(every) or len(every) == 1:
        return bad or every
    found = []
    for name in every:
        trials = np.repeat(point[None], 9, 0)
        trials[:, names == name] = np.linspace(-RADIUS, RADIUS, 9, dtype=point.dtype)[:, None]
        if is_finite(trials).any():
            found.append(name)
    return found


def _short(value: Any) -> str:
    return np.array2string(np.asarray(value), precision=3, threshold=4, edgeitems=2)
