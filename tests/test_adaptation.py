"""What warmup learns, on Gaussians whose best tuning is known."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.adaptation import During, StepSize
from shoal.adaptation.averaging import weight
from shoal.mesh import Placement
from shoal.paths import by_path
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import advance, begin, enter, frozen
from shoal.samplers.arrays import tuning_from_arrays
from shoal.target import Target

DIM, CHAINS = 10, 64
SCALES = np.logspace(-2, 2, DIM).astype(np.float32)


def scaled(z, precision):
    return -0.5 * jnp.sum(jnp.square(z) * precision)


def correlated(z, precision):
    return -0.5 * z @ precision @ z


def tuned(log_density, data, sampler=None, draws: int = 400, start=None):
    """The tuning after a warmup from dispersed starts, and the run."""
    sampler = sampler or shoal.ChEES()
    target = Target(log_density, lambda z, data: {"z": z}, data, DIM)
    placement = Placement.of(CHAINS)
    program = Program(target, sampler.kernel(), sampler.adaptation())
    if start is None:
        start = np.repeat(np.random.default_rng(0).uniform(-2, 2, (8, DIM)), 8, axis=0)
    start = start.astype(np.float32)
    run = begin(program, placement, root_key(0), start, sampler.tuning(DIM, np.float32))
    run, _ = advance(program, enter(program, run, placement, draws), jnp.int32(draws), placement, draws)
    return frozen(program, run, placement), run


def test_metric_finds_scales_four_orders_apart():
    """A pooled sd has a relative error of about 1 / sqrt(2 * effective draws): 400 suffice for 15% at 4 sigma."""
    tuning, _ = tuned(scaled, jnp.asarray(SCALES**-2))
    np.testing.assert_allclose(tuning.metric.scale, SCALES, rtol=0.15)


def test_trajectory_is_long_enough_for_the_slowest_direction():
    correlation = np.full((DIM, DIM), 0.9) + 0.1 * np.eye(DIM)
    tuning, _ = tuned(correlated, jnp.asarray(np.linalg.inv(correlation), jnp.float32))
    largest = 0.9 * DIM + 0.1
    assert 2.2 * np.sqrt(0.8 * largest) < float(tuning.trajectory) < 2.2 * np.sqrt(1.3 * largest)


@pytest.mark.parametrize(
    "target_accept", [pytest.param(0.6, marks=pytest.mark.slow), 0.8, pytest.param(0.95, marks=pytest.mark.slow)]
)
def test_step_size_reaches_the_acceptance_that_was_asked_for(target_accept):
    """The harmonic mean over chains, on average over draws made with the settled step size."""
    sampler = shoal.ChEES(target_accept=target_accept)
    tuning, run = tuned(scaled, jnp.asarray(SCALES**-2), sampler)
    target = Target(scaled, lambda z, data: {"z": z}, jnp.asarray(SCALES**-2), DIM)
    placement = Placement.of(CHAINS)
    program = Program(target, sampler.kernel(), keep=lambda t, target: {"a": t.info.acceptance_rate})
    run = enter(program, eqx.tree_at(lambda r: (r.tuning, r.adaptation), run, (tuning, None)), placement, 400)
    _, kept = advance(program, run, jnp.int32(400), placement, 400)
    harmonic = 1 / np.mean(1 / np.maximum(np.asarray(kept["a"]), 0.02), axis=1)  # none comes near 0.02
    assert abs(harmonic.mean() - target_accept) < 0.04


def test_one_chain_that_is_stuck_does_not_stop_the_others():
    """Its acceptance of 0 counts as less than half of the shortfall that the target allows."""
    start = np.random.default_rng(0).uniform(-2, 2, (CHAINS, DIM)).astype(np.float32)
    free, _ = tuned(beside_an_island, None, start=start)
    start[-1] = 0.0
    start[-1, 0] = 5.0
    stuck, run = tuned(beside_an_island, None, start=start)
    assert run.ensemble.position[CHAINS - 1, 0] == 5.0
    # Without the rule it ends at 1e-6. It has half of the warmup to recover.
    assert 0.05 * float(free.step_size) < float(stuck.step_size) < float(free.step_size)


def beside_an_island(z, data):
    """A Gaussian, and an island so small that no step lands on it."""
    island = jnp.where(jnp.abs(z[0] - 5.0) < 1e-6, 0.0, jnp.nan)
    return jnp.where(jnp.abs(z[0]) < 4.5, -0.5 * jnp.sum(jnp.square(z)), island)


def test_adaptation_is_frozen_at_its_end():
    part = During(0.25, 0.5, StepSize())
    tuning = shoal.ChEES().tuning(DIM, np.float32)
    memory = part.init(tuning)
    assert jnp.isclose(part.freeze(memory, tuning).step_size, tuning.step_size)


def test_averages_forget_their_beginning():
    """After 1,000 values the first half has a share of 1/16: (1/2) to the power eta + 1."""
    mean = 0.0
    for count in range(1, 1001):
        mean += float(weight(jnp.float32(count))) * ((count > 500) - mean)
    assert mean == pytest.approx(1 - 1 / 16, abs=0.002)


def test_tuning_travels_through_arrays():
    like = shoal.ChEES().tuning(DIM, np.float32)
    arrays = by_path(like)
    coefficients = {"integrator.kicks.0", "integrator.kicks.1", "integrator.drifts.0"}
    assert set(arrays) == {"step_size", "trajectory", "shortest", "metric.scale", *coefficients}
    assert eqx.tree_equal(tuning_from_arrays(arrays, like), like)
