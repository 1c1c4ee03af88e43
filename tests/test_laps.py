"""Burn-in by LAPS: what it measures, what it makes of that, and where it brings 128 chains in 400 gradients each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.adaptation import LAPS
from shoal.adaptation.laps import FAR, Pooled
from shoal.dynamics.metrics import Diagonal, LowRank
from shoal.ensemble import Ensemble, Info, Transition
from shoal.kernels import Microcanonical
from shoal.mesh import Placement, Pool
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import advance, begin, enter
from shoal.target import Target

KERNEL = Microcanonical()
CHAINS, DRAWS = 128, 400


class Everyone(Pool):
    """A pool of one tile, outside of any mesh."""

    def sum(self, contribution, tiles):
        return jax.tree.map(lambda leaf: leaf.sum(0), contribution(tiles))


def transition(position, gradient, error, step_size=1.0):
    """One draw of chains that end here; `error` where a proposal is not finite is infinite."""
    chains = len(position)
    position, gradient = jnp.asarray(position, jnp.float32), jnp.asarray(gradient, jnp.float32)
    error = jnp.asarray(error, jnp.float32)
    taken = jnp.isfinite(error).astype(jnp.float32)
    one = jnp.ones(chains, jnp.int32)
    ensemble = Ensemble(position, -0.5 * jnp.square(position).sum(1), gradient, position)
    steps = jnp.broadcast_to(jnp.asarray(step_size, jnp.float32), (chains,))
    info = Info(taken, error, error > 1e3, steps, one, one, position, position)
    return Transition(ensemble, ensemble, info)


def pooled(position, gradient, error, metric=None, step_size=1.0) -> Pooled:
    dim = position.shape[1]
    tuning = KERNEL.tuning(dim, np.float32)
    tuning = tuning if metric is None else eqx.tree_at(lambda t: t.metric, tuning, metric)
    everyone = Everyone(jnp.arange(len(position))[None], len(position))
    return LAPS().pooled(tuning, transition(position, gradient, error, step_size), everyone)


# ------------------------------------------------------------------------------------------------ what it sees


def test_pooled_statistics_are_those_of_the_definitions():
    rng = np.random.default_rng(0)
    x, g, error = rng.normal(size=(300, 3)) * [1, 5, 0.2] + [0, 30, 1], rng.normal(size=(300, 3)), rng.normal(size=300)
    error[7] = np.inf
    scale = np.array([1.0, 4.0, 0.5])
    now = pooled(x, g, error, Diagonal(jnp.asarray(scale, jnp.float32)))
    off = x - x.mean(0)
    virial = (-off * g).mean(0)
    bias = np.mean((1 - virial) ** 2) + np.mean(g.mean(0) ** 2 * x.var(0))
    np.testing.assert_allclose(now.bias, bias, rtol=1e-4)
    np.testing.assert_allclose(now.temperature, max(1.0, virial.mean()), rtol=1e-4)
    np.testing.assert_allclose(now.energy, error[np.isfinite(error)].var() / 3, rtol=1e-4)
    np.testing.assert_allclose(now.variance, x.var(0), rtol=1e-4)
    np.testing.assert_allclose(now.slope, g.var(0), rtol=1e-4)
    np.testing.assert_allclose(now.square, (x**2).mean(0), rtol=1e-4)
    np.testing.assert_allclose(now.size, (x.var(0) / scale**2).sum(), rtol=1e-4)
    np.testing.assert_allclose(now.taken, 299 / 300, rtol=1e-5)
    np.testing.assert_allclose(now.typical, np.exp(np.log(np.abs(error[np.isfinite(error)])).mean()), rtol=1e-3)
    assert now.free == 1.0


def test_chains_with_shorter_steps_say_nothing():
    """What is pooled is that of the others alone, whatever those are up to."""
    rng = np.random.default_rng(0)
    x, g, error = rng.normal(size=(300, 3)), rng.normal(size=(300, 3)), rng.normal(size=300)
    error[7] = np.inf
    expected = pooled(x, g, error)
    stuck = 1e3 * rng.normal(size=(100, 3)), 1e6 * rng.normal(size=(100, 3)), np.full(100, np.inf)
    together = [np.concatenate(parts) for parts in zip((x, g, error), stuck, strict=True)]
    now = pooled(*together, step_size=np.where(np.arange(400) < 300, 1.0, 1e-3))
    assert now.free == 0.75
    for name in Pooled.__annotations__:
        if name != "free":
            np.testing.assert_allclose(getattr(now, name), getattr(expected, name), rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(("size", "largest"), [(0.0, 3.0), (1e-3, 3.0), (1e4, 3e6)])
def test_an_error_far_beyond_the_typical_one_is_too_large_but_none_below_the_dimension(size, largest):
    normal, error = np.random.default_rng(0).normal(size=(64, 3)), np.where(np.arange(64) < 32, size, -size)
    tuning, everyone = KERNEL.tuning(3, np.float32), Everyone(jnp.arange(64)[None], 64)
    own = transition(normal, -normal, error)
    tuned = LAPS().update(LAPS().init(tuning), tuning, own, everyone, jnp.float32(0.0))[1]
    np.testing.assert_allclose(tuned.largest_error, largest, rtol=1e-4)


def test_where_most_chains_take_shorter_steps_the_step_is_too_long_and_nothing_is_learned():
    tuning, memory = KERNEL.tuning(3, np.float32), LAPS().init(KERNEL.tuning(3, np.float32))
    normal = np.random.default_rng(0).normal(size=(64, 3))
    everyone = Everyone(jnp.arange(64)[None], 64)
    for few, learns in ((31, False), (32, True)):
        own = transition(normal, -4.0 * normal, np.zeros(64), np.where(np.arange(64) < few, 1.0, 1e-3))
        after, tuned = LAPS().update(memory, tuning, own, everyone, jnp.float32(0.0))
        assert (float(tuned.step_size) == pytest.approx(0.5 * float(tuning.step_size))) != learns
        assert (float(tuned.trajectory) == float(tuning.trajectory)) != learns
        assert (float(after.count) == 0.0) != learns
        assert np.array_equal(tuned.metric.scale, tuning.metric.scale) != learns


def test_size_of_the_ensemble_is_that_in_any_metric():
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    parts = [1.0, 2.0, 3.0], directions, [0.5, 4.0, 1.0]
    x = rng.normal(size=(200, 3))
    now = pooled(x, -x, np.zeros(200), LowRank(*(jnp.asarray(part, jnp.float32) for part in parts)))
    whitening = np.diag(parts[0]) @ directions @ np.diag(parts[2]) @ directions.T
    q = np.linalg.solve(whitening, (x - x.mean(0)).T)
    np.testing.assert_allclose(now.size, (q**2).sum() / 200, rtol=1e-4)


def test_a_wrong_mean_shows():
    """The paper's proxy alone is blind to it: an ensemble N(3, I) at a target N(0, I) has V = I."""
    normal = np.random.default_rng(0).normal(size=(20_000, 4))
    right, wrong = pooled(normal, -normal, np.zeros(20_000)), pooled(normal + 3, -normal - 3, np.zeros(20_000))
    assert float(right.bias) < 0.01
    np.testing.assert_allclose(wrong.bias, 9.0, rtol=0.05)


# ---------------------------------------------------------------------------------------------- what it decides


def state(
    bias=0.1, energy=1e-3, temperature=1.0, taken=1.0, log_density=0.0, free=1.0, typical=1.0, dtype=np.float32
) -> Pooled:
    number = lambda value: jnp.asarray(value, jnp.float32)
    dim = 4
    ones = jnp.ones(dim)
    return Pooled(
        number(free), number(taken), ones, ones, number(dim), ones, number(log_density), float(np.finfo(dtype).eps),
        number(bias), number(temperature), number(energy), number(typical),
    )  # fmt: skip


def by_the_paper(bias: float, energy: float) -> float:
    z = 0.025 * bias
    return (4 * z**1.5 / (1 + z**0.5) ** 2 / energy) ** (1 / 6)


@pytest.mark.parametrize("bias", [0.01, 0.1, 0.9])
def test_the_step_size_follows_the_law_of_the_paper(bias):
    for energy in (1e-4, 1e-2):
        np.testing.assert_allclose(LAPS().factor(state(bias, energy)), by_the_paper(bias, energy), rtol=1e-4)


def test_far_off_energies_count_by_the_temperature():
    np.testing.assert_allclose(LAPS().factor(state(1e8, 1e6, 1e4)), by_the_paper(1.0, 1e6 / 1e8), rtol=1e-4)


@pytest.mark.parametrize("case", [{"energy": 0.0}, {"energy": np.inf}, {"bias": np.inf}, {"bias": 0.0}])
def test_the_step_size_stays_finite(case):
    assert 1 / 3.0001 < float(LAPS().factor(state(**case))) < 3.0001


def test_proposals_that_are_not_finite_halve_the_step():
    assert LAPS().factor(state(taken=0.9)) == 0.5
    assert LAPS().factor(state(taken=0.96)) != 0.5


def test_no_step_is_short_enough_for_rounding():
    """With a log density of a million in float32 energy errors never fall below about a tenth."""
    assert LAPS().factor(state(0.02, 0.02, log_density=1e6)) > 1.0
    assert LAPS().factor(state(0.02, 0.02)) < 0.5
    # With the log density in double they do, whatever positions are in.
    assert LAPS().factor(state(0.02, 0.02, log_density=1e6, dtype=np.float64)) < 0.5


def test_the_spacing_is_that_of_log_densities():
    """Whatever positions are in: with mixed precision of numbers in double."""
    made = transition(np.zeros((4, 3)), np.zeros((4, 3)), np.zeros(4))
    with jax.enable_x64(True):
        for dtype in (np.float32, np.float64):
            level = jnp.zeros(4, dtype)
            draw = eqx.tree_at(lambda made: made.after, made, eqx.tree_at(lambda e: e.log_density, made.after, level))
            now = LAPS().pooled(KERNEL.tuning(3, np.float32), draw, Everyone(jnp.arange(4)[None], 4))
            assert now.spacing == np.finfo(dtype).eps


def test_scales_are_those_of_a_gaussian_wherever_the_ensemble_is_but_near_its_spread():
    rng = np.random.default_rng(0)
    x, sd = rng.uniform(-2, 2, (400, 3)), np.array([0.3, 1e-3, 1e3])
    now = pooled(x, -x / sd**2, np.zeros(400))
    memory = LAPS().init(KERNEL.tuning(3, np.float32))
    spread = x.std(0)
    expected = [0.3, spread[1] / 10, spread[2] * 10]
    np.testing.assert_allclose(np.exp(LAPS().log_scale(memory, now)), expected, rtol=1e-4)


def test_scales_of_chains_in_one_place_are_left_alone():
    now = pooled(np.ones((8, 3)), np.ones((8, 3)), np.zeros(8))
    memory = eqx.tree_at(lambda m: m.log_scale, LAPS().init(KERNEL.tuning(3, np.float32)), jnp.full(3, 0.7))
    np.testing.assert_allclose(LAPS().log_scale(memory, now), 0.7, rtol=1e-6)


def test_far_off_nothing_is_remembered_and_no_fluctuation_known():
    memory = LAPS().init(KERNEL.tuning(4, np.float32))
    for _ in range(30):
        memory = LAPS().remembered(memory, state())
    assert memory.count == 30
    assert memory.fluctuation() == 0.0
    memory = LAPS().remembered(memory, state(bias=2 * FAR))
    assert memory.count == 1
    assert memory.fluctuation() == np.inf


# ---------------------------------------------------------------------------------------------- where it arrives


def burnt_in(log_density, data, dim, adaptation=None, dtype=np.float32, draws=DRAWS):
    """The run after burn-in from 16 dispersed points, uniform on (-2, 2), of 8 chains each."""
    target = Target(log_density, lambda z, data: {}, data, dim)
    placement, program = Placement.of(CHAINS), Program(target, KERNEL, adaptation or LAPS())
    start = np.repeat(np.random.default_rng(0).uniform(-2, 2, (16, dim)), CHAINS // 16, axis=0).astype(dtype)
    run = begin(program, placement, root_key(0), start, KERNEL.tuning(dim, dtype))
    run, _ = advance(program, enter(program, run, placement, draws), jnp.int32(draws), placement, draws)
    return run


def assert_arrived(run, mean, sd, z_most: float = 5.0):
    """Means within five standard errors of 128 draws, 0.44 sd; variances too: z of squares has sd (2 / 128)^(1/2)."""
    x = np.asarray(run.ensemble.position, np.float64)
    z = (x - mean) / sd
    assert np.abs(z.mean(0)).max() * np.sqrt(CHAINS) < z_most
    assert np.abs((z**2).mean(0) - 1).max() * np.sqrt(CHAINS / 2) < z_most
    assert np.isfinite(x).all()


def scaled(z, data):
    mean, precision = data
    return -0.5 * jnp.sum(jnp.square((z - mean) * precision))


def correlated(z, data):
    return -0.5 * (z - 1.0) @ data @ (z - 1.0)


@pytest.mark.parametrize("precondition", [True, False])
def test_burns_in_scales_two_orders_apart(precondition):
    sd = np.logspace(-1, 1, 20) if precondition else np.logspace(-0.5, 0.5, 20)
    mean = sd * np.linspace(-3, 3, 20)
    data = jnp.asarray(mean, jnp.float32), jnp.asarray(1 / sd, jnp.float32)
    run = burnt_in(scaled, data, 20, LAPS(precondition=precondition))
    assert_arrived(run, mean, sd)
    assert float(run.adaptation.bias) < 0.1
    np.testing.assert_allclose(run.tuning.metric.scale, sd if precondition else 1.0, rtol=0.1)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_burns_in_scales_twelve_orders_apart(dtype):
    """From 1e-6 to 1e6, with starts of order 1: a million standard deviations out, or in a millionth of one."""
    sd = np.logspace(-6, 6, 20)
    mean = sd * np.linspace(-3, 3, 20)
    with jax.enable_x64(dtype is np.float64):
        run = burnt_in(scaled, (jnp.asarray(mean, dtype), jnp.asarray(1 / sd, dtype)), 20, dtype=dtype)
        assert_arrived(run, mean, sd)
        np.testing.assert_allclose(run.tuning.metric.scale, sd, rtol=0.1)
        assert 0.05 < float(run.adaptation.fluctuation()) < 0.25  # (2 / 128)^(1/2) is 0.125


def test_without_scales_twelve_orders_are_hopeless():
    """The check above can fail."""
    sd = np.logspace(-6, 6, 20)
    data = jnp.zeros(20), jnp.asarray(1 / sd, jnp.float32)
    run = burnt_in(scaled, data, 20, LAPS(precondition=False))
    with pytest.raises(AssertionError):
        assert_arrived(run, np.zeros(20), sd)


def test_burns_in_a_correlated_gaussian():
    covariance = np.full((10, 10), 0.9) + 0.1 * np.eye(10)
    run = burnt_in(correlated, jnp.asarray(np.linalg.inv(covariance), jnp.float32), 10)
    assert_arrived(run, 1.0, 1.0)
    x = np.asarray(run.ensemble.position, np.float64)
    # The quadratic form is chi-squared with 10 degrees of freedom, variance 20.
    form = np.einsum("ni,ij,nj->n", x - 1.0, np.linalg.inv(covariance), x - 1.0)
    assert abs(form.mean() - 10.0) < 5 * np.sqrt(20 / CHAINS)


def rotated_logistic(z, data):
    rotation, trials, successes, width = data
    logits = rotation @ z
    return jnp.sum(successes * logits - trials * jnp.logaddexp(0.0, logits)) - 0.5 * jnp.sum(jnp.square(z / width))


def test_burns_in_a_logistic_regression():
    """24 coefficients whose posterior is a rotated product: means and variances by quadrature."""
    rng = np.random.default_rng(3)
    dim, width = 24, 3.0
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    trials = np.round(np.logspace(0.7, 3, dim))
    successes = np.round(trials * rng.uniform(0.1, 0.9, dim))
    grid = np.linspace(-15, 15, 20_001)
    log = successes[:, None] * grid - trials[:, None] * np.logaddexp(0.0, grid) - 0.5 * (grid / width) ** 2
    weight = np.exp(log - log.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    mean, square = weight @ grid, weight @ grid**2
    data = tuple(jnp.asarray(part, jnp.float32) for part in (rotation, trials, successes, width))
    run = burnt_in(rotated_logistic, data, dim)
    run = eqx.tree_at(lambda r: r.ensemble.position, run, np.asarray(run.ensemble.position) @ rotation.T)
    assert_arrived(run, mean, np.sqrt(square - mean**2))


def test_a_log_density_far_from_zero_burns_in_in_float32():
    sd, mean = np.logspace(-1, 1, 10), np.full(10, 2.0)
    data = jnp.asarray(mean, jnp.float32), jnp.asarray(1 / sd, jnp.float32)
    run = burnt_in(lambda z, data: 1e6 + scaled(z, data), data, 10)
    assert_arrived(run, mean, sd)
    assert float(run.tuning.step_size) > 0.5
