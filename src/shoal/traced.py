"""What there is in a traced program: its equations, those inside of others included."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.target import Target


def equations(jaxpr: Any, turns: int = 1) -> Iterator[tuple[Any, int]]:
    """Every equation, and how often it runs: the turns of a loop count where their number is known.

    Args:
        jaxpr: of the program.
        turns: how often that runs.
    """
    for equation in jaxpr.eqns:
        yield equation, turns
        repeated = turns * (equation.params["length"] if equation.primitive.name == "scan" else 1)
        for sub in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(sub, "jaxpr", sub)
            if hasattr(inner, "eqns"):
                yield from equations(inner, repeated)


def scatters(target: Target, dtype: DTypeLike) -> bool:
    """Whether the gradient of the log density adds up several terms by index, as that of `level[group]` does."""

    def adds_up(equation: Any) -> bool:
        if equation.primitive.name != "scatter-add" or equation.params["unique_indices"]:
            return False
        return bool(np.prod(equation.invars[1].aval.shape[:-1]) > 1)

    return any(adds_up(equation) for equation, _ in _of_gradient(target, dtype))


def turns_freely(target: Target, dtype: DTypeLike) -> bool:
    """Whether the gradient of the log density has a loop whose turns nobody knows beforehand."""
    return any(equation.primitive.name == "while" for equation, _ in _of_gradient(target, dtype))


def _of_gradient(target: Target, dtype: DTypeLike) -> Iterator[tuple[Any, int]]:
    return equations(jax.make_jaxpr(target.gradient)(jnp.zeros((1, target.dim), dtype)).jaxpr)
