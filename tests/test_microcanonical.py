"""Isokinetic dynamics against their differential equation; the unadjusted kernel, less biased by shorter steps."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exact import EXACT, worst_z
from shoal.adaptation import LAPS, Fixed
from shoal.compiling import forget_programs
from shoal.dynamics import isokinetic
from shoal.dynamics.integrators import LEAPFROG, MCLACHLAN, OMELYAN
from shoal.dynamics.isokinetic import Heading, Isokinetic, refreshed, turned
from shoal.dynamics.metrics import Diagonal
from shoal.kernels import Microcanonical
from shoal.mesh import Placement
from shoal.program import Program, keep_draws
from shoal.randomness import Stream, root_key
from shoal.run import advance, begin, enter
from shoal.target import Target
from test_run import assert_bitwise_equal, positions, some_target

KERNEL = Microcanonical()


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def directions(rng: np.random.Generator, chains: int, dim: int) -> np.ndarray:
    normal = rng.normal(size=(chains, dim))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


# -------------------------------------------------------------------------------------------------- kicks


def integrated(velocity, force, length, steps: int = 2000):
    """The velocity and the kinetic energy by Runge-Kutta: du/ds = (I - u uᵀ) f / (d - 1), dK/ds = u·f."""
    dim = velocity.shape[1]
    rate = lambda u: ((force - u * (u * force).sum(1, keepdims=True)) / (dim - 1), (u * force).sum(1))
    kinetic, h = np.zeros(len(velocity)), length / steps
    for _ in range(steps):
        a, p = rate(velocity)
        b, q = rate(velocity + h / 2 * a)
        c, r = rate(velocity + h / 2 * b)
        d, s = rate(velocity + h * c)
        velocity = velocity + h / 6 * (a + 2 * b + 2 * c + d)
        kinetic = kinetic + h / 6 * (p + 2 * q + 2 * r + s)
    return velocity, kinetic


@pytest.mark.parametrize("dim", [2, 3, 10])
@pytest.mark.parametrize("size", [0.03, 1.0, 8.0])
def test_a_kick_solves_its_differential_equation(dim, size, double, rng):
    velocity, force = directions(rng, 20, dim), size * rng.normal(size=(20, dim))
    after, change = turned(jnp.asarray(velocity), jnp.asarray(force), 1.3)
    expected, kinetic = integrated(velocity, force, 1.3)
    np.testing.assert_allclose(after, expected, atol=1e-9)
    np.testing.assert_allclose(change, kinetic, atol=1e-9)


def test_a_kick_changes_areas_on_the_sphere_by_the_change_of_the_kinetic_energy(double, rng):
    """The determinant of its derivative between tangent planes is exp(-change): what the acceptance must have."""
    for dim in (2, 3, 5):
        velocity, force = jnp.asarray(directions(rng, 1, dim)), jnp.asarray(3.0 * rng.normal(size=(1, dim)))
        kick = lambda u, force=force: turned(u[None], force, 0.7)[0][0]
        tangent = lambda u: np.linalg.svd(np.asarray(u)[None])[2][1:].T
        derivative = np.asarray(jax.jit(jax.jacfwd(kick))(velocity[0]))
        area = np.linalg.det(tangent(kick(velocity[0])).T @ derivative @ tangent(velocity[0]))
        np.testing.assert_allclose(abs(area), np.exp(-turned(velocity, force, 0.7)[1][0]), rtol=1e-8)


def test_kicks_add_and_turn_back(double, rng):
    velocity, force = jnp.asarray(directions(rng, 50, 4)), jnp.asarray(rng.normal(size=(50, 4)) * 3)
    half, one = turned(velocity, force, 0.4)
    whole, two = turned(half, force, 0.5)
    at_once, both = turned(velocity, force, 0.9)
    np.testing.assert_allclose(whole, at_once, atol=1e-12)
    np.testing.assert_allclose(one + two, both, atol=1e-12)
    back, undone = turned(-at_once, force, 0.9)
    np.testing.assert_allclose(back, -velocity, atol=1e-12)
    np.testing.assert_allclose(undone, -both, atol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e3, 1e12, 1e30])
def test_kicks_of_any_size_keep_unit_length_and_seven_digits(size, rng):
    velocity, force = directions(rng, 200, 7).astype(np.float32), rng.normal(size=(200, 7))
    velocity[0], force = force[0] / np.linalg.norm(force[0]), (size * force).astype(np.float32)
    after, change = turned(jnp.asarray(velocity), jnp.asarray(force), 0.3)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1.0, atol=3e-7)
    with jax.enable_x64(True):
        exact = np.asarray(turned(jnp.asarray(velocity.astype(float)), jnp.asarray(force.astype(float)), 0.3)[1])
    largest = 0.3 * np.linalg.norm(force.astype(float), axis=1)
    assert np.all(np.abs(np.asarray(change) - exact) <= 1e-6 * largest)


def test_no_force_changes_nothing(rng):
    velocity = jnp.asarray(directions(rng, 3, 4), jnp.float32)
    after, change = turned(velocity, jnp.zeros((3, 4)), 0.3)
    np.testing.assert_allclose(after, velocity, atol=1e-7)
    np.testing.assert_array_equal(change, 0.0)


def test_straight_uphill_of_a_wall_the_velocity_stays():
    uphill = jnp.asarray([[1.0, 0.0, 0.0]])
    after, change = turned(uphill, jnp.asarray([[-1e6, 0.0, 0.0]]), 1.0)
    np.testing.assert_array_equal(after, uphill)
    np.testing.assert_allclose(change, -1e6, rtol=1e-6)


# ---------------------------------------------------------------------------------------------- trajectories


def quartic(x, data):
    return -0.5 * jnp.sum(data * jnp.square(x)) - 0.05 * jnp.sum(x) ** 4


@pytest.mark.parametrize(("integrator", "order"), [(LEAPFROG, 2), (MCLACHLAN, 2), (OMELYAN, 4)])
def test_energy_error_goes_with_the_order_of_the_splitting(integrator, order, double, rng):
    """Over a fixed length, half the step makes 1/4 or 1/16 of the error: kicks that did not belong would leave O(1)."""
    target = Target(quartic, lambda x, data: {}, jnp.asarray([1.0, 4.0, 0.3, 2.0]), 4)
    position = jnp.asarray(rng.normal(size=(64, 4)))
    heading = Heading(jnp.asarray(directions(rng, 64, 4)), jnp.zeros(64))
    log_density, gradient = target(position)

    def error(steps: int) -> float:
        flow = Isokinetic(target, Diagonal(jnp.asarray([1.0, 0.5, 2.0, 0.7])), integrator, jnp.asarray(2.0 / steps))
        (_, end, _), after = flow.integrate((position, heading, gradient), jnp.int32(steps))
        return float(jnp.sqrt(jnp.mean(jnp.square(end.kinetic - (after - log_density)))))

    coarse, fine = error(256), error(512)
    assert fine < 0.01
    assert coarse / fine == pytest.approx(2**order, rel=0.2)


def test_a_trajectory_is_reversible(double, rng):
    target = Target(quartic, lambda x, data: {}, jnp.asarray([1.0, 4.0, 0.3, 2.0]), 4)
    position = jnp.asarray(rng.normal(size=(16, 4)))
    velocity = jnp.asarray(directions(rng, 16, 4))
    flow = Isokinetic(target, Diagonal(jnp.ones(4)), MCLACHLAN, jnp.asarray(0.3))
    go = lambda x, u: flow.integrate((x, Heading(u, jnp.zeros(16)), target.gradient(x)), jnp.int32(7))[0]
    there, heading, _ = go(position, velocity)
    back, undone, _ = go(there, -heading.velocity)
    np.testing.assert_allclose(back, position, atol=1e-10)
    np.testing.assert_allclose(undone.velocity, -velocity, atol=1e-10)
    np.testing.assert_allclose(undone.kinetic, -heading.kinetic, atol=1e-10)


# -------------------------------------------------------------------------------------------------- refresh


def test_refresh_forgets_exponentially(double, rng):
    """In many dimensions u·u' is exp(-t), up to 1 / d; what is left is uniform on the sphere around u."""
    dim, chains = 400, 2000
    velocity, noise = jnp.asarray(directions(rng, chains, dim)), jnp.asarray(rng.normal(size=(chains, dim)))
    for turns in (0.1, 1.0, 3.0):
        after = refreshed(velocity, noise, jnp.asarray(turns))
        np.testing.assert_allclose(jnp.linalg.norm(after, axis=1), 1.0, atol=1e-12)
        along = np.asarray((velocity * after).sum(1))
        assert abs(along.mean() - np.exp(-turns)) < 5 / np.sqrt(dim * chains) + 2 / dim


def test_refresh_of_no_and_of_endless_length(rng):
    velocity, noise = jnp.asarray(directions(rng, 5, 3), jnp.float32), jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    np.testing.assert_allclose(refreshed(velocity, noise, jnp.float32(0.0)), velocity, atol=1e-7)
    endless = noise / jnp.linalg.norm(noise, axis=1, keepdims=True)
    np.testing.assert_allclose(refreshed(velocity, noise, jnp.float32(jnp.inf)), endless, atol=1e-6)


# -------------------------------------------------------------------------------------------------- kernel


def test_chains_set_out_along_the_gradient():
    target = Target(lambda x, data: -0.5 * jnp.sum(x * x), lambda x, data: {}, None, 3)
    ensemble = KERNEL.init(jnp.asarray([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]]), target)
    np.testing.assert_allclose(ensemble.memory.velocity, [[-0.6, 0.0, -0.8], np.full(3, 3**-0.5)], rtol=1e-6)
    np.testing.assert_array_equal(ensemble.memory.share, 1.0)


def test_one_dimension_is_refused():
    target = Target(lambda x, data: -0.5 * jnp.sum(x * x), lambda x, data: {}, None, 1)
    with pytest.raises(ValueError, match=r"1 unconstrained coordinate, expected at least 2.*'chees'"):
        KERNEL.tuning(1, np.float32)
    with pytest.raises(ValueError, match="cannot turn in one dimension"):
        begin(Program(target, KERNEL), Placement.of(4), root_key(0), np.zeros((4, 1), np.float32), None)


def test_a_chain_whose_step_is_not_finite_turns_round():
    wall = Target(lambda x, data: jnp.where(x[0] > 0.0, jnp.nan, -0.5 * jnp.sum(x * x)), lambda x, data: {}, None, 2)
    ensemble = KERNEL.init(jnp.asarray([[-0.1, 0.0], [-3.0, 1.0]]), wall)
    tuning = KERNEL.Tuning(jnp.float32(0.5), jnp.float32(jnp.inf), Diagonal(jnp.ones(2)), jnp.float32(jnp.inf))
    after, info = KERNEL.step(Stream(root_key(0), jnp.arange(2)).draw(jnp.int32(0)), ensemble, tuning, wall)
    np.testing.assert_array_equal(info.acceptance_rate, [0.0, 1.0])
    np.testing.assert_array_equal(info.diverging, [True, False])
    assert np.isinf(info.energy_error[0])
    assert np.isfinite(info.energy_error[1])
    np.testing.assert_array_equal(after.position[0], ensemble.position[0])
    np.testing.assert_allclose(after.memory.velocity[0], -ensemble.memory.velocity[0], atol=1e-6)
    np.testing.assert_array_equal(after.memory.share, 1.0)  # without a bound all have one step
    assert np.linalg.norm(after.position[1] - ensemble.position[1]) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("beyond", [jnp.nan, -jnp.inf])
def test_a_chain_at_a_wall_takes_shorter_steps_where_errors_are_bounded(beyond):
    wall = Target(lambda x, data: jnp.where(x[0] > 0.0, beyond, -0.5 * jnp.sum(x * x)), lambda x, data: {}, None, 2)
    ensemble = KERNEL.init(jnp.asarray([[-0.1, 0.0], [-3.0, 1.0]]), wall)
    tuning = KERNEL.Tuning(jnp.float32(0.5), jnp.float32(jnp.inf), Diagonal(jnp.ones(2)), jnp.float32(2.0))
    after, info = KERNEL.step(Stream(root_key(0), jnp.arange(2)).draw(jnp.int32(0)), ensemble, tuning, wall)
    np.testing.assert_array_equal(info.acceptance_rate, [0.0, 1.0])
    np.testing.assert_array_equal(after.memory.share, [0.5, 1.0])


def stiff(x, data):
    """A normal law, and far from it one so narrow that steps of 0.5 jump to and fro across it."""
    return jnp.where(x[0] > 50.0, -0.5e4 * jnp.sum(jnp.square(x - 100.0)), -0.5 * jnp.sum(jnp.square(x)))


STIFF = Target(stiff, lambda x, data: {}, None, 3)


def moved(largest_error: float, draws: int = 60):
    """What two chains, one in the narrow law, do in so many draws: ensembles after each, and what they reported."""
    tuning = KERNEL.Tuning(jnp.float32(0.5), jnp.float32(jnp.inf), Diagonal(jnp.ones(3)), jnp.float32(largest_error))
    ensemble = KERNEL.init(jnp.asarray([[102.0, 97.0, 101.5], [2.0, -2.0, 2.0]]), STIFF)
    step, told = eqx.filter_jit(KERNEL.step), [(ensemble, None)]
    for draw in range(draws):
        ensemble, info = step(Stream(root_key(0), jnp.arange(2)).draw(jnp.int32(draw)), ensemble, tuning, STIFF)
        told.append((ensemble, info))
    return told


def test_chains_whose_energy_is_far_off_take_shorter_steps_and_others_do_not():
    told = moved(3.0)
    steps = np.array([info.step_size for _, info in told[1:]])
    density = np.array([ensemble.log_density for ensemble, _ in told])
    assert steps[0, 0] == 0.5
    assert steps[:, 0].min() < 0.1
    assert density[0, 0] < -1e4 < -100 < density[-10:, 0].mean()
    np.testing.assert_array_equal(steps[:, 1], 0.5)
    free = np.array([ensemble.log_density for ensemble, _ in moved(np.inf)])
    assert free[-10:, 0].mean() < -300  # jumps to and fro
    np.testing.assert_array_equal(free[:, 1], density[:, 1])


def test_how_a_chain_learns_the_length_of_its_steps():
    """Half as long after every energy error that is too large, a fifth longer after others; at most the tuning's."""
    told, outcomes = moved(3.0), set()
    for (before, _), (after, info) in itertools.pairwise(told):
        step, error = float(info.step_size[0]), float(info.energy_error[0])
        assert step == 0.5 * float(before.memory.share[0])
        assert np.array_equal(after.position[0], before.position[0]) == np.isinf(error)
        most = 3.0 + 0.05 * abs(float(after.log_density[0] - before.log_density[0]))
        assert np.isinf(error) or abs(error) <= 10.0 * most
        share = float(before.memory.share[0]) * (1.2 if abs(error) <= most else 0.5)
        np.testing.assert_allclose(after.memory.share[0], min(share, 1.0), rtol=1e-6)
        outcomes.add("refused" if np.isinf(error) else "long" if abs(error) > most else "right")
    assert outcomes == {"refused", "long", "right"}


def gradients_asked_for(log_density):
    """The log density, and a list that grows whenever the compiled program evaluates a gradient of it."""
    calls = []

    @jax.custom_jvp
    def counted(x):
        return log_density(x, None)

    @counted.defjvp
    def _(primals, tangents):
        jax.debug.callback(lambda: calls.append(1))
        return jax.jvp(lambda x: log_density(x, None), primals, tangents)

    return lambda x, data: counted(x), calls


def test_a_draw_costs_one_gradient():
    log_density, calls = gradients_asked_for(lambda x, data: -0.5 * jnp.sum(x * x))
    target = Target(log_density, lambda x, data: {}, None, 3)
    ensemble = KERNEL.init(jnp.ones((1, 3)), target)
    jax.effects_barrier()
    calls.clear()
    keys = Stream(root_key(0), jnp.arange(1)).draw(jnp.int32(0))
    _, info = eqx.filter_jit(KERNEL.step)(keys, ensemble, KERNEL.tuning(3, np.float32), target)
    jax.effects_barrier()
    assert len(calls) == int(info.gradients[0]) == 1


def from_exact_draws(name: str, step: float, draws: int, chains: int = 16_384) -> np.ndarray:
    """Positions after some draws, begun at exact ones; long enough that the starts are forgotten."""
    exact = EXACT[name]
    target, start = exact.target(np.float32), exact.draw(np.random.default_rng(5), chains).astype(np.float32)
    metric = Diagonal(jnp.full(target.dim, 1.0, np.float32))
    length = jnp.float32(2.0 * target.dim**0.5)
    tuning = KERNEL.Tuning(jnp.float32(step), length, metric, jnp.float32(jnp.inf))
    placement, program = Placement.of(chains, 2048), Program(target, KERNEL)
    run = begin(program, placement, root_key(11), start, tuning)
    run, _ = advance(program, enter(program, run, placement, draws), jnp.int32(draws), placement, draws)
    return np.asarray(run.ensemble.position)[:chains]


BIASED, UNBIASED = 2.5, 0.1
DRAWS = {BIASED: 40, UNBIASED: 300}


@pytest.mark.parametrize("name", ["skewed", "correlated", "constrained"])
def test_a_short_step_has_no_bias_that_can_be_seen(name):
    z, where, _ = worst_z(EXACT[name], from_exact_draws(name, UNBIASED, DRAWS[UNBIASED]))
    assert z < 5, f"{where} off by {z:.1f} standard errors"


def test_a_long_step_is_biased_but_close():
    x = from_exact_draws("skewed", BIASED, DRAWS[BIASED])
    z, *_ = worst_z(EXACT["skewed"], x)
    assert z > 5
    exact = EXACT["skewed"].draw(np.random.default_rng(1), 100_000)
    np.testing.assert_allclose(x.std(0), exact.std(0), rtol=0.05)
    np.testing.assert_allclose(x.mean(0), exact.mean(0), atol=0.05 * exact.std())


@pytest.mark.parametrize("wrong", ["by d", "not normalised"])
def test_a_mutant_is_biased_however_short_its_steps(wrong, monkeypatch):
    """Kicks divided by d and not by d - 1; a refresh that lets the velocity grow."""
    if wrong == "by d":
        mutant = lambda u, force, length: turned(u, force * ((u.shape[1] - 1) / u.shape[1]), length)
        monkeypatch.setattr(isokinetic, "turned", mutant)
    else:
        longer = lambda u, noise, turns: refreshed(u, noise, turns) * 1.1
        monkeypatch.setattr("shoal.kernels.microcanonical.refreshed", longer)
    forget_programs()
    z, *_ = worst_z(EXACT["correlated"], from_exact_draws("correlated", UNBIASED, DRAWS[UNBIASED]))
    forget_programs()
    assert z > 5


# ------------------------------------------------------------------------------------- what draws depend on


def learned_and_drawn(placement: Placement, chunks=(20,)):
    """A burn-in with LAPS, then draws with the tuning that it found."""
    target, n = some_target(), placement.num_chains
    warm = Program(target, KERNEL, LAPS())
    run = begin(warm, placement, root_key(3), positions(n), KERNEL.tuning(target.dim, np.float32))
    run = enter(warm, run, placement, 20)
    for sweeps in chunks:
        run, _ = advance(warm, run, jnp.int32(sweeps), placement, 1)
    memory = jax.tree.map(np.asarray, run.adaptation)
    drawing = Program(target, KERNEL, Fixed(), {}, keep_draws)
    run, kept = advance(drawing, enter(drawing, run, placement, 8), jnp.int32(8), placement, 8)
    kept = jax.tree.map(lambda leaf: np.asarray(leaf)[:, :n], kept)
    return (
        kept,
        jax.tree.map(lambda leaf: np.asarray(leaf)[:n], run.ensemble.memory),
        memory,
        jax.tree.map(np.asarray, run.tuning),
    )


@pytest.fixture(scope="module")
def alone():
    return learned_and_drawn(Placement.of(128, 16, jax.devices()[:1]))


@pytest.mark.parametrize("num_devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_devices_change_no_draw(alone, num_devices):
    assert_bitwise_equal(learned_and_drawn(Placement.of(128, 16, jax.devices()[:num_devices])), alone)


def test_chunks_change_no_draw(alone):
    assert_bitwise_equal(learned_and_drawn(Placement.of(128, 16, jax.devices()[:1]), (1, 7, 12)), alone)


def test_first_16_of_128_chains_are_the_run_of_16():
    def drawn(chains: int):
        placement, program = Placement.of(chains, 16, jax.devices()[:1]), Program(some_target(), KERNEL)
        metric = Diagonal(jnp.full(6, 0.3, np.float32))
        tuning = KERNEL.Tuning(jnp.float32(0.5), jnp.float32(3.0), metric, jnp.float32(jnp.inf))
        run = begin(program, placement, root_key(3), positions(128)[:chains], tuning)
        run, _ = advance(program, enter(program, run, placement, 30), jnp.int32(30), placement, 30)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:16], run.ensemble)

    assert_bitwise_equal(drawn(128), drawn(16))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_promotes_silently(strict, dtype):
    with jax.enable_x64(dtype is np.float64):
        target = Target(lambda x, data: -0.5 * jnp.sum(x * x), lambda x, data: {}, None, 6)
        placement, program = Placement.of(8, 4, jax.devices()[:2]), Program(target, KERNEL, LAPS())
        run = begin(program, placement, root_key(0), positions(8, dtype), KERNEL.tuning(6, dtype))
        run, _ = advance(program, enter(program, run, placement, 4), jnp.int32(4), placement, 4)
        memory = run.ensemble.memory
        assert memory.velocity.dtype == memory.share.dtype == run.tuning.step_size.dtype == dtype
