"""Generalised HMC: position, momentum and acceptance variable keep their joint law; what its draws depend on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exact import EXACT, with_x64, worst_z
from mutants import GHMC_MUTANTS
from shoal.adaptation import Chain, Damping, DiagonalMetric, During, Fixed, GradientStep, StepSize
from shoal.dynamics.metrics import Diagonal
from shoal.kernels import GHMC
from shoal.mesh import Placement
from shoal.program import Program, keep_draws
from shoal.randomness import Keys, root_key
from shoal.run import advance, begin, drive, enter, frozen
from shoal.target import Target
from test_exact_start import SCALE
from test_run import DIM, assert_bitwise_equal, positions, some_target, there_and_back

CHAINS, DRAWS = 16_384, 6
LEARNING = Chain(
    (
        During(0.0, 0.3, StepSize()),
        During(0.3, 1.0, GradientStep()),
        During(0.05, 0.9, DiagonalMetric()),
        Damping(),
    )
)


def from_exact_draws(kernel, name: str, dtype: type):
    """The ensemble some draws after exact positions; long steps, so that the acceptance matters."""
    exact = EXACT[name]
    with with_x64(dtype):
        target = exact.target(dtype)
        start = exact.draw(np.random.default_rng(5), CHAINS).astype(dtype)
        tuning = GHMC.Tuning(
            jnp.asarray(0.85, dtype), jnp.asarray(0.5, dtype), Diagonal(jnp.asarray(SCALE[name], dtype))
        )
        placement = Placement.of(CHAINS, 2048)
        program = Program(target, kernel)
        run = enter(program, begin(program, placement, root_key(11), start, tuning), placement, DRAWS)
        run, _ = advance(program, run, jnp.asarray(DRAWS, jnp.int32), placement, DRAWS)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:CHAINS], run.ensemble)


def worst_of_memory(ensemble) -> tuple[float, str]:
    """The largest |z| of what the memory's law says: m normal, u uniform, and both independent of the position."""
    m, u = ensemble.memory.momentum.astype(np.float64), ensemble.memory.slice.astype(np.float64)[:, None]
    bounded = np.tanh(ensemble.position)
    centred = {
        "momentum": m,
        "its square": m**2 - 1.0,
        "u": u,
        "its size": np.abs(u) - 1 / 2,
        "its square's mean": u**2 - 1 / 3,
        "momentum and position": m * bounded,
        "momentum's square and position": (m**2 - 1.0) * bounded,
        "u and position": (np.abs(u) - 1 / 2) * bounded,
        "u and position's square": (np.abs(u) - 1 / 2) * bounded**2,
        "u and momentum's square": (np.abs(u) - 1 / 2) * m**2,
    }
    z = {name: np.abs(v.mean(0)) / (v.std(0, ddof=1) / np.sqrt(len(v))) for name, v in centred.items()}
    where = max(z, key=lambda name: np.nan_to_num(z[name], nan=np.inf).max())
    return float(z[where].max()), where


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("num_steps", [1, 3])
def test_joint_law_is_invariant(num_steps, name, dtype):
    ensemble = from_exact_draws(GHMC(num_steps=num_steps), name, dtype)
    z, where, _ = worst_z(EXACT[name], ensemble.position)
    assert z < 5, f"{where} off by {z:.1f} standard errors"
    z, where = worst_of_memory(ensemble)
    assert z < 5, f"{where} off by {z:.1f} standard errors"
    assert np.abs(ensemble.memory.slice).max() <= 1.0
    assert not ensemble.memory.fresh.any()


@pytest.mark.parametrize("mutant", GHMC_MUTANTS.values(), ids=GHMC_MUTANTS.keys())
def test_mutant_is_caught(mutant):
    caught = {}
    for name in EXACT:
        ensemble = from_exact_draws(mutant(), name, np.float32)
        caught[name] = max(worst_z(EXACT[name], ensemble.position)[0], worst_of_memory(ensemble)[0])
        if caught[name] > 5:
            return
    pytest.fail(f"not caught: {caught}")


def test_first_draw_takes_the_memory_from_its_law():
    """Whatever `init` left: momentum and u of the first draw are drawn, not remembered."""
    kernel = GHMC()
    target = some_target()
    keys, others = (
        Keys(jnp.int32(0), jax.vmap(lambda n, seed=seed: jax.random.fold_in(root_key(seed), n))(jnp.arange(CHAINS)))
        for seed in (0, 1)
    )
    ensemble = kernel.init(jnp.asarray(np.random.default_rng(0).normal(size=(CHAINS, DIM)), jnp.float32), target)
    memory = kernel.refreshed(keys, ensemble.memory, kernel.tuning(DIM, np.float32))
    ensemble = eqx.tree_at(lambda e: e.memory, ensemble, memory)
    assert worst_of_memory(jax.tree.map(np.asarray, ensemble))[0] < 5
    # Then a part is remembered: exp(-step size * damping) of it.
    again = kernel.refreshed(others, memory, kernel.tuning(DIM, np.float32))
    kept = np.corrcoef(np.ravel(again.momentum), np.ravel(memory.momentum))[0, 1]
    assert kept == pytest.approx(np.exp(-0.1), abs=0.02)


def tuning(dtype: type = np.float32):
    return GHMC.Tuning(jnp.asarray(0.3, dtype), jnp.asarray(1.0, dtype), Diagonal(jnp.full(DIM, 0.5, dtype)))


def warmed(placement: Placement, chunks=(20,)):
    """Draws, tuning and memory of a run with everything that MEADS pools."""
    kernel, n = GHMC(num_steps=2), placement.num_chains
    program = Program(some_target(), kernel, LEARNING, keep=keep_draws)
    run = begin(program, placement, root_key(3), positions(n), kernel.tuning(DIM, np.float32))
    run, kept = enter(program, run, placement, 20), []
    for sweeps in chunks:
        run, rows = advance(program, run, jnp.int32(sweeps), placement, 20)
        kept.append(jax.tree.map(lambda leaf, sweeps=sweeps: np.asarray(leaf)[:sweeps, :n], rows))
    kept = jax.tree.map(lambda *parts: np.concatenate(parts), *kept)
    per_chain = jax.tree.map(lambda leaf: np.asarray(leaf)[:n], run.ensemble)
    return kept, per_chain, jax.tree.map(np.asarray, (run.tuning, frozen(program, run, placement)))


@pytest.fixture(scope="module")
def alone():
    return warmed(Placement.of(128, 32, jax.devices()[:1]))


@pytest.mark.parametrize("num_devices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_devices_change_no_draw(alone, num_devices):
    assert_bitwise_equal(warmed(Placement.of(128, 32, jax.devices()[:num_devices])), alone)


def test_chunks_change_no_draw(alone):
    assert_bitwise_equal(warmed(Placement.of(128, 32, jax.devices()[:1]), (1, 7, 12)), alone)


def test_devices_change_no_draw_of_chains_that_fill_no_tile():
    assert_bitwise_equal(
        warmed(Placement.of(100, 16, jax.devices()[:4])), warmed(Placement.of(100, 16, jax.devices()[:1]))
    )


def sampled(chains: int, draws: int, break_after: int | None = None, target: Target | None = None, start=None):
    """Draws with a fixed tuning; with a break, the run leaves for the host and comes back."""
    placement = Placement.of(chains, 16, jax.devices()[:1])
    program = Program(some_target() if target is None else target, GHMC(), Fixed(), {}, keep_draws)
    start = positions(512)[:chains] if start is None else start
    run = enter(program, begin(program, placement, root_key(9), start, tuning()), placement, draws)
    kept = []
    for length in (draws,) if break_after is None else (break_after, draws - break_after):
        for part in drive(program, run, placement, length, draws):
            kept.append(jax.tree.map(lambda leaf, n=part.draws: np.asarray(leaf)[:n, :chains], part.kept))
            run = part.run
        run = there_and_back(run)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *kept)


def test_saved_and_resumed_is_straight_through():
    """Momentum and u are part of the run."""
    assert_bitwise_equal(sampled(32, 60, break_after=25), sampled(32, 60))


def test_first_64_of_512_chains_are_the_run_of_64():
    assert_bitwise_equal(jax.tree.map(lambda leaf: leaf[:, :64], sampled(512, 20)), sampled(64, 20))


def test_proposals_that_are_not_finite_are_rejected_and_turn_the_chain_round():
    wall = lambda z, data: jnp.where(jnp.sum(z) > 0.5, jnp.nan, -0.5 * jnp.sum(z * z))
    target = Target(wall, lambda z, data: {"z": z}, None, DIM)
    draws = sampled(64, 100, target=target, start=-np.ones((64, DIM), np.float32))
    z, stats = draws["values"]["z"], draws["stats"]
    assert np.isfinite(z).all()
    assert z.sum(-1).max() <= 0.5 + 1e-5
    assert stats["diverging"].any()
    np.testing.assert_array_equal(np.isinf(stats["energy_error"]), stats["diverging"])
    # Turned round: the sum of the coordinates, which the wall bounds, is lower some draws after a rejection.
    before, chain = np.nonzero(stats["diverging"][:-5])
    assert np.mean(z[before + 5, chain].sum(-1) < z[before, chain].sum(-1)) > 0.8


def test_gradients_are_counted():
    placement = Placement.of(16, 16, jax.devices()[:1])
    kernel = GHMC(num_steps=5)
    program = Program(some_target(), kernel, keep=lambda t, target: {"gradients": t.info.gradients})
    run = enter(program, begin(program, placement, root_key(0), positions(16), tuning()), placement, 3)
    _, kept = advance(program, run, jnp.int32(3), placement, 3)
    np.testing.assert_array_equal(kept["gradients"], 5)


def test_nothing_promotes_silently(strict):
    placement = Placement.of(8, 4, jax.devices()[:2])
    kernel = GHMC(num_steps=2)
    program = Program(some_target(), kernel, LEARNING, {}, keep_draws)
    run = begin(program, placement, root_key(0), positions(8), kernel.tuning(DIM, np.float32))
    run, _ = advance(program, enter(program, run, placement, 4), jnp.int32(4), placement, 4)
    assert np.isfinite(np.asarray(run.ensemble.position)).all()
