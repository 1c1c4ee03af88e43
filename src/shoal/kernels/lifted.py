r"""Any algorithm of one chain, a way to begin and a step, as a kernel of many chains.

Chains run side by side by `vmap`, in lock-step: a loop lasts until the last chain of the tile has left it. What the
others wait is reported as `Info.idle`, counted as if the algorithm were one loop over its steps; where loops are nested
it is at least as much. The kernel is as exact as the algorithm.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key, PyTree

from shoal.dynamics.metropolis import choose, is_finite
from shoal.ensemble import Ensemble, Info
from shoal.kernels.base import Kernel
from shoal.randomness import Keys
from shoal.target import Target

STEP = 0

LogDensityOfPosition = Callable[[Float[Array, " dim"]], Float[Array, ""]]


@runtime_checkable
class Algorithm(Protocol):
    """A sampler of one chain: a value that hashes; two that are equal are one compiled program.

    A state has the field `position`, and `logdensity` and `logdensity_grad` where it holds them. Of what a step tells,
    the fields `acceptance_rate`, `is_divergent`, `num_integration_steps` and `energy_change` are read where they exist.
    The names are BlackJAX's.
    """

    def init(self, position: Float[Array, " dim"], log_density: LogDensityOfPosition) -> Any:
        """The state at a position."""
        ...

    def step(
        self, key: Key[Array, ""], state: Any, log_density: LogDensityOfPosition, parameters: Mapping[str, Array]
    ) -> tuple[Any, Any]:
        """The state one draw later, and what is told of it; `parameters` are the tuning."""
        ...


class Lifted(Kernel[dict[str, Array]]):
    """An algorithm of one chain; its state is the ensemble's memory.

    A draw with anything non-finite in it is not taken, and diverges, so that an ensemble never holds one. What a draw
    reports where the algorithm tells nothing: the acceptance rate is 1; nothing diverges; the energy error is minus
    the logarithm of the acceptance rate; a draw is one step of one gradient; the step size is the parameter of this
    name, or NaN. The proposal is the draw itself, and the momentum 0.

    Attributes:
        algorithm: of one chain.
        tells_energy: whether what a step tells has a field `energy` with the meaning of `Info.energy`; it is read then.
    """

    exact: ClassVar[bool] = False
    reference: ClassVar[str] = "Cabezas et al. (2024), BlackJAX, arXiv:2402.10797: the shape of an algorithm"

    algorithm: Algorithm = eqx.field(static=True)
    tells_energy: bool = eqx.field(static=True, default=False)

    def tuning(self, dim: int, dtype: DTypeLike) -> dict[str, Array]:
        """No parameter: which there are only the algorithm knows."""
        return {}

    def init(self, position: Float[Array, "chains dim"], target: Target) -> Ensemble:
        begin = lambda log_density, x: self.algorithm.init(x, log_density)
        return _ensemble(target.for_each(begin, position), target)

    def step(self, keys: Keys, ensemble: Ensemble, tuning: dict[str, Array], target: Target) -> tuple[Ensemble, Info]:
        def of_one(log_density: LogDensityOfPosition, key: Any, state: Any) -> tuple[Any, Any]:
            return self.algorithm.step(jax.random.fold_in(key, STEP), state, log_density, tuning)

        state, told = target.for_each(of_one, keys.chain, ensemble.memory)
        drawn = _ensemble(state, target)
        finite = is_finite(drawn, drawn.nothing)
        after = choose(finite, drawn, ensemble)
        info = _info(told, after, finite, tuning, _lacks_gradient(state))
        if not self.tells_energy:
            return after, info
        energy = told.energy.astype(after.log_density.dtype)
        return after, dataclasses.replace(info, energy=energy)


def _lacks_gradient(state: Any) -> bool:
    return not (hasattr(state, "logdensity") and hasattr(state, "logdensity_grad"))


def _ensemble(state: Any, target: Target) -> Ensemble:
    """The ensemble of states with leaves `[chains, ...]`; what they lack is computed."""
    if _lacks_gradient(state):
        return Ensemble(state.position, *target(state.position), state)
    return Ensemble(state.position, state.logdensity, state.logdensity_grad, state)


def _info(told: PyTree, after: Ensemble, finite: Bool[Array, " chains"], tuning: dict[str, Array], extra: bool) -> Info:
    """What a draw reports, from what the algorithm told; `extra` for a gradient that was computed beside it."""
    shape, dtype = after.log_density.shape, after.log_density.dtype
    of_chains = lambda name, missing, kind: jnp.broadcast_to(jnp.asarray(getattr(told, name, missing), kind), shape)
    acceptance = jnp.where(finite, of_chains("acceptance_rate", 1.0, dtype), 0.0)
    error = of_chains("energy_change", -jnp.log(acceptance), dtype)
    # Where the algorithm counts no steps of its own, the gradient that was computed beside it is the only one.
    counts = hasattr(told, "num_integration_steps")
    steps = of_chains("num_integration_steps", 1, jnp.int32)
    gradients = steps + int(extra and counts)
    step_size = tuning.get("step_size", jnp.asarray(jnp.nan))
    step_size = step_size if step_size.ndim == 0 else jnp.asarray(jnp.nan)
    return Info(
        acceptance_rate=acceptance,
        energy_error=jnp.where(finite & jnp.isfinite(error), error, jnp.inf),
        diverging=of_chains("is_divergent", False, bool) | ~finite,
        step_size=jnp.broadcast_to(step_size.astype(dtype), shape),
        num_steps=steps,
        gradients=gradients,
        proposal=after.position,
        momentum=jnp.zeros_like(after.position),
        idle=gradients.max() - gradients,
    )
