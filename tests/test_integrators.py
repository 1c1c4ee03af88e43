"""Splitting integrators: their order, reversibility and volume, on a target that is no Gaussian, in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.dynamics.integrators import LEAPFROG, MCLACHLAN, OMELYAN, TWO_LEAPFROGS, Flow, Integrator
from shoal.dynamics.metrics import Diagonal, LowRank
from shoal.kernels import JitteredHMC
from shoal.kernels.hmc import kinetic
from shoal.mesh import Placement
from shoal.paths import by_path
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import advance, begin, enter
from shoal.samplers.arrays import tuning_from_arrays
from shoal.target import Target

INTEGRATORS = {"leapfrog": LEAPFROG, "two leapfrogs": TWO_LEAPFROGS, "McLachlan": MCLACHLAN, "Omelyan": OMELYAN}
ORDERS = {"leapfrog": 2, "two leapfrogs": 2, "McLachlan": 2, "Omelyan": 4}
TIME, STARTS = 1.6, 64


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def bent(x, data):
    """A banana in a quartic well: no direction is Gaussian and the two are bound together."""
    return -0.25 * x[0] ** 4 - 0.5 * (x[1] - 0.7 * x[0] ** 2) ** 2


TARGET = Target(bent, lambda x, data: {"x": x}, None, 2)


def moved(integrator: Integrator, position, momentum, steps: int, step_size: float | None = None):
    """Position and momentum after a time of `TIME`, in a metric that is no identity; the log density there."""
    metric = Diagonal(jnp.asarray([0.8, 1.3]))
    flow = Flow(TARGET, metric, integrator, jnp.asarray(TIME / steps if step_size is None else step_size))
    start = (position, momentum, TARGET.gradient(position))
    (position, momentum, _), log_density = flow.integrate(start, jnp.asarray(steps))
    return position, momentum, log_density


@pytest.mark.parametrize("integrator", INTEGRATORS.values(), ids=INTEGRATORS)
def test_directions_cost_nothing_where_none_counts(integrator):
    """A metric whose stretches are all 1 moves chains as its diagonal does, bit by bit; another, as its products do."""
    scale, directions = jnp.asarray([0.8, 1.3]), jnp.asarray([[0.6, -0.8], [0.8, 0.6]])
    position, momentum = starts()

    def at(metric):
        flow = Flow(TARGET, metric, integrator, jnp.asarray(0.1))
        return eqx.filter_jit(Flow.integrate)(flow, (position, momentum, TARGET.gradient(position)), jnp.asarray(3))

    assert eqx.tree_equal(at(LowRank(scale, directions, jnp.ones(2))), at(Diagonal(scale)))
    stretched = LowRank(scale, directions, jnp.asarray([2.0, 1.0]))
    flow = Flow(TARGET, stretched, integrator, jnp.asarray(0.1))
    phase = (position, momentum, TARGET.gradient(position))
    kicks, drifts = integrator
    for _ in range(3):
        phase = flow.kick(kicks[0], phase)
        for drift, kick in zip(drifts, kicks[1:], strict=True):
            there, moving, _ = flow.drift(drift, phase)
            phase = flow.kick(kick, (there, moving, TARGET.gradient(there)))
    np.testing.assert_allclose(at(stretched)[0][0], phase[0], rtol=1e-10)
    np.testing.assert_allclose(at(stretched)[0][1], phase[1], rtol=1e-10)


def starts():
    rng = np.random.default_rng(2)
    return jnp.asarray(rng.normal(size=(STARTS, 2))), jnp.asarray(rng.normal(size=(STARTS, 2)))


def energy_error(integrator: Integrator, steps: int) -> float:
    """Root mean square over many starts."""
    position, momentum = starts()
    _, end, log_density = moved(integrator, position, momentum, steps)
    error = (kinetic(end) - kinetic(momentum)) - (log_density - TARGET(position)[0])
    return float(jnp.sqrt(jnp.mean(jnp.square(error))))


def order(integrator: Integrator) -> float:
    """The slope of the logarithm of the energy error between 32 and 128 steps."""
    return np.log2(energy_error(integrator, 32) / energy_error(integrator, 128)) / 2


@pytest.mark.parametrize("name", INTEGRATORS)
def test_energy_error_shrinks_with_the_order(name):
    """Corrections are of relative order step size squared: 0.05 squared, times constants."""
    assert abs(order(INTEGRATORS[name]) - ORDERS[name]) < 0.1


def test_a_wrong_coefficient_would_show():
    """Omelyan's with a thousandth moved is of order 2; with sums that are no longer 1 it is of none."""
    kicks, drifts = OMELYAN
    moved_kick = Integrator((kicks[0] + 1e-3, kicks[1] - 1e-3, *kicks[2:4], kicks[4] - 1e-3, kicks[5] + 1e-3), drifts)
    assert order(moved_kick) < 3
    moved_drift = Integrator(kicks, (drifts[0] + 1e-3, drifts[1] - 1e-3, drifts[2], drifts[3] - 1e-3, drifts[4] + 1e-3))
    assert order(moved_drift) < 3
    assert order(Integrator(kicks, tuple(1.01 * drift for drift in drifts))) < 0.5


def test_coefficients_sum_to_one_and_are_palindromic():
    for integrator in INTEGRATORS.values():
        for fractions in integrator:
            assert sum(fractions) == pytest.approx(1.0, abs=1e-15)
            np.testing.assert_allclose(fractions, fractions[::-1], rtol=0, atol=1e-15)
        assert len(integrator.kicks) == len(integrator.drifts) + 1 == integrator.gradients_per_step + 1


def test_mclachlan_is_the_best_of_two_stages():
    """The root in closed form (McLachlan, 1995); at equal cost its error is a fraction of that of two leapfrogs."""
    cube = np.cbrt(2.0 * np.sqrt(326.0) + 36.0)
    assert MCLACHLAN.kicks[0] == pytest.approx(0.5 - cube / 12.0 + 1.0 / (6.0 * cube), abs=1e-15)
    assert energy_error(MCLACHLAN, 32) < 0.3 * energy_error(TWO_LEAPFROGS, 32)
    off = 1.2 * MCLACHLAN.kicks[0]
    assert energy_error(Integrator((off, 1.0 - 2.0 * off, off), (0.5, 0.5)), 32) > 1.5 * energy_error(MCLACHLAN, 32)


def test_two_leapfrogs_are_two_steps_of_the_leapfrog():
    one, other = moved(TWO_LEAPFROGS, *starts(), 5), moved(LEAPFROG, *starts(), 10)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


def there_and_back(integrator: Integrator) -> float:
    """How far from its start a trajectory ends that turns round half way."""
    position, momentum = starts()
    end, end_momentum, _ = moved(integrator, position, momentum, 9)
    back, back_momentum, _ = moved(integrator, end, -end_momentum, 9)
    return float(jnp.maximum(jnp.abs(back - position).max(), jnp.abs(back_momentum + momentum).max()))


def volume(integrator: Integrator) -> np.ndarray:
    """The Jacobian determinant of some steps, at every start."""

    def flow(phase):
        position, momentum, _ = moved(integrator, phase[None, :2], phase[None, 2:], 4, 0.3)
        return jnp.concatenate([position[0], momentum[0]])

    phases = jnp.concatenate(starts(), axis=1)[:8]
    return np.array([jnp.linalg.det(jax.jacfwd(flow)(phase)) for phase in phases])


@pytest.mark.parametrize("name", INTEGRATORS)
def test_integrator_is_reversible_and_keeps_volume(name):
    assert there_and_back(INTEGRATORS[name]) < 1e-11
    np.testing.assert_allclose(volume(INTEGRATORS[name]), 1.0, rtol=0, atol=1e-11)


def test_a_splitting_that_is_no_palindrome_would_show():
    assert there_and_back(Integrator((0.3, 0.7), (1.0,))) > 1e-3


def test_one_program_serves_every_splitting_of_as_many_stages(compile_counter):
    placement = Placement.of(16, 8, jax.devices()[:1])
    kernel = JitteredHMC(integrator=MCLACHLAN)
    program = Program(TARGET, kernel)
    run = begin(program, placement, root_key(0), np.zeros((16, 2)), kernel.tuning(2, np.float64))
    run = enter(program, run, placement, 3)
    splitting = placement.place(TWO_LEAPFROGS.as_arrays(np.float64), split=False)
    other = eqx.tree_at(lambda r: r.tuning.integrator, run, splitting)
    first, _ = jax.block_until_ready(advance(program, run, jnp.int32(3), placement, 3))
    with compile_counter:
        second, _ = jax.block_until_ready(advance(program, other, jnp.int32(3), placement, 3))
    assert compile_counter.count == 0
    assert not jnp.array_equal(first.ensemble.position, second.ensemble.position)


def test_a_tuning_with_negative_coefficients_travels_through_arrays():
    """Splittings of order above 2 must go backwards somewhere (Sheng, 1989)."""
    like = JitteredHMC(integrator=OMELYAN).tuning(2, np.float64)
    assert eqx.tree_equal(tuning_from_arrays(by_path(like), like), like)
