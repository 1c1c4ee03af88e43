"""NUTS: its trees are those of the definition, its law that of a reference; mistakes in either are caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exact import EXACT, worst_z
from mutants_nuts import NUTS_MUTANTS, UniformBetween, WithoutHalves, mutant
from reference_nuts import ReferenceNUTS, is_straight
from shoal.dynamics.metrics import Diagonal
from shoal.dynamics.trees import Checkpoints, Momenta
from shoal.kernels import NUTS
from shoal.randomness import Stream, root_key
from shoal.target import Target
from test_exact_start import run_from_exact_draws

# ------------------------------------------------------------------------------------------------ trees


def parts(leaves: int):
    """Balanced parts of a doubling of so many leaves: first, middle and last leaf."""
    size = 2
    while size <= leaves:
        yield from ((first, first + size // 2, first + size - 1) for first in range(0, leaves, size))
        size *= 2


def straight(momenta: np.ndarray, first: int, middle: int, last: int) -> bool:
    """The criterion of a part and of its halves, from all its momenta."""
    spans = ((first, last), (first, middle), (middle - 1, last))
    return all(is_straight(momenta[a], momenta[b], momenta[a : b + 1].sum(0)) for a, b in spans)


@pytest.mark.parametrize("depth", range(5))
def test_checkpoints_see_every_part_that_has_turned(depth):
    """At every leaf, against the definition; the momenta go round, fast or slowly, with some noise."""
    chains, leaves = 200, 2**depth
    rng = np.random.default_rng(depth)
    angle = rng.uniform(0.0, 2.0 * np.pi / leaves, (chains, 1)) * np.arange(2 * leaves)
    momenta = np.stack([np.cos(angle), np.sin(angle)], -1) + 0.3 * rng.normal(size=(chains, 2 * leaves, 2))
    whole, doubling = momenta[:, :leaves], momenta[:, leaves:]
    asked, found = [], []
    with jax.enable_x64(True):
        checkpoints = Checkpoints.empty(max(depth + 1, 2), jnp.zeros((chains, 2)))
        for n in range(leaves):
            previous = momenta[:, leaves + n - 1]
            seen = (doubling[:, n], previous, doubling[:, :n].sum(1), whole[:, 0], whole.sum(1))
            number = jnp.full(chains, n, jnp.int32)
            checkpoints, part, every = checkpoints.reach(number, Momenta(*map(jnp.asarray, seen)))
            ends = [p for p in parts(leaves) if p[2] == n]
            asked.append([not all(straight(chain, *p) for p in ends) for chain in doubling])
            found.append(np.asarray(part))
    np.testing.assert_array_equal(found, asked)
    merged = [not straight(chain, 0, leaves, 2 * leaves - 1) for chain in momenta]
    np.testing.assert_array_equal(np.asarray(every), merged)
    assert 0.1 < np.mean(merged) < 0.9
    assert depth == 0 or 0.1 < np.mean(np.any(asked, 0)) < 1.0


SCALE = np.array([0.5, 1.0, 2.0])


def skewed(x, data):
    return jnp.sum(x - jnp.exp(x))


def skewed_in_whitened_coordinates(q):
    x = SCALE * q
    return np.sum(x - np.exp(x)), SCALE * (1.0 - np.exp(x))


def exact_draws(seed: int, chains: int, dtype: type = np.float32) -> np.ndarray:
    return np.log(np.random.default_rng(seed).exponential(size=(chains, 3))).astype(dtype)


def one_draw(kernel, step_size: float, start: np.ndarray):
    """One draw of many chains from these starts: position, leaves, mean acceptance, and the plan."""
    dtype = start.dtype
    target = Target(skewed, lambda x, data: {"x": x}, None, 3)
    tuning = kernel.Tuning(jnp.asarray(step_size, dtype), Diagonal(jnp.asarray(SCALE, dtype)))
    keys = Stream(root_key(3), jnp.arange(len(start), dtype=jnp.int32)).draw(jnp.asarray(7, jnp.int32))

    @jax.jit
    def step(position):
        ensemble = kernel.init(position, target)
        after, info = kernel.step(keys, ensemble, tuning, target)
        return after.position, info.num_steps, info.acceptance_rate, kernel.plan(keys, ensemble)

    return jax.tree.map(np.asarray, step(jnp.asarray(start))[:3]), step(jnp.asarray(start))[3]


def test_trees_are_those_of_the_reference():
    """Given momentum and directions a tree is settled, but for the leaf that is drawn: leaf for leaf the same."""
    with jax.enable_x64(True):
        start = exact_draws(1, 300, np.float64)
        (_, leaves, acceptance), plan = one_draw(NUTS(), 0.2, start)
        reference = ReferenceNUTS(skewed_in_whitened_coordinates, 0.2, np.random.default_rng(0))
        momenta, directions = np.asarray(plan.momentum), np.asarray(plan.directions).tolist()
        drawn = [reference.draw(*chain) for chain in zip(start / SCALE, momenta, directions, strict=True)]
    np.testing.assert_array_equal(leaves, [tree[1] for tree in drawn])
    np.testing.assert_allclose(acceptance, [tree[2] for tree in drawn], rtol=1e-9)
    assert len(set(leaves.tolist())) > 8


# ------------------------------------------------------------------------------------------------ the law


def two_sample_z(mine: np.ndarray, theirs: np.ndarray) -> float:
    error = np.sqrt(mine.var(0) / len(mine) + theirs.var(0) / len(theirs))
    return float(np.abs((mine.mean(0, dtype=float) - theirs.mean(0, dtype=float)) / error).max())


def features(start, x, leaves, acceptance):
    """What two laws are compared by: the draw, how far it is from its start, and the tree."""
    rare = {f"{n} leaves": (leaves == n)[:, None] * 1.0 for n in (3, 7, 11, 15, 19, 23, 31)}
    law = {"x": x, "x squared": x**2, "jump": (x - start) ** 2, "product": x * start}
    return {**law, "acceptance": acceptance[:, None], "leaves": leaves[:, None] * 1.0, **rare}


@pytest.fixture(scope="module")
def reference_law():
    """Independent transitions of the reference from exact draws."""
    start = exact_draws(1, 4000, np.float64)
    reference = ReferenceNUTS(skewed_in_whitened_coordinates, 0.3, np.random.default_rng(2))
    drawn = [reference.draw(q) for q in start / SCALE]
    x, leaves, acceptance = (np.array(part) for part in zip(*drawn, strict=True))
    return features(start, x * SCALE, leaves, acceptance)


def distance(kernel, law) -> dict[str, float]:
    start = exact_draws(4, 32_768)
    mine = features(start, *one_draw(kernel, 0.3, start)[0])
    return {name: two_sample_z(mine[name], law[name]) for name in law}


def test_law_is_that_of_the_reference(reference_law):
    z = distance(NUTS(), reference_law)
    assert max(z.values()) < 5, z


@pytest.mark.parametrize("wrong", [UniformBetween, WithoutHalves])
def test_another_law_is_caught(reference_law, wrong):
    """Both leave the target invariant: the exact start must let them pass."""
    z = distance(mutant(wrong)(), reference_law)
    assert max(z.values()) > 5, z


@pytest.mark.parametrize("wrong", NUTS_MUTANTS.values(), ids=NUTS_MUTANTS.keys())
def test_mutant_is_caught(wrong):
    z, where, _ = worst_z(EXACT["correlated"], run_from_exact_draws(wrong(), "correlated", np.float32)[0])
    assert z > 5, f"{where} off by only {z:.1f} standard errors"
