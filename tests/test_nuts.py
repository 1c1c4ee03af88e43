"""NUTS: what its draws depend on, that its gradients are counted, and the sampler as it is called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from exact import with_x64
from shoal.adaptation import Fixed, step_size
from shoal.dynamics.metrics import Diagonal
from shoal.kernels import NUTS
from shoal.mesh import Placement
from shoal.program import Program, keep_draws
from shoal.randomness import Stream, root_key
from shoal.report.overview import facts
from shoal.run import advance, begin, drive, enter
from shoal.statistics import Health, Moments
from shoal.target import Target
from test_run import DIM, assert_bitwise_equal, positions, some_target, there_and_back, wall

# ------------------------------------------------------------------------------------------- what draws depend on


def sampled(chains: int = 64, bundle: int = 10, draws: int = 20, devices: int = 1, target=None, **settings):
    """What is kept of a run at a fixed tuning, and its statistics."""
    kernel = NUTS(draws_per_sweep=bundle, **settings)
    placement = Placement.of(chains, 16, jax.devices()[:devices])
    folds = {"health": Health(), "moments": Moments()}
    program = Program(some_target() if target is None else target, kernel, Fixed(), folds, keep_draws)
    tuning = kernel.Tuning(jnp.float32(0.3), Diagonal(jnp.full(DIM, 0.3, np.float32)))
    run = begin(program, placement, root_key(9), positions(512)[:chains], tuning)
    run, kept = advance(program, enter(program, run, placement, draws), jnp.int32(draws // bundle), placement, draws)
    kept = jax.tree.map(lambda leaf: np.asarray(leaf)[:draws, :chains], kept)
    return kept, jax.tree.map(lambda leaf: np.asarray(leaf)[:chains], run.statistics)


@pytest.fixture(scope="module")
def alone():
    return sampled()


@pytest.mark.parametrize("bundle", [1, 4, 20])
def test_the_bundle_changes_no_draw(alone, bundle):
    kept, statistics = sampled(bundle=bundle)
    assert_bitwise_equal(kept, alone[0])
    assert_bitwise_equal(statistics["moments"], alone[1]["moments"])


def test_draws_one_by_one_are_those_of_the_bundle(alone):
    """`step` with the keys of each draw, beside the sweep."""
    kernel, target = NUTS(), some_target()
    tuning = kernel.Tuning(jnp.float32(0.3), Diagonal(jnp.full(DIM, 0.3, np.float32)))
    stream = Stream(root_key(9), jnp.arange(16, dtype=jnp.int32))
    step = jax.jit(lambda index, ensemble: kernel.step(stream.draw(index), ensemble, tuning, target))
    ensemble = kernel.init(jnp.asarray(positions(512)[:16]), target)
    for draw in range(5):
        ensemble, info = step(jnp.int32(draw), ensemble)
        np.testing.assert_array_equal(info.num_steps, alone[0]["stats"]["n_steps"][draw, :16])
        np.testing.assert_allclose(ensemble.position[:, 1:], alone[0]["values"]["beta"][draw, :16], atol=1e-4)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_devices_change_no_draw(alone, devices):
    assert_bitwise_equal(sampled(devices=devices), alone)


def test_first_64_of_512_chains_are_the_run_of_64(alone):
    assert_bitwise_equal(jax.tree.map(lambda leaf: leaf[:, :64], sampled(512)[0]), alone[0])


def in_chunks(sweeps: int, draws: int = 55, break_after: int = 0):
    """Draws by `drive`, with at most so many sweeps at once; after a break the run comes back from the host."""
    kernel, placement = NUTS(), Placement.of(32, 16, jax.devices()[:1])
    program = Program(some_target(), kernel, Fixed(), {}, keep_draws)
    tuning = kernel.Tuning(jnp.float32(0.3), Diagonal(jnp.full(DIM, 0.3, np.float32)))
    run, kept = begin(program, placement, root_key(9), positions(32), tuning), []
    for length in (break_after, draws - break_after):
        for part in drive(program, there_and_back(run), placement, length, sweeps):
            kept.append(jax.tree.map(lambda leaf, n=part.draws: np.asarray(leaf)[:n], part.kept))
            run = part.run
    return jax.tree.map(lambda *rows: np.concatenate(rows), *kept)


def test_chunks_change_no_draw():
    whole = in_chunks(6)
    assert whole["stats"]["lp"].shape == (55, 32)
    assert_bitwise_equal(in_chunks(2, break_after=20), whole)


def test_another_seed_or_chain_draws_otherwise(alone):
    last = alone[0]["values"]["beta"][-1]
    assert len({last[chain].tobytes() for chain in range(64)}) == 64


# --------------------------------------------------------------------------------------------------- the account


@pytest.mark.parametrize("chains", [1, 8])
def test_gradients_are_counted(chains):
    """Leaves are evaluations of the target; with several chains, those too that a chain waits for."""
    calls = []

    def counted(z, data):
        jax.debug.callback(calls.append, z)
        return -0.5 * jnp.sum(z * z)

    kernel, target = NUTS(draws_per_sweep=5), Target(counted, lambda z, data: {}, None, 2)
    stream = Stream(root_key(0), jnp.arange(chains, dtype=jnp.int32))
    ensemble = kernel.init(jnp.ones((chains, 2), np.float32), target)
    jax.effects_barrier()
    calls.clear()
    tuning = kernel.tuning(2, np.float32)
    _, draws = jax.jit(lambda ensemble: kernel.sweep(stream, jnp.int32(0), ensemble, tuning, target))(ensemble)
    jax.effects_barrier()
    info = draws.info
    assert info.paid.sum() == len(calls)
    np.testing.assert_array_equal(info.paid.sum(0), len(calls) // chains)
    np.testing.assert_array_equal(info.gradients, info.num_steps)
    assert (info.idle >= 0).all()
    assert (info.idle.sum(0) == 0).any(), "one chain at least does not wait"
    assert chains == 1 or info.idle.sum() > 0


def test_health_adds_up_what_was_paid(alone):
    kept, statistics = alone
    said = Health().compute(statistics["health"], np.zeros(64, int))
    steps = kept["stats"]["n_steps"]
    assert said["gradients"] == steps.sum()
    sweeps = steps.reshape(2, 10, 4, 16).sum(1)
    assert said["paid"] == 16 * sweeps.max(-1).sum()


def test_trees_end_at_their_greatest_depth():
    """On a nearly flat target nothing turns."""
    flat = Target(lambda z, data: -1e-6 * jnp.sum(z * z), lambda z, data: {"z": z}, None, DIM)
    kept, _ = sampled(target=flat, max_tree_depth=3)
    assert (kept["stats"]["n_steps"] == 7).all()
    kept, _ = sampled(target=flat, max_tree_depth=1)
    assert (kept["stats"]["n_steps"] == 1).all()
    assert not kept["stats"]["diverging"].any()


def test_leaves_that_are_not_finite_end_the_tree_and_are_never_drawn():
    target = Target(wall, lambda z, data: {"z": z}, None, DIM)
    start = -np.ones((64, DIM), np.float32)
    kernel, placement = NUTS(), Placement.of(64, 16, jax.devices()[:1])
    program = Program(target, kernel, Fixed(), {}, keep_draws)
    tuning = kernel.Tuning(jnp.float32(0.3), Diagonal(jnp.full(DIM, 0.3, np.float32)))
    run = begin(program, placement, root_key(0), start, tuning)
    _, kept = advance(program, enter(program, run, placement, 50), jnp.int32(5), placement, 5)
    z, stats = np.asarray(kept["values"]["z"]), jax.tree.map(np.asarray, kept["stats"])
    assert np.isfinite(z).all()
    assert z.sum(-1).max() <= 0.5 + 1e-5
    assert np.isfinite(stats["energy_error"]).all()
    assert np.isfinite(stats["acceptance_rate"]).all()
    assert 0.0 < stats["diverging"].mean() < 1.0


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_nothing_in_our_own_code_promotes_silently(strict, dtype):
    with with_x64(dtype):
        target = Target(lambda z, data: -0.5 * jnp.sum(z * z), lambda z, data: {"z": z}, None, DIM)
        kernel, placement = NUTS(draws_per_sweep=3), Placement.of(8, 4, jax.devices()[:2])
        folds = {"health": Health(), "moments": Moments()}
        program = Program(target, kernel, shoal.NUTS().adaptation(), folds, keep_draws)
        run = begin(program, placement, root_key(0), positions(8, dtype), kernel.tuning(DIM, dtype))
        run, kept = advance(program, enter(program, run, placement, 6), jnp.int32(2), placement, 2)
        assert run.ensemble.position.dtype == dtype
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(kept["values"]))


# ------------------------------------------------------------------------------------------------ the sampler


@pytest.fixture(scope="module")
def result():
    model = shoal.examples.load("eight_schools")
    return shoal.sample(model, sampler="nuts", num_chains=64, num_warmup=200, num_samples=37, progress_bar=False)


def test_samples_that_are_no_multiple_of_the_bundle(result):
    assert result.draws["mu"].shape == (64, 37)
    assert all(values.shape == (64, 37) for values in result.sample_stats.values())
    assert result.converged, result.findings
    assert result.sample_stats["n_steps"].sum() <= result.gradients.sampling, "a sweep of 10 is made to its end"


def test_the_step_size_is_neither_timid_nor_bold(result):
    """The harmonic mean of the acceptance, no chain's inverse above the bound, is 0.8; the arithmetic mean more."""
    acceptance, bound = result.sample_stats["acceptance_rate"], 1.0 + step_size.SHARE * 64 * (1.0 / 0.8 - 1.0)
    assert 0.7 < 1.0 / np.minimum(1.0 / acceptance, bound).mean() < 0.9
    assert 0.8 < acceptance.mean() < 0.95


def test_the_result_says_how_much_was_waited_for(result):
    share = result.gradients.lockstep
    assert share == result.gradients.sampling / result.gradients.paid
    assert 0.4 < share < 0.99
    assert f"{share:.0%} of those computed" in str(result)
    assert "of those computed" in dict(facts(result))["gradients"]


def test_longer_runs_begin_with_the_shorter(result):
    model = shoal.examples.load("eight_schools")
    longer = shoal.sample(model, sampler="nuts", num_chains=64, num_warmup=200, num_samples=43, progress_bar=False)
    np.testing.assert_array_equal(longer.draws["mu"][:, :37], result.draws["mu"])


@pytest.mark.parametrize("settings", [{"max_tree_depth": 21}, {"max_tree_depth": 0}, {"target_accept": 1.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="NUTS\\("):
        shoal.NUTS(**settings)
