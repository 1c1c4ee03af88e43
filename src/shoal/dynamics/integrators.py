r"""Splitting integrators: coefficients as data, and one stepper for all of them.

A step alternates kicks $p \leftarrow p + b_i \epsilon W^\top g(x)$ and drifts $x \leftarrow x + a_i \epsilon W p$;
palindromic coefficients make it reversible and volume preserving (Blanes, Casas & Sanz-Serna, 2014). The last
kick of a step and the first of the next use the same gradient and are done at once.
"""

import abc
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from shoal.dynamics.metrics import LowRank, Metric
from shoal.target import Target


class Integrator(NamedTuple):
    """A palindromic splitting: one more kick than drifts; one gradient per drift.

    Attributes:
        kicks: fractions of the step size, symmetric, summing to 1.
        drifts: fractions of the step size, symmetric, summing to 1.
    """

    kicks: tuple[float | Array, ...]
    drifts: tuple[float | Array, ...]

    @property
    def gradients_per_step(self) -> int:
        return len(self.drifts)

    def as_arrays(self, dtype: DTypeLike) -> "Integrator":
        """The coefficients as arguments of a compiled program: it then serves every splitting of as many stages."""
        return jax.tree.map(lambda fraction: jnp.asarray(fraction, dtype), self)


LEAPFROG = Integrator(kicks=(0.5, 0.5), drifts=(1.0,))
# Two leapfrog steps of half the size, as one step: what the two-stage splittings are compared with.
TWO_LEAPFROGS = Integrator(kicks=(0.25, 0.5, 0.25), drifts=(0.5, 0.5))
# The two-stage splitting with the smallest third-order error (McLachlan, 1995).
_M = 0.1931833275037836
MCLACHLAN = Integrator(kicks=(_M, 1.0 - 2.0 * _M, _M), drifts=(0.5, 0.5))
# Fourth order in five gradients, with the smallest fifth-order error (Omelyan, Mryglod & Folk, 2003, equation 71).
_B, _A = (0.08398315262876693, 0.6822365335719091), (0.2539785108410595, -0.03230286765269967)
OMELYAN = Integrator(kicks=(*_B, 0.5 - sum(_B), 0.5 - sum(_B), *_B[::-1]), drifts=(*_A, 1.0 - 2.0 * sum(_A), *_A[::-1]))

# Position, momentum (what else a flow moves, as it pleases), and the gradient of the log density there.
Phase = tuple[Float[Array, "chains dim"], PyTree, Float[Array, "chains dim"]]


class Splitting(eqx.Module):
    """A flow in two parts, each solved exactly, and everything that stays the same along a trajectory.

    Attributes:
        target: whose gradient it follows.
        metric: the whitening map.
        integrator: coefficients.
        step_size: in whitened units, of all chains, or of each where the flow says so.
    """

    target: Target
    metric: Metric
    integrator: Integrator
    step_size: Float[Array, "*chains"]

    @abc.abstractmethod
    def kick(self, fraction: float | Array, phase: Phase) -> Phase:
        """The momentum moves, for a fraction of a step; the position stands."""

    @abc.abstractmethod
    def drift(self, fraction: float | Array, phase: Phase) -> Phase:
        """The position moves, for a fraction of a step; the momentum stands, and the gradient is out of date."""

    def integrate(self, start: Phase, num_steps: Int[Array, ""]) -> tuple[Phase, Float[Array, " chains"]]:
        """`num_steps` steps for every chain, and the log density at the end.

        Args:
            start: position, momentum and the gradient of the log density at the position.
            num_steps: at least 1, the same for all chains.

        Returns:
            The end point with its gradient, and its log density. All but the last gradient are asked for alone, and a
            metric with directions costs their products only where some of them count.
        """
        if not isinstance(self.metric, LowRank):
            return self._integrated(start, num_steps)
        plain = eqx.tree_at(lambda flow: flow.metric, self, self.metric.diagonal)
        whole, simple = (lambda *at, flow=flow: flow._integrated(*at) for flow in (self, plain))
        return jax.lax.cond(self.metric.has_directions, whole, simple, start, num_steps)

    def _integrated(self, start: Phase, num_steps: Int[Array, ""]) -> tuple[Phase, Float[Array, " chains"]]:
        kicks, drifts = self.integrator
        stages, to_next = len(drifts), (*kicks[1:-1], kicks[0] + kicks[-1])

        def one_gradient(number: Int[Array, ""], phase: Phase) -> Phase:
            # One gradient to a turn whatever the number of stages: the log density is compiled once for all of them.
            drift, kick = (self._fraction(fractions, number % stages) for fractions in (drifts, to_next))
            position, momentum, _ = self.drift(drift, phase)
            return self.kick(kick, (position, momentum, self.target.gradient(position)))

        return self.finish(jax.lax.fori_loop(0, stages * num_steps - 1, one_gradient, self.kick(kicks[0], start)))

    def _fraction(self, fractions: Sequence[float | Array], stage: Int[Array, ""]) -> float | Array:
        """Of one of the stages."""
        return fractions[0] if len(fractions) == 1 else jnp.asarray(fractions, self.step_size.dtype)[stage]

    def finish(self, phase: Phase) -> tuple[Phase, Float[Array, " chains"]]:
        """The last drift, the log density there, and the last kick."""
        position, momentum, _ = self.drift(self.integrator.drifts[-1], phase)
        log_density, gradient = self.target(position)
        return self.kick(self.integrator.kicks[-1], (position, momentum, gradient)), log_density


class Flow(Splitting):
    """The flow of a Hamiltonian; momenta are whitened."""

    def kick(self, fraction: float | Array, phase: Phase) -> Phase:
        position, momentum, gradient = phase
        return position, momentum + fraction * self.step_size * self.metric.force(gradient), gradient

    def drift(self, fraction: float | Array, phase: Phase) -> Phase:
        position, momentum, gradient = phase
        return position + fraction * self.step_size * self.metric.velocity(momentum), momentum, gradient
