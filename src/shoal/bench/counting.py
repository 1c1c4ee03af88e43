"""What a gradient asks of the machine: matrix products, other operations, transcendental functions, bytes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from shoal.bench.ceilings import MATRIX, MEMORY, TRANSCENDENTAL
from shoal.target import Target
from shoal.traced import equations

# The body of a loop is counted once, and the call of a library not at all.
UNCOUNTED = ("stablehlo.while", "stablehlo.custom_call")


class Operations(NamedTuple):
    """Of a gradient of one chain.

    Attributes:
        products: multiplications and additions of matrix products, of the program as written: no compiler has left any
            out. The turns of a loop count where their number is known.
        flops: additions, multiplications and the like, those of products included, as XLA counts the same.
        transcendentals: exponentials, logarithms and the like, of the same.
        bytes: that the compiled gradient of a tile reads and writes, divided by its chains, caches or not; NaN where
            XLA does not tell.
        complete: whether there are neither loops nor calls of libraries, which XLA's count passes over.
    """

    products: float
    flops: float
    transcendentals: float
    bytes: float
    complete: bool


def by_ceiling(asked: Mapping[str, float]) -> dict[str, float]:
    """What a gradient asks for of what each ceiling is the rate of.

    Args:
        asked: the fields of `Operations`, as a record has them.
    """
    return {MATRIX: asked["products"], TRANSCENDENTAL: asked["transcendentals"], MEMORY: asked["bytes"]}


def operations(target: Target, tile: int) -> Operations:
    """Count those of a target.

    Args:
        target: in float32.
        tile: chains that are evaluated at once.
    """
    point = jax.ShapeDtypeStruct((target.dim,), np.float32)
    gradient = jax.jit(jax.grad(lambda point, data: target.log_density(point, data)))
    traced = gradient.trace(point, target.data)
    written = traced.lower()
    counts, text = _cost(written), written.as_text()
    points = jax.ShapeDtypeStruct((tile, target.dim), np.float32)
    compiled = jax.jit(lambda points, of: of.gradient(points)).lower(points, target).compile()
    return Operations(
        float(_products(traced.jaxpr.jaxpr)),
        counts.get("flops", math.nan),
        counts.get("transcendentals", 0.0),
        _cost(compiled).get("bytes accessed", math.nan) / tile,
        not any(word in text for word in UNCOUNTED),
    )


def _products(jaxpr: Any) -> int:
    return sum(
        turns * _asked(equation) for equation, turns in equations(jaxpr) if equation.primitive.name == "dot_general"
    )


def _asked(equation: Any) -> int:
    """Multiplications and additions of a matrix product."""
    (summed, _), _ = equation.params["dimension_numbers"]
    left, (made,) = equation.invars[0].aval, equation.outvars
    return 2 * made.aval.size * math.prod(left.shape[axis] for axis in summed)


def _cost(program: Any) -> dict[str, float]:
    return program.cost_analysis() or {}
