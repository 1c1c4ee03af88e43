r"""The loop that makes several draws of NUTS in a bundle, so that no chain waits for the tree of another.

An iteration adds one leaf to the trajectory of every chain. Each chain has a place of its own: which draw, which
doubling, which leaf. One that has finished a draw begins the next, and the loop ends when every chain has made as many
draws as were asked for (Dance, Glaser, Orbanz & Adams, 2025, arXiv:2503.17405). Draws are counted, never picked by when
they were finished: that would favour small trees.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from shoal.dynamics.integrators import Flow, Phase
from shoal.dynamics.metropolis import DIVERGENCE, choose, is_finite
from shoal.dynamics.trees import Checkpoints, Momenta
from shoal.ensemble import Ensemble
from shoal.kernels.hmc import kinetic
from shoal.randomness import uniforms

# Uses of a draw's keys below this one are for what is known before it begins.
LEAVES = 2


class Point(eqx.Module):
    """A leaf: position, momentum, gradient, log density and energy error, in one row, so that it moves at once.

    A log density in double is two numbers in single: what that holds of it, and the rest.
    """

    row: Float[Array, "*draws chains numbers"]

    @classmethod
    def of(cls, phase: Phase, log_density: Float[Array, " chains"], energy_error: Float[Array, " chains"]) -> "Point":
        dtype = phase[0].dtype
        level = [log_density.astype(dtype)]
        if log_density.dtype != dtype:
            level.append((log_density - level[0]).astype(dtype))
        numbers = [part[:, None] for part in (*level, energy_error)]
        return cls(jnp.concatenate([*phase, *numbers], axis=-1))

    @property
    def _dim(self) -> int:
        return (self.row.shape[-1] - 2) // 3

    @property
    def phase(self) -> tuple[Array, Array, Array]:
        """Position, momentum, gradient."""
        position, momentum, gradient = jnp.split(self.row[..., : 3 * self._dim], 3, axis=-1)
        return position, momentum, gradient

    @property
    def momentum(self) -> Float[Array, "*draws chains dim"]:
        return self.phase[1]

    @property
    def log_density(self) -> Float[Array, "*draws chains"]:
        level = self.row[..., 3 * self._dim : -1]
        return level[..., 0] if level.shape[-1] == 1 else level[..., 0].astype(jnp.float64) + level[..., 1]

    @property
    def energy_error(self) -> Float[Array, "*draws chains"]:
        return self.row[..., -1]


class Part(eqx.Module):
    """A part of a trajectory: the leaf drawn from it, the logarithm of its weight, and its momenta summed."""

    point: Point
    weight: Float[Array, " chains"]
    total: Float[Array, "chains dim"]

    def joined(self, other: "Part", take: Bool[Array, " chains"]) -> "Part":
        """With another part, and with the other's leaf where `take`."""
        weight = jnp.logaddexp(self.weight, other.weight)
        return Part(choose(take, other.point, self.point), weight, self.total + other.total)


class Plan(eqx.Module):
    """What chance decides of a draw before it begins.

    Attributes:
        momentum: that it begins with.
        kinetic: energy of this momentum.
        directions: bit d says whether doubling number d goes forwards in time.
        key: from which the chances of its leaves derive.
    """

    momentum: Float[Array, "*draws chains dim"]
    kinetic: Float[Array, "*draws chains"]
    directions: Int[Array, "*draws chains"]
    key: Key[Array, "*draws chains"]


class Place(eqx.Module):
    """Where every chain is in its bundle.

    Attributes:
        draw: the number of the draw in the bundle; beyond the last, nothing is recorded.
        directions: of the plan.
        key: of the plan.
        log_density: where the draw began.
        kinetic: of the plan.
        near: the end of the trajectory that grows.
        far: its other end.
        depth: doublings that are done.
        leaf: the number of the next leaf in the doubling.
        steps: leaves of the draw so far.
        acceptance: Metropolis probabilities of these leaves, summed.
        whole: the trajectory before the doubling.
        doubling: what there is of the doubling.
        checkpoints: of the doubling.
    """

    draw: Int[Array, " chains"]
    directions: Int[Array, " chains"]
    key: Key[Array, " chains"]
    log_density: Float[Array, " chains"]
    kinetic: Float[Array, " chains"]
    near: Point
    far: Point
    depth: Int[Array, " chains"]
    leaf: Int[Array, " chains"]
    steps: Int[Array, " chains"]
    acceptance: Float[Array, " chains"]
    whole: Part
    doubling: Part
    checkpoints: Checkpoints


class Drawn(eqx.Module):
    """The draws of a bundle.

    Attributes:
        point: the draw.
        acceptance_rate: mean over the leaves.
        diverging: whether a leaf diverged, which ended the trajectory.
        num_steps: leaves.
    """

    point: Point
    acceptance_rate: Float[Array, "*draws chains"]
    diverging: Bool[Array, "*draws chains"]
    num_steps: Int[Array, "*draws chains"]


class Machine(eqx.Module):
    """The loop over leaves: an iteration evaluates the target once, for all chains of a tile.

    Attributes:
        flow: of the Hamiltonian.
        plans: of the draws of the bundle.
        max_tree_depth: the most doublings of a trajectory.
    """

    flow: Flow
    plans: Plan
    max_tree_depth: int

    def run(self, ensemble: Ensemble) -> tuple[Drawn, Int[Array, ""]]:
        """The draws of the bundle, and the iterations that they took."""
        busy = lambda at, *_: (at.draw < self.plans.directions.shape[0]).any()
        carry = jax.lax.while_loop(lambda carry: busy(*carry), lambda carry: self.iterate(*carry), self.first(ensemble))
        return carry[1:]

    def first(self, ensemble: Ensemble) -> tuple[Place, Drawn, Int[Array, ""]]:
        """Where every chain is at first, no draws, and no iterations."""
        draws, chains = self.plans.directions.shape
        none, zero = jnp.zeros(chains, jnp.int32), ensemble.nothing
        start = Point.of((ensemble.position, ensemble.position, ensemble.gradient), ensemble.log_density, zero)
        rows = lambda leaf: jnp.zeros((draws, *leaf.shape), leaf.dtype)
        drawn = jax.tree.map(rows, Drawn(start, zero, none > 0, none))
        place = self.begin(none, start, Checkpoints.empty(self.max_tree_depth, ensemble.position))
        return place, drawn, jnp.zeros((), jnp.int32)

    def begin(self, draw: Int[Array, " chains"], start: Point, checkpoints: Checkpoints) -> Place:
        """At the start of draws number `draw`."""
        row = jnp.minimum(draw, self.plans.directions.shape[0] - 1)
        plan = jax.tree.map(lambda leaf: leaf[row, jnp.arange(row.shape[0])], self.plans)
        none, zero = jnp.zeros_like(draw), jnp.zeros_like(start.energy_error)
        position, _, gradient = start.phase
        start = Point.of((position, plan.momentum, gradient), start.log_density, zero)
        nothing = Part(start, jnp.full_like(zero, -jnp.inf), jnp.zeros_like(plan.momentum))
        return Place(
            draw=draw,
            directions=plan.directions,
            key=plan.key,
            log_density=start.log_density,
            kinetic=plan.kinetic,
            near=start,
            far=start,
            depth=none,
            leaf=none,
            steps=none,
            acceptance=zero,
            whole=Part(start, zero, plan.momentum),
            doubling=nothing,
            checkpoints=checkpoints,
        )

    def iterate(self, at: Place, drawn: Drawn, iterations: Int[Array, ""]) -> tuple[Place, Drawn, Int[Array, ""]]:
        """One leaf of every chain; where that ends a draw, it is recorded and the next begins."""
        leaf = self.leap(at)
        chance = uniforms(at.key, LEAVES + at.steps, 2, leaf.row.dtype)
        diverging = leaf.energy_error > DIVERGENCE
        at, part_turned, all_turned = self.absorb(at, leaf, chance[:, 0])
        at, ended = self.merge(at, diverging | part_turned, all_turned, chance[:, 1])
        acceptance = at.acceptance * (1.0 / at.steps.astype(at.acceptance.dtype))
        # What is written to a row that does not exist is dropped.
        row = jnp.where(ended, at.draw, drawn.num_steps.shape[0])
        write = lambda rows, new: rows.at[row, jnp.arange(row.shape[0])].set(new, mode="drop")
        drawn = jax.tree.map(write, drawn, Drawn(at.whole.point, acceptance, diverging, at.steps))
        return choose(ended, self.begin(at.draw + 1, at.whole.point, at.checkpoints), at), drawn, iterations + 1

    def leap(self, at: Place) -> Point:
        """The next leaf; its energy error is infinite where anything of it is not finite."""
        position, momentum, gradient = at.near.phase
        # A step back in time is a step of the mirrored momentum.
        sign = jnp.where(_bit(at.directions, at.depth), 1.0, -1.0).astype(momentum.dtype)[:, None]
        begun = self.flow.kick(self.flow.integrator.kicks[0], (position, sign * momentum, gradient))
        (position, momentum, gradient), log_density = self.flow.finish(begun)
        error = (kinetic(momentum) - at.kinetic) - (log_density - at.log_density).astype(momentum.dtype)
        finite = is_finite(Ensemble(position, log_density, gradient), error)
        return Point.of((position, sign * momentum, gradient), log_density, jnp.where(finite, error, jnp.inf))

    def absorb(
        self, at: Place, leaf: Point, chance: Float[Array, " chains"]
    ) -> tuple[Place, Bool[Array, " chains"], Bool[Array, " chains"]]:
        """The doubling with one more leaf; whether a part of it has turned, and the whole trajectory with it."""
        new = Part(leaf, -leaf.energy_error, leaf.momentum)
        momenta = Momenta(leaf.momentum, at.near.momentum, at.doubling.total, at.far.momentum, at.whole.total)
        checkpoints, part_turned, all_turned = at.checkpoints.reach(at.leaf, momenta)
        grown = (
            leaf,
            at.leaf + 1,
            at.steps + 1,
            at.acceptance + jnp.exp(jnp.minimum(new.weight, 0.0)),
            at.doubling.joined(new, chance < self.within(at.doubling, new)),
            checkpoints,
        )
        where = lambda at: (at.near, at.leaf, at.steps, at.acceptance, at.doubling, at.checkpoints)
        return eqx.tree_at(where, at, grown), part_turned, all_turned

    def merge(
        self,
        at: Place,
        stopped: Bool[Array, " chains"],
        turned: Bool[Array, " chains"],
        chance: Float[Array, " chains"],
    ) -> tuple[Place, Bool[Array, " chains"]]:
        """Where the doubling is complete, the trajectory with it, and the next doubling; and whether the draw ended."""
        complete = ~stopped & (at.leaf == 1 << at.depth)
        joined = at.whole.joined(at.doubling, chance < self.between(at.whole, at.doubling))
        other_way = complete & (_bit(at.directions, at.depth + 1) != _bit(at.directions, at.depth))
        near, far = choose(other_way, (at.far, at.near), (at.near, at.far))
        weight = jnp.where(complete, -jnp.inf, at.doubling.weight)
        total = jnp.where(complete[:, None], 0.0, at.doubling.total)
        merged = (
            near,
            far,
            jnp.where(complete, at.depth + 1, at.depth),
            jnp.where(complete, 0, at.leaf),
            choose(complete, joined, at.whole),
            Part(at.doubling.point, weight, total),
        )
        where = lambda at: (at.near, at.far, at.depth, at.leaf, at.whole, at.doubling)
        full = turned | (at.depth + 1 >= self.max_tree_depth)
        return eqx.tree_at(where, at, merged), stopped | (complete & full)

    def within(self, doubling: Part, leaf: Part) -> Float[Array, " chains"]:
        """The probability that a new leaf is the one drawn from its doubling: every leaf by its weight."""
        return jnp.exp(leaf.weight - jnp.logaddexp(doubling.weight, leaf.weight))

    def between(self, whole: Part, doubling: Part) -> Float[Array, " chains"]:
        """The probability that a doubling gives the draw: in favour of what is far from the start."""
        return jnp.exp(jnp.minimum(doubling.weight - whole.weight, 0.0))


def _bit(number: Int[Array, " chains"], place: Int[Array, " chains"]) -> Bool[Array, " chains"]:
    return (number >> place) & 1 == 1
