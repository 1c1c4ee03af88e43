"""What sampling needs of a model, without its data, and evaluating it at many points on the host."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.models import datasets
from shoal.models.formula import LIKELIHOOD, LogDensity, Parts
from shoal.models.layout import Layout
from shoal.models.parted import InParts, LogDensityInParts, OfSpare, Parted, UnconstrainInParts
from shoal.models.precision import current
from shoal.models.predictive import Predictive
from shoal.models.rows import number_of_rows
from shoal.target import Target

# So many rows say whether a log likelihood is a sum over rows: by this share, and a constant as large; at points that
# are uniform on (-2, 2) in each unconstrained coordinate, and nearer to the middle.
SOME_ROWS, SAME_SUM, RADII = 1000, 1e-5, (1.0, 0.5, 0.1)


@dataclass(frozen=True)
class Compiled:
    """What sampling needs of a model, compared by value; it holds no data.

    Attributes:
        layout: parameters on the unconstrained vector.
        log_density: `(position[dim], data) -> scalar`.
        constrain: `(position[dim], data) -> {name: value}`.
        unconstrain: `({name: value}, data) -> position[dim]`.
        deterministic: name and shape of what `constrain` gives beside the parameters.
        fixed_data: why the data cannot be swapped, in words; empty when they can.
        allow_nonfinite: whether data may hold NaN and infinity (behind a mask).
        parts: `(position[dim], data) -> {words: scalar}`, the terms whose sum the log density is; None where they are
            not known.
        maps: `(position[dim], data) -> {name: (constraint, map)}` of each parameter: NumPyro's constraint, and
            `map(free) -> (value, log|J|)` onto it; None where they are not known.
        predictive: how data are drawn given parameters; None where the model does not say.
        row_block: the most rows of the data that are evaluated at once; None where the log density is not known as a
            sum over rows.
        beside: `(position[dim]) -> scalar`, what of the log density is not of the model; None where all of it is.
        whole: the same functions of positions that are not in parts; None where these are.
    """

    layout: Layout
    log_density: Callable[..., Any]
    constrain: Callable[..., Any]
    unconstrain: Callable[..., Any]
    deterministic: tuple[tuple[str, tuple[int, ...]], ...] = ()
    fixed_data: str = ""
    allow_nonfinite: bool = False
    parts: Callable[..., dict[str, Any]] | None = None
    maps: Callable[..., dict[str, tuple[Any, Callable[..., Any]]]] | None = None
    predictive: Predictive | None = None
    row_block: int | None = None
    beside: Callable[..., Any] | None = None
    whole: "Compiled | None" = None


def in_parts(compiled: Compiled, parts: int) -> Compiled:
    """The same functions, of positions in so many equal parts (`Parted`).

    Args:
        compiled: of positions as a `Layout` has them, which they take apart by it.
        parts: how many.
    """
    layout = Parted(compiled.layout.slots, parts)
    terms, maps = compiled.parts, compiled.maps
    return replace(
        compiled,
        layout=layout,
        log_density=LogDensityInParts(compiled.log_density, layout),
        constrain=InParts(compiled.constrain, layout),
        unconstrain=UnconstrainInParts(compiled.unconstrain, layout),
        parts=None if terms is None else InParts(terms, layout),
        maps=None if maps is None else InParts(maps, layout),
        beside=OfSpare(layout) if layout.num_spare else None,
        whole=compiled,
    )


def with_row_block(compiled: Compiled, block: int) -> Compiled:
    """The same functions, of which the log density evaluates at most so many rows at once.

    Args:
        compiled: of a model whose log density is a sum over rows.
        block: rows.

    Raises:
        ValueError: it is not known as a sum over rows.
    """
    if compiled.row_block is None:
        raise ValueError(
            f"row_block={block} cuts a sum over rows into blocks, but the log density of this model is not known as "
            "one. Give shoal.Model the two parts log_prior(params) and log_likelihood(params, rows), with data= whose "
            "leaves share their leading axis."
        )
    if compiled.whole is not None:
        assert isinstance(compiled.layout, Parted)
        return in_parts(with_row_block(compiled.whole, block), compiled.layout.parts)
    assert isinstance(compiled.log_density, LogDensity)
    formula = compiled.log_density.formula.with_row_block(block)
    return replace(compiled, log_density=LogDensity(formula), parts=Parts(formula), row_block=block)


def check_blocks(compiled: Compiled, data: Any) -> None:
    """Refuse a log likelihood that would be evaluated in blocks and is not the sum of those of its rows.

    Raises:
        ValueError: as `check_sum_over_rows`.
    """
    if compiled.row_block is not None and number_of_rows(data) > compiled.row_block:
        check_sum_over_rows(compiled, data)


def check_sum_over_rows(compiled: Compiled, data: Any) -> None:
    """Refuse a log likelihood that is not the sum of those of its rows, before it is evaluated in parts.

    Looked at are value and gradient at some points, as far as they are finite there.

    Args:
        compiled: of a model with `log_likelihood`.
        data: as from `shoal.models.datasets.read`.

    Raises:
        ValueError: that of some rows is not the sum of those of its halves.
    """
    compiled = compiled.whole or compiled
    half = max(1, min(SOME_ROWS, number_of_rows(data)) // 2)
    terms = with_row_block(compiled, 2 * half).parts
    assert terms is not None
    pieces = [slice(half), slice(half, 2 * half), slice(2 * half)]
    seen = jax.tree.map(lambda leaf: leaf[pieces[2]], data)
    uniform = np.random.default_rng(0).uniform(-2.0, 2.0, (len(RADII), compiled.layout.dim))

    def of_pieces() -> Any:
        def at(point: Any, rows: Any) -> list[Any]:
            def of(piece: slice) -> Any:
                some = jax.tree.map(lambda leaf: leaf[piece], rows)
                value, gradient = jax.value_and_grad(lambda point: terms(point, some)[LIKELIHOOD])(point)
                return jnp.append(gradient, value)

            return [of(piece) for piece in pieces]

        points = (np.array(RADII)[:, None] * uniform).astype(current())
        return jax.jit(jax.vmap(at, in_axes=(0, None)))(points, datasets.cast(seen, current()))

    # Also while something is traced.
    with jax.ensure_compile_time_eval():
        found = in_precision(np.dtype(np.float64), of_pieces)
    first, second, both = (np.asarray(part, float) for part in found)
    size = np.abs(first) + np.abs(second)
    finite = np.isfinite(size + both).all(1)
    # Of a gradient the largest derivative says what counts.
    scale = np.where(np.arange(size.shape[1]) < size.shape[1] - 1, size[:, :-1].max(1, initial=0.0)[:, None], size)
    apart = np.abs(both - first - second) - SAME_SUM * scale - SAME_SUM
    if finite.any() and (apart[finite] > 0).any():
        worst = np.flatnonzero(finite)[np.argmax(apart[finite].max(1))]
        value, halves = both[worst, -1], (first[worst, -1], second[worst, -1])
        raise ValueError(
            f"log_likelihood(params, rows) is {value:.7g} at the first {2 * half} rows, but {halves[0]:.7g} and "
            f"{halves[1]:.7g} at the halves of them, which make {sum(halves):.7g}. It must be the sum over the rows "
            "that it is given, since it is evaluated on some of them at a time: what does not depend on the rows "
            "belongs into log_prior, and a mean over rows is to be a sum. Or give one log_density(params, data) "
            "instead."
        )


def in_precision(dtype: np.dtype, compute: Callable[[], Any]) -> Any:
    """Compute in single or double, and in single where a replayed model has been traced in it before.

    See `shoal.models.precision.shape_of`: a NumPyro model that closes over numpy arrays cannot be replayed in both.

    Args:
        dtype: float32 or float64.
        compute: what to do, in the precision that `current()` then says.

    Returns:
        What it returns.
    """
    with jax.enable_x64(dtype == np.float64):
        try:
            return compute()
        except (TypeError, ValueError):
            if dtype != np.float64:
                raise
    with jax.enable_x64(False):
        return compute()


@eqx.filter_jit
def constrained(target: Target, position: Any) -> dict[str, Any]:
    """Every quantity at many points.

    Args:
        target: of the model.
        position: `[points, dim]`.

    Returns:
        Name to `[points, *shape]`.
    """
    return target.constrained(position)


@eqx.filter_jit
def unconstrained(unconstrain: Callable[..., Any], values: Any, data: Any) -> Any:
    """The positions of many values.

    Args:
        unconstrain: for one point.
        values: name to `[points, *shape]`.
        data: of the target.

    Returns:
        `[points, dim]`.
    """
    return jax.vmap(unconstrain, in_axes=(0, None))(values, data)
