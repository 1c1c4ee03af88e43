"""What is sampled: an unnormalised log density on R^dim, its data, and the way back to the user's space.

The user writes a log density for one point. The ensemble appears here, once, by `vmap`, so that a matrix
product in the model becomes one large product over chains. Data are leaves of the pytree: arguments of the
compiled program, not constants in it, so that they can be swapped or sharded without compiling again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

LogDensity = Callable[[Float[Array, " dim"], PyTree], Float[Array, ""]]
Constrain = Callable[[Float[Array, " dim"], PyTree], dict[str, Array]]

# The axis of a mesh over which the coordinates of positions go.
PARAMETERS = "parameters"


class Sharded(eqx.Module):
    """Data whose rows are split over devices.

    Attributes:
        shards: leaves `[devices, rows of each, ...]`; on a device, inside a program of all, `[1, rows, ...]`.
        rest: leaves `[left, ...]`, few rows, which every device has.
        left: how many those are.
        axis: of the mesh, over which the devices sum inside a program of all; None outside.
    """

    shards: PyTree
    rest: PyTree
    left: int = eqx.field(static=True)
    axis: str | None = eqx.field(static=True, default=None)

    def whole(self) -> PyTree:
        """All rows, on every device."""
        every = lambda leaf: leaf if self.axis is None else jax.lax.all_gather(leaf, self.axis, tiled=True)
        join = lambda leaf, left: jnp.concatenate([every(leaf).reshape(-1, *leaf.shape[2:]), left])
        return jax.tree.map(join, self.shards, self.rest)


def is_sharded(node: Any) -> bool:
    """Whether it is data that are split over devices."""
    return isinstance(node, Sharded)


class Target(eqx.Module):
    """An unnormalised log density on R^dim.

    Attributes:
        log_density: `(position, data) -> scalar` for one point, the Jacobian of the constraints included.
        constrain: `(position, data) -> {name: value}` for one point, on the user's supports.
        data: arrays that the log density reads, all of them or `Sharded`.
        dim: the number of unconstrained coordinates.
        in_double: the data in double, where positions and gradients are in single and log densities are not; else None.
        beside: `(position) -> scalar`, what of the log density is not of the model; None where all of it is.
    """

    log_density: LogDensity = eqx.field(static=True)
    constrain: Constrain = eqx.field(static=True)
    data: PyTree
    dim: int = eqx.field(static=True)
    in_double: PyTree = None
    beside: Callable[[Float[Array, " dim"]], Array] | None = eqx.field(static=True, default=None)

    def __call__(
        self, position: Float[Array, "chains dim"]
    ) -> tuple[Float[Array, " chains"], Float[Array, "chains dim"]]:
        """The log density and its gradient at every chain."""
        if self.in_double is None:
            return _at_every_chain(jax.value_and_grad, self.log_density, position, self.data)
        level = _at_every_chain(None, self.log_density, position.astype(jnp.float64), self.in_double)
        return level, self.gradient(position)

    def for_each(self, of_one: Callable[..., Any], *rows: PyTree) -> Any:
        """`of_one(log_density, *row)` at every chain: how an algorithm of one chain runs with many.

        Args:
            of_one: its `log_density` is a function of a position alone; the data are bound to it as arguments of the
                program.
            rows: leaves `[chains, ...]`.
        """
        log_density = lambda position: self.log_density(position, self.data)
        with jax.default_matmul_precision("highest"):
            return jax.vmap(lambda *row: of_one(log_density, *row))(*rows)

    def gradient(self, position: Float[Array, "chains dim"]) -> Float[Array, "chains dim"]:
        """The gradient alone: what the inner steps of a trajectory need, at less than half the price of both."""
        return _at_every_chain(jax.grad, self.log_density, position, self.data)

    def of_model(
        self, log_density: Float[Array, " chains"], position: Float[Array, "chains dim"]
    ) -> Float[Array, " chains"]:
        """The log density of the model alone, from that at every chain."""
        return log_density if self.beside is None else log_density - jax.vmap(self.beside)(position)

    def constrained(self, position: Float[Array, "chains dim"]) -> dict[str, Array]:
        """Every quantity of the model, on the user's supports, `[chains, *shape]` each."""
        return _at_every_chain(None, self.constrain, position, self.data)


@partial(jax.jit, static_argnums=(0, 1), inline=True)
def _at_every_chain(
    transform: Callable[..., Any] | None,
    of_one: Callable[..., Any],
    position: Float[Array, "chains dim"],
    data: PyTree,
) -> Any:
    """`transform(of_one)` at every chain: traced once for all programs in which it is part of the loop."""
    function = of_one if transform is None else transform(of_one)
    # TF32 would decide acceptances: a log density of 1e3 would be off by 0.3.
    with jax.default_matmul_precision("highest"):
        return jax.vmap(function, in_axes=(0, None))(position, data)
