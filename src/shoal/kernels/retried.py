r"""Trajectories that are tried again with finer steps where the first ones had no chance.

Where the posterior is far narrower than elsewhere, as in the neck of a funnel, steps that fit the rest are too long:
proposals from there are hopeless, and so are those that would lead there. Finer steps for every draw would be dear, and
few chains are in a neck at one time. So only hopeless proposals are tried again.

Let $\Phi_k$ follow the Hamiltonian flow for the length of the draw with steps of $\epsilon / f^k$ (or, where that
takes more than `max_steps` of them, as far as these go) and turn the momentum round: it keeps volume and is its own
inverse. With $\Delta_k(z) = H(\Phi_k z) - H(z)$, level $k$ is hopeless from $z = (q, p)$ if $|\Delta_k(z)| > T$, and so
it is then from $\Phi_k z$. The level of $z$ is the first that is not, or the last one, whatever it does: $\kappa(z)$.
Go to $z' = \Phi_{\kappa(z)} z$ with probability $\min(1, e^{-\Delta_\kappa(z)})$ if $\kappa(z') = \kappa(z)$, and stay
otherwise. Among the points of a level that is an involution with Metropolis' rule, so $\pi$ is invariant. Whether
$\kappa(z')$ is the same only trajectories from $z'$ can tell, with the steps of all coarser levels. It is a step size
that depends on where a chain is (Bou-Rabee, Carpenter & Marsden, 2024, arXiv:2404.15253), by the idea of delayed
rejection that finer steps are for those who need them (Modi, Barnett & Carpenter, 2024, arXiv:2110.00610).
"""

import dataclasses
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from shoal.dynamics.integrators import Flow
from shoal.dynamics.metropolis import choose, is_finite
from shoal.ensemble import Ensemble, Info
from shoal.kernels.hmc import ACCEPTANCE, MOMENTUM, Proposal, propose, told
from shoal.randomness import Keys

# An acceptance probability below this is no chance, as in `shoal.diagnostics.necks`.
HOPELESS = 0.02
# The change of energy beyond which a trajectory is hopeless, either way.
MOST_ERROR = -math.log(HOPELESS)
# Steps of four levels are then counted in 32 bits.
FINEST = 64
# Of so many chains of a tile one at a time is tried again, or as many as such parts of it: more would be computed for
# nothing, where few have no chance. Of one at a time no bit depends on which others are tried.
PART = 32


class Trajectories(NamedTuple):
    """Those of a chain without a chance, in this order: of every finer level that from the start, then those back.

    Attributes:
        level: whose steps they take.
        back: whether they begin where that of a finer level has ended, to see whether theirs is hopeless from there.
        last: whether it is decided about chains when they have ended.
    """

    level: np.ndarray
    back: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, retries: int) -> "Trajectories":
        """For so many finer levels."""
        order = [(taken, taken < level) for level in range(1, retries + 1) for taken in (level, *range(level))]
        level, back = (np.array(part) for part in zip(*order, strict=True))
        return cls(level, back, np.append(~back[1:], True))


class Start(NamedTuple):
    """Where chains begin a draw.

    Attributes:
        ensemble: there.
        momentum: fresh.
        uniform: that decides, in [0, 1).
    """

    ensemble: Ensemble
    momentum: Float[Array, "chains dim"]
    uniform: Float[Array, " chains"]


class Drawn(NamedTuple):
    """What a draw has come to.

    Attributes:
        after: where chains are.
        proposal: that was decided about, or the latest.
        acceptance: its probability.
        kinetic: energy of the momentum of what became the draw.
        steps: that the chain has needed.
        idle: steps that were computed for it beside others, and not needed.
        undecided: whether it goes on with finer steps.
    """

    after: Ensemble
    proposal: Proposal
    acceptance: Float[Array, " chains"]
    kinetic: Float[Array, " chains"]
    steps: Int[Array, " chains"]
    idle: Int[Array, " chains"]
    undecided: Bool[Array, " chains"]

    def decided(
        self, start: Start, alike: Bool[Array, " chains"], now: Bool[Array, " chains"] | Bool[Array, ""]
    ) -> "Drawn":
        """Accept or reject the proposal of those that are undecided and about which it is decided now.

        Args:
            start: of the draw.
            alike: whether the level of the proposal is that of the start.
            now: about whom.
        """
        now, kinetic = self.undecided & now, self.proposal.kinetic
        assert kinetic is not None
        acceptance = jnp.where(alike, jnp.exp(jnp.minimum(-self.proposal.error, 0.0)), 0.0)
        accepted = now & (start.uniform < acceptance)
        return self._replace(
            after=choose(accepted, self.proposal.ensemble, self.after),
            acceptance=jnp.where(now, acceptance, self.acceptance),
            kinetic=jnp.where(accepted, kinetic[1], self.kinetic),
            undecided=self.undecided & ~now,
        )


def retried_step(
    keys: Keys,
    ensemble: Ensemble,
    flow: Flow,
    num_steps: Int[Array, ""],
    finer: Float[Array, ""],
    retries: int,
    max_steps: int,
) -> tuple[Ensemble, Info]:
    """Fresh momenta, trajectories until one is not hopeless, accept or reject that one.

    Args:
        keys: of the draw.
        ensemble: where the chains are.
        flow: with the longest steps.
        num_steps: of those.
        finer: how many times as fine the steps of each level are, from 1 to `FINEST`; rounded.
        retries: how many finer levels there are, at least 1.
        max_steps: the most steps of a trajectory; one that would take more is so much shorter.

    Returns:
        The ensemble after, and what a draw reports, of the level that was decided about. Its step size is the longest,
        its steps are those of all trajectories of the chain.
    """
    dtype, order = ensemble.position.dtype, Trajectories.of(retries)
    momentum = keys.normal(MOMENTUM, ensemble.position.shape[-1], dtype)
    start = Start(ensemble, momentum, keys.uniform(ACCEPTANCE, dtype))
    proposal = _made(ensemble, momentum, flow, num_steps)
    assert proposal.kinetic is not None
    every, steps = jnp.ones(start.uniform.shape, bool), jnp.broadcast_to(num_steps, start.uniform.shape)
    drawn = Drawn(ensemble, proposal, ensemble.nothing, proposal.kinetic[0], steps, jnp.zeros_like(steps), every)
    drawn = drawn.decided(start, every, ~hopeless(proposal.error))
    together, finer = max(1, len(start.uniform) // PART), jnp.clip(jnp.rint(finer), 1, FINEST).astype(num_steps.dtype)

    def some_more(drawn: Drawn) -> Drawn:
        _, rows = jax.lax.top_k(drawn.undecided.astype(jnp.int32), together)
        of_rows = lambda tree: jax.tree.map(lambda leaf: leaf[rows], tree)
        made = _finer(of_rows(start), of_rows(drawn), flow, num_steps, finer, order, max_steps)
        return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), drawn, made)

    drawn = jax.lax.while_loop(lambda drawn: drawn.undecided.any(), some_more, drawn)
    info = told(drawn.proposal, drawn.acceptance, drawn.proposal.error, flow, drawn.steps)
    energy, idle = drawn.kinetic - drawn.after.log_density, drawn.idle * flow.integrator.gradients_per_step
    return drawn.after, dataclasses.replace(info, energy=energy, idle=idle)


def _finer(
    start: Start,
    drawn: Drawn,
    flow: Flow,
    num_steps: Int[Array, ""],
    finer: Int[Array, ""],
    order: Trajectories,
    max_steps: int,
) -> Drawn:
    """What becomes of chains whose first trajectories had no chance."""
    levels, returns, lasts = jnp.asarray(order.level, num_steps.dtype), *(jnp.asarray(part) for part in order[1:])

    def one_more(tries: Tries) -> Tries:
        made, alike, drawn = tries
        level, back, last = (part[made] for part in (levels, returns, lasts))
        times = (finer**level).astype(num_steps.dtype)
        steps = jnp.minimum(num_steps * times, jnp.maximum(num_steps, max_steps))
        finely = eqx.tree_at(lambda of: of.step_size, flow, flow.step_size / times.astype(flow.step_size.dtype))
        ended = _made(*_either(back, turned(drawn.proposal), (start.ensemble, start.momentum)), finely, steps)
        alike = jnp.where(back, alike & hopeless(ended.error), True)
        drawn = drawn._replace(
            proposal=choose(drawn.undecided & ~back, ended, drawn.proposal),
            steps=drawn.steps + jnp.where(drawn.undecided, steps, 0),
            idle=drawn.idle + jnp.where(drawn.undecided, 0, steps),
        )
        vain, finest = hopeless(drawn.proposal.error), made >= order.level.argmax()
        # Where it is in vain for all, nobody asks for the way back.
        skipped = jnp.where(~back & ~finest & (vain | ~drawn.undecided).all(), level, 0)
        return made + 1 + skipped, alike, drawn.decided(start, alike, last & (finest | ~vain))

    first = (jnp.zeros_like(num_steps), jnp.ones_like(drawn.undecided), drawn)
    return jax.lax.while_loop(lambda tries: tries[-1].undecided.any(), one_more, first)[-1]


# How many trajectories have been made, whether the proposal is of the same level as far as has been seen, and the draw.
Tries = tuple[Int[Array, ""], Bool[Array, " chains"], Drawn]


def hopeless(error: Float[Array, " chains"]) -> Bool[Array, " chains"]:
    """Whether a level is, from both ends of its trajectory."""
    return jnp.abs(error) > MOST_ERROR


def turned(proposal: Proposal) -> tuple[Ensemble, Float[Array, "chains dim"]]:
    """Where a trajectory has ended, and the momentum that leads back."""
    return proposal.ensemble, -proposal.momentum


def _made(ensemble: Ensemble, momentum: Float[Array, "chains dim"], flow: Flow, steps: Int[Array, ""]) -> Proposal:
    """A trajectory, whose error is infinite where anything of it is not finite."""
    proposal = propose(ensemble, momentum, flow, steps)
    error = jnp.where(is_finite(proposal.ensemble, proposal.error), proposal.error, jnp.inf)
    return proposal._replace(error=error)


def _either[Tree](condition: Bool[Array, ""], one: Tree, other: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
