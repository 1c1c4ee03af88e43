r"""U-turns in a trajectory that doubles: every balanced part of it is looked at, and few leaves are remembered.

With whitened momenta, the part of a trajectory from one leaf to another has turned when $\rho \cdot p \le 0$ at either,
$\rho$ the sum of the momenta from the one to the other (Betancourt, 2017, arXiv:1701.02434, appendix A.4). A trajectory
grows by doublings, whose balanced parts are pairs of leaves, pairs of pairs, and so on. None may have turned, nor its
first half with the first leaf of the second, nor its second half with the last leaf of the first: a part as long as a
period has $\rho \approx 0$ and may look straight, while these do not (Stan from 2.21 on, `base_nuts.hpp`).

The leaves of a doubling are numbered from 0. The balanced parts that end at leaf $n$ begin at $n$ with the last of its
ones cleared, with the last two, and so on through its trailing ones. So a leaf is remembered in the slot of its number
of ones until another with as many comes (Phan, Pradhan & Jankowiak, 2019, arXiv:1912.11554, algorithm 2).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Starts(eqx.Module):
    """Leaves from which parts begin, one in each slot.

    Attributes:
        momentum: at the leaf.
        before: sum of the momenta before it.
        product: of the two.
    """

    momentum: Float[Array, "chains slots dim"]
    before: Float[Array, "chains slots dim"]
    product: Float[Array, "chains slots"]

    def put(
        self,
        here: Bool[Array, "chains slots"],
        momentum: Float[Array, "chains dim"],
        before: Float[Array, "chains dim"],
    ) -> "Starts":
        """With this leaf in the slots that are marked."""
        product = (momentum * before).sum(-1)
        return Starts(
            jnp.where(here[:, :, None], momentum[:, None, :], self.momentum),
            jnp.where(here[:, :, None], before[:, None, :], self.before),
            jnp.where(here, product[:, None], self.product),
        )

    def turned(
        self, momentum: Float[Array, "chains dim"], total: Float[Array, "chains dim"]
    ) -> Bool[Array, "chains slots"]:
        """Whether the parts from these leaves to one with this momentum have turned; `total` includes it."""
        # rho = total - before, multiplied out: two products of a matrix and a vector instead of four sums.
        at_start = jnp.einsum("csd,cd->cs", self.momentum, total, precision="highest") - self.product
        at_end = jnp.einsum("csd,cd->cs", self.before, momentum, precision="highest")
        return (at_start <= 0.0) | ((momentum * total).sum(-1)[:, None] <= at_end)


class Checkpoints(eqx.Module):
    """What is remembered of a trajectory while it doubles.

    Slot 0 is for the trajectory before the doubling, slot n + 1 for the leaf of the doubling whose number has n ones.

    Attributes:
        leaves: parts begin at the leaf itself; in slot 0, at the far end.
        earlier: parts begin at the leaf before it.
        first_half: whether the part from the slot before to this leaf has turned, a first half and one leaf more.
    """

    leaves: Starts
    earlier: Starts
    first_half: Bool[Array, "chains slots"]

    @classmethod
    def empty(cls, max_tree_depth: int, like: Float[Array, "chains dim"]) -> "Checkpoints":
        """For doublings of at most `2 ** (max_tree_depth - 1)` leaves. What is not written is not read."""
        chains, slots = like.shape[0], max_tree_depth + 1
        nothing = jnp.zeros((chains, slots, like.shape[1]), like.dtype)
        starts = Starts(nothing, nothing, nothing[:, :, 0])
        return cls(starts, starts, jnp.zeros((chains, slots), bool))

    def reach(
        self, number: Int[Array, " chains"], momenta: "Momenta"
    ) -> tuple["Checkpoints", Bool[Array, " chains"], Bool[Array, " chains"]]:
        """With leaf number `number` of the doubling.

        Returns:
            What is remembered then; whether a balanced part of the doubling that ends with this leaf has turned; and
            whether the whole trajectory has, if the doubling ends with this leaf.
        """
        slot = jnp.arange(self.first_half.shape[1], dtype=number.dtype)[None, :]
        ones = jax.lax.population_count(number)[:, None]
        trailing = jax.lax.population_count(number & ~(number + 1))[:, None]
        own, doubling_begins = slot == ones + 1, (slot == 0) & (number == 0)[:, None]
        leaves = self.leaves.put(doubling_begins, momenta.far, -momenta.whole).put(own, momenta.here, momenta.before)
        earlier = self.earlier.put(own, momenta.previous, momenta.before - momenta.previous)
        total = momenta.before + momenta.here
        since, since_earlier = leaves.turned(momenta.here, total), earlier.turned(momenta.here, total)
        first_half = jnp.where(own, (since & (slot == ones)).any(-1, keepdims=True), self.first_half)
        # A part that begins in one slot has its middle in the next; where that is this leaf, it is a pair.
        turned = since[:, :-1] | ((slot < ones)[:, :-1] & self.half_turned(first_half, since_earlier)[:, 1:])
        ends = ((slot <= ones) & (slot > ones - trailing))[:, :-1]
        return type(self)(leaves, earlier, first_half), (ends & turned).any(-1), turned[:, 0]

    def half_turned(
        self, first: Bool[Array, "chains slots"], second: Bool[Array, "chains slots"]
    ) -> Bool[Array, "chains slots"]:
        """Whether a half has turned with the nearest leaf of the other, by the slot of the middle."""
        return first | second


class Momenta(NamedTuple):
    """The momenta that decide whether a trajectory has turned at a leaf.

    Attributes:
        here: at the leaf.
        previous: at the leaf before it.
        before: of the doubling's leaves before it, summed.
        far: at the end of the trajectory where the doubling did not begin.
        whole: of the trajectory before the doubling, summed.
    """

    here: Float[Array, "chains dim"]
    previous: Float[Array, "chains dim"]
    before: Float[Array, "chains dim"]
    far: Float[Array, "chains dim"]
    whole: Float[Array, "chains dim"]
