"""What a gradient asks of the machine, counted by XLA: operations, transcendental functions, bytes."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from shoal.target import Target

# The body of a loop is counted once, and the call of a library not at all.
UNCOUNTED = ("stablehlo.while", "stablehlo.custom_call")


class Operations(NamedTuple):
    """Of a gradient of one chain.

    Attributes:
        flops: additions, multiplications and the like, of the program as written: no compiler has left any out.
        transcendentals: exponentials, logarithms and the like, of the same.
        bytes: that the compiled gradient of a tile reads and writes, divided by its chains, caches or not; NaN where
            XLA does not tell.
        complete: whether there are neither loops nor calls of libraries, which XLA's count passes over.
    """

    flops: float
    transcendentals: float
    bytes: float
    complete: bool


def operations(target: Target, tile: int) -> Operations:
    """Count those of a target.

    Args:
        target: in float32.
        tile: chains that are evaluated at once.
    """
    point = jax.ShapeDtypeStruct((target.dim,), np.float32)
    written = jax.jit(jax.grad(lambda point, data: target.log_density(point, data))).lower(point, target.data)
    counts, text = _cost(written), written.as_text()
    points = jax.ShapeDtypeStruct((tile, target.dim), np.float32)
    compiled = jax.jit(lambda points, of: of.gradient(points)).lower(points, target).compile()
    return Operations(
        counts.get("flops", math.nan),
        counts.get("transcendentals", 0.0),
        _cost(compiled).get("bytes accessed", math.nan) / tile,
        not any(word in text for word in UNCOUNTED),
    )


def _cost(program: Any) -> dict[str, float]:
    return program.cost_analysis() or {}
