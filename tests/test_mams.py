"""Adjusted microcanonical sampling: what its exactness hangs on, what warmup learns, what draws depend on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from exact import EXACT, worst_z
from shoal import kernels
from shoal.adaptation import Chain, ChEES, DiagonalMetric, During, Fixed, StepSize
from shoal.dynamics.integrators import LEAPFROG, MCLACHLAN
from shoal.dynamics.isokinetic import Heading, Isokinetic, direction
from shoal.dynamics.metrics import Diagonal
from shoal.ensemble import Ensemble
from shoal.kernels.hmc import ACCEPTANCE, MOMENTUM, Proposal, decided
from shoal.mesh import Placement
from shoal.program import Program, keep_draws
from shoal.randomness import Stream, root_key
from shoal.run import advance, begin, enter, frozen
from shoal.samplers import MAMS, named
from shoal.target import Target
from test_exact_start import run_from_exact_draws
from test_microcanonical import gradients_asked_for
from test_run import assert_bitwise_equal, positions, some_target

KERNEL = kernels.MAMS(max_steps=30)

# ------------------------------------------------------------------------------------------------- exactness


class Mutant(kernels.MAMS):
    """MAMS taken apart, so that a mutant can get one part wrong."""

    def step(self, keys, ensemble, tuning, target):
        dim, dtype = ensemble.position.shape[-1], ensemble.position.dtype
        step_size, num_steps = self.schedule(keys.index, tuning)
        flow = Isokinetic(target, tuning.metric, tuning.integrator, step_size, speed=dim**0.5)
        heading = Heading(self.velocity(keys.normal(MOMENTUM, dim, dtype)), jnp.zeros_like(ensemble.log_density))
        (position, end, gradient), log_density = flow.integrate(
            (ensemble.position, heading, ensemble.gradient), num_steps
        )
        error = self.kinetic(end.kinetic, dim) - (log_density - ensemble.log_density)
        proposed = Ensemble(position, log_density, gradient)
        proposal = Proposal(proposed, flow.speed * end.velocity, error)
        return decided(keys.uniform(ACCEPTANCE, dtype), ensemble, proposal, flow, num_steps)

    def velocity(self, normal):
        return direction(normal)[0]

    def kinetic(self, change, dim):
        return change


class KineticOfTheEnd(Mutant):
    """The kinetic energy is a function of the velocity: of unit length at both ends, so that it has not changed."""

    def kinetic(self, change, dim):
        return 0.0 * change


class WrongSign(Mutant):
    """A kick along the force takes kinetic energy."""

    def kinetic(self, change, dim):
        return -change


class WrongDimension(Mutant):
    """Areas on a sphere of one dimension more."""

    def kinetic(self, change, dim):
        return change * (dim / (dim - 1.0))


class NotNormalised(Mutant):
    """Velocities are normal variates: of unit length on average alone."""

    def velocity(self, normal):
        return normal * normal.shape[-1] ** -0.5


@pytest.mark.parametrize("mutant", [KineticOfTheEnd, WrongSign, WrongDimension, NotNormalised])
def test_mutant_is_caught(mutant):
    caught = {name: worst_z(EXACT[name], run_from_exact_draws(mutant(), name, np.float32)[0]) for name in EXACT}
    assert any(z > 5 for z, *_ in caught.values()), caught


@pytest.mark.parametrize("name", EXACT)
def test_what_mutants_are_made_from_is_the_kernel(name):
    taken_apart, _ = run_from_exact_draws(Mutant(), name, np.float32)
    whole, _ = run_from_exact_draws(kernels.MAMS(), name, np.float32)
    np.testing.assert_array_equal(taken_apart, whole)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["skewed", "heavy-tailed"])
def test_two_stages_leave_the_target_invariant(name, dtype):
    x, moved = run_from_exact_draws(kernels.MAMS(integrator=MCLACHLAN), name, dtype)
    assert moved > 0.9
    z, where, _ = worst_z(EXACT[name], x)
    assert z < 5, f"{where} off by {z:.1f} standard errors"


def test_two_dimensions_are_enough():
    """The exact-start targets have three and more; on a circle a kick turns by the whole force."""
    chains, placement = 16_384, Placement.of(16_384, 2048)
    scale = np.array([0.5, 2.0], np.float32)
    target = Target(lambda x, data: -0.5 * jnp.sum(jnp.square(x / data)), lambda x, data: {}, jnp.asarray(scale), 2)
    start = scale * np.random.default_rng(0).normal(size=(chains, 2)).astype(np.float32)
    sizes = jnp.float32(0.6), jnp.float32(2.0), jnp.float32(0.0)
    tuning = KERNEL.Tuning(*sizes, Diagonal(jnp.ones(2)), LEAPFROG.as_arrays(np.float32))
    program = Program(target, KERNEL)
    run = begin(program, placement, root_key(1), start, tuning)
    run, _ = advance(program, enter(program, run, placement, 6), jnp.int32(6), placement, 6)
    z = np.asarray(run.ensemble.position, np.float64) / scale
    assert np.abs(z.mean(0)).max() * np.sqrt(chains) < 5
    assert np.abs((z**2).mean(0) - 1).max() * np.sqrt(chains / 2) < 5


# -------------------------------------------------------------------------------------------------- contract


def test_one_dimension_is_refused_by_name():
    target = Target(lambda x, data: -0.5 * jnp.sum(x * x), lambda x, data: {}, None, 1)
    with pytest.raises(ValueError, match=r"MAMS: the target has 1 unconstrained coordinate.*'chees'"):
        KERNEL.tuning(1, np.float32)
    with pytest.raises(ValueError, match="MAMS"):
        begin(Program(target, KERNEL), Placement.of(4), root_key(0), np.zeros((4, 1), np.float32), None)
    model = shoal.Model(params={"a": shoal.real()}, log_density=lambda p: -0.5 * p["a"] ** 2)
    with pytest.raises(ValueError, match="expected at least 2"):
        shoal.sample(model, sampler="mams", num_chains=8, progress_bar=False)


def fixed(step: float, trajectory: float, dim: int, dtype=np.float32):
    """A tuning; its metric is not 1, so that it cannot be left out."""
    number = lambda value: jnp.asarray(value, dtype)
    metric, integrator = Diagonal(jnp.full(dim, 0.7, dtype)), LEAPFROG.as_arrays(dtype)
    return KERNEL.Tuning(number(step), number(trajectory), number(0.0), metric, integrator)


def test_a_step_costs_one_gradient():
    log_density, calls = gradients_asked_for(lambda x, data: -0.5 * jnp.sum(x * x))
    target = Target(log_density, lambda x, data: {}, None, 3)
    ensemble = KERNEL.init(jnp.ones((1, 3)), target)
    jax.effects_barrier()
    calls.clear()
    keys = Stream(root_key(0), jnp.arange(1)).draw(jnp.int32(6))
    _, info = eqx.filter_jit(KERNEL.step)(keys, ensemble, fixed(0.2, 2.0, 3), target)
    jax.effects_barrier()
    assert len(calls) == int(info.gradients[0]) == int(info.num_steps[0]) > 8


def test_speed_is_that_of_hamiltonian_dynamics():
    """A trajectory of time t is a path of length t √d: never longer as the crow flies, as long where no force is."""
    dim = 9
    target = Target(lambda x, data: 0.0 * jnp.sum(x), lambda x, data: {}, None, dim)
    ensemble = KERNEL.init(jnp.zeros((5, dim)), target)
    keys = Stream(root_key(0), jnp.arange(5)).draw(jnp.int32(6))
    after, info = KERNEL.step(keys, ensemble, fixed(0.2, 2.0, dim), target)
    time = info.num_steps * info.step_size
    np.testing.assert_allclose(jnp.linalg.norm(after.position / 0.7, axis=1), time * dim**0.5, rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(info.momentum, axis=1), dim**0.5, rtol=1e-5)


def test_slope_of_the_criterion_is_its_derivative():
    """With the same number of steps and steps longer by 1e-4, as ChEES differentiates: time and momentum agree."""
    with jax.enable_x64(True):
        dim, chains, kernel = 5, 50, kernels.MAMS(step_jitter=0.0)
        data = jnp.asarray([1.0, 4.0, 0.3, 2.0, 1.0])
        target = Target(lambda x, data: -0.5 * jnp.sum(data * x * x), lambda x, data: {}, data, dim)
        ensemble = kernel.init(jnp.asarray(np.random.default_rng(0).normal(size=(chains, dim))), target)
        keys = Stream(root_key(0), jnp.arange(chains)).draw(jnp.int32(0))  # h = 1/2

        @jax.jit
        def changed(longer: float):
            tuning = fixed(0.004 * longer, 1.602 * longer, dim, np.float64)
            info = kernel.step(keys, ensemble, tuning, target)[1]
            end, start = tuning.metric.whiten(info.proposal), tuning.metric.whiten(ensemble.position)
            change = jnp.square(end).sum(-1) - jnp.square(start).sum(-1)
            time = info.num_steps * info.step_size
            return 0.25 * change**2, time * change * (end * info.momentum).sum(-1), info.num_steps[0]

        slope, steps = changed(1.0)[1:]
        assert steps == changed(1.0001)[2] == changed(0.9999)[2] == 201
        difference = (changed(1.0001)[0] - changed(0.9999)[0]) / 2e-4
        np.testing.assert_allclose(slope, difference, rtol=2e-3, atol=1e-3 * float(jnp.abs(slope).max()))


def test_proposals_that_are_not_finite_are_rejected_and_reported():
    wall = lambda z, data: jnp.where(jnp.sum(z) > 0.5, jnp.nan, -0.5 * jnp.sum(z * z))
    placement = Placement.of(64, 16)
    program = Program(Target(wall, lambda z, data: {"z": z}, None, 6), KERNEL, Fixed(), {}, keep_draws)
    run = begin(program, placement, root_key(0), -np.ones((64, 6), np.float32), fixed(0.5, 2.0, 6))
    _, kept = advance(program, enter(program, run, placement, 50), jnp.int32(50), placement, 50)
    z, stats = np.asarray(kept["values"]["z"]), jax.tree.map(np.asarray, kept["stats"])
    assert np.isfinite(z).all()
    assert z.sum(-1).max() <= 0.5 + 1e-5
    assert stats["diverging"].any()
    np.testing.assert_array_equal(np.isinf(stats["energy_error"]), stats["diverging"])


# --------------------------------------------------------------------------------------------------- sampler


def test_sampler_by_name_and_out_of_range():
    assert isinstance(named("mams"), MAMS)
    assert named("mams", {"target_accept": 0.8}).settings() == {"target_accept": 0.8, "max_steps": 1000}
    for make in (lambda: shoal.MAMS(target_accept=1.0), lambda: shoal.MAMS(max_steps=0)):
        with pytest.raises(ValueError, match=r"MAMS\(.*expected a"):
            make()


def test_warmup_finds_scales_and_acceptance():
    """As those of `chees`: sds to 15%, and the harmonic mean of acceptance within 0.04 of what was asked for."""
    dim, chains, scales = 10, 64, np.logspace(-2, 2, 10).astype(np.float32)
    precision = jnp.asarray(scales**-2)
    target = Target(lambda z, data: -0.5 * jnp.sum(jnp.square(z) * data), lambda z, data: {"z": z}, precision, dim)
    sampler, placement = MAMS(), Placement.of(chains)
    program = Program(target, sampler.kernel(), sampler.adaptation())
    start = np.repeat(np.random.default_rng(0).uniform(-2, 2, (8, dim)), 8, axis=0).astype(np.float32)
    run = begin(program, placement, root_key(0), start, sampler.tuning(dim, np.float32))
    run, _ = advance(program, enter(program, run, placement, 400), jnp.int32(400), placement, 400)
    tuning = frozen(program, run, placement)
    np.testing.assert_allclose(tuning.metric.scale, scales, rtol=0.15)
    assert 2.0 < float(tuning.trajectory) < 4.0
    program = Program(
        target, sampler.kernel(), keep=lambda t, target: {"a": t.info.acceptance_rate, "z": t.after.position}
    )
    run = enter(program, eqx.tree_at(lambda r: (r.tuning, r.adaptation), run, (tuning, None)), placement, 400)
    _, kept = advance(program, run, jnp.int32(400), placement, 400)
    harmonic = 1 / np.mean(1 / np.maximum(np.asarray(kept["a"]), 0.02), axis=1)
    assert abs(harmonic.mean() - 0.9) < 0.04
    z = np.asarray(kept["z"], np.float64) / scales
    for values, expected in ((z, 0.0), (z**2, 1.0)):
        means = values.mean(0)  # of chains, which are independent
        error = means.std(0, ddof=1) / np.sqrt(chains)
        assert (np.abs(means.mean(0) - expected) / error).max() < 5


def test_a_model_with_constraints_by_the_front_door():
    model = shoal.Model(
        params={"rate": shoal.positive(2)}, log_density=lambda p: jnp.sum(2.0 * jnp.log(p["rate"]) - 2.0 * p["rate"])
    )
    result = shoal.sample(model, sampler="mams", num_chains=64, num_warmup=200, num_samples=200, progress_bar=False)
    assert result.converged, result.findings
    assert result.settings["sampler"] == "mams"
    means = result.draws["rate"].mean(1, dtype=float)  # Gamma(3, rate 2)
    assert (np.abs(means.mean(0) - 1.5) / (means.std(0, ddof=1) / 8)).max() < 5


# ------------------------------------------------------------------------------------- what draws depend on

LEARNING = Chain((StepSize(0.9), During(0.05, 0.9, DiagonalMetric()), During(0.1, 0.9, ChEES())))


def warmed_and_sampled(placement: Placement, chunks=(20,)):
    target, n = some_target(), placement.num_chains
    warm = Program(target, KERNEL, LEARNING)
    run = begin(warm, placement, root_key(3), positions(n), KERNEL.tuning(target.dim, np.float32))
    run = enter(warm, run, placement, 20)
    for sweeps in chunks:
        run, _ = advance(warm, run, jnp.int32(sweeps), placement, 1)
    run = eqx.tree_at(lambda r: r.tuning, run, frozen(warm, run, placement))
    sampling = Program(target, KERNEL, Fixed(), {}, keep_draws)
    run, kept = advance(sampling, enter(sampling, run, placement, 8), jnp.int32(8), placement, 8)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:, :n], kept), jax.tree.map(np.asarray, run.tuning)


@pytest.fixture(scope="module")
def alone():
    return warmed_and_sampled(Placement.of(128, 16, jax.devices()[:1]))


@pytest.mark.parametrize("num_devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_devices_change_no_draw(alone, num_devices):
    assert_bitwise_equal(warmed_and_sampled(Placement.of(128, 16, jax.devices()[:num_devices])), alone)


def test_chunks_change_no_draw(alone):
    assert_bitwise_equal(warmed_and_sampled(Placement.of(128, 16, jax.devices()[:1]), (1, 7, 12)), alone)


def test_first_16_of_128_chains_are_the_run_of_16():
    def drawn(chains: int):
        placement, program = Placement.of(chains, 16, jax.devices()[:1]), Program(some_target(), KERNEL)
        run = begin(program, placement, root_key(3), positions(128)[:chains], fixed(0.5, 2.0, 6))
        run, _ = advance(program, enter(program, run, placement, 20), jnp.int32(20), placement, 20)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:16], run.ensemble)

    assert_bitwise_equal(drawn(128), drawn(16))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_promotes_silently(strict, dtype):
    with jax.enable_x64(dtype is np.float64):
        target = Target(lambda x, data: -0.5 * jnp.sum(x * x), lambda x, data: {}, None, 6)
        placement, program = Placement.of(8, 4, jax.devices()[:2]), Program(target, KERNEL, LEARNING)
        run = begin(program, placement, root_key(0), positions(8, dtype), KERNEL.tuning(6, dtype))
        run, _ = advance(program, enter(program, run, placement, 4), jnp.int32(4), placement, 4)
        assert np.asarray(run.ensemble.position).dtype == run.tuning.step_size.dtype == dtype
