"""NUTS with one mistake each, which the tests of its law must catch."""

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.dynamics.trees import Checkpoints
from shoal.kernels import NUTS
from shoal.kernels.bundle import Machine


def mutant(machine: type[Machine]) -> type[NUTS]:
    """A kernel that runs this machine."""

    class Mutant(NUTS):
        def machine(self, plans, tuning, target):
            right = super().machine(plans, tuning, target)
            return machine(right.flow, right.plans, right.max_tree_depth)

    Mutant.__name__ = machine.__name__
    return Mutant


class EndsWhereItTurns(Machine):
    """The trajectory ends at the leaf at which it turns, in the midst of a doubling, whose leaves count."""

    def absorb(self, at, leaf, chance):
        at, *_ = super().absorb(at, leaf, chance)
        turned = (leaf.momentum * (at.whole.total + at.doubling.total)).sum(-1) <= 0.0
        return at, jnp.zeros_like(turned), turned

    def merge(self, at, stopped, turned, chance):
        leaf = jnp.where(turned, 1 << at.depth, at.leaf)
        return super().merge(eqx.tree_at(lambda at: at.leaf, at, leaf), stopped, turned, chance)


class KeepsWhatTurned(EndsWhereItTurns):
    """A doubling of which a part has turned is not discarded."""

    def absorb(self, at, leaf, chance):
        at, part_turned, all_turned = Machine.absorb(self, at, leaf, chance)
        complete = at.leaf == 1 << at.depth
        return at, jnp.zeros_like(part_turned), part_turned | (complete & all_turned)


class BiasedWithin(Machine):
    """Within a doubling, too, what is far from the start is favoured."""

    def within(self, doubling, leaf):
        return jnp.exp(jnp.minimum(leaf.weight - doubling.weight, 0.0))


class AlwaysMoves(Machine):
    """The draw is from the last doubling, whatever the weights."""

    def between(self, whole, doubling):
        return jnp.ones_like(whole.weight)


class AtAFixedIteration(Machine):
    """The sweep ends after so many iterations, with whatever draw was the last to be finished."""

    def run(self, ensemble):
        first = self.first(ensemble)
        at, drawn, iterations = jax.lax.fori_loop(0, 25, lambda _, carry: self.iterate(*carry), first)
        last = jnp.clip(at.draw, 1, drawn.num_steps.shape[0]) - 1
        pick = lambda rows: rows.at[-1].set(rows[last, jnp.arange(last.shape[0])])
        return jax.tree.map(pick, drawn), iterations


class LooksAtWholeTreesOnly(Machine):
    """Parts of a doubling are not looked at: where the draw is, the trajectory might have ended earlier."""

    def absorb(self, at, leaf, chance):
        at, part_turned, all_turned = super().absorb(at, leaf, chance)
        return at, jnp.zeros_like(part_turned), all_turned


class UniformBetween(Machine):
    """It leaves the target invariant, but is another law: every leaf of the trajectory by its weight."""

    def between(self, whole, doubling):
        return self.within(whole, doubling)


class BlindToHalves(Checkpoints):
    """A half is not looked at together with the nearest leaf of the other."""

    def half_turned(self, first, second):
        return jnp.zeros_like(first)


class WithoutHalves(Machine):
    """It leaves the target invariant, but is another law, that of Stan before 2.21."""

    def first(self, ensemble):
        at, *rest = super().first(ensemble)
        blind = BlindToHalves(at.checkpoints.leaves, at.checkpoints.earlier, at.checkpoints.first_half)
        return eqx.tree_at(lambda at: at.checkpoints, at, blind), *rest


NUTS_MUTANTS = {
    machine.__name__: mutant(machine)
    for machine in (
        EndsWhereItTurns,
        KeepsWhatTurned,
        BiasedWithin,
        AlwaysMoves,
        AtAFixedIteration,
        LooksAtWholeTreesOnly,
    )
}
