"""BlackJAX's algorithms under our run: exact where they are, honest about lock-step, tuned by their own warmup."""

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from exact import EXACT, nothing, with_x64, worst_z
from shoal.kernels.lifted import Lifted
from shoal.mesh import Placement
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import advance, begin, enter
from shoal.target import Target

CHAINS, DRAWS, TILE = 4096, 3, 512
FEW = {"num_chains": 16, "num_samples": 60, "progress_bar": False, "tile": 8}


@pytest.fixture
def blackjax():
    return pytest.importorskip("blackjax", reason="BlackJAX is not installed")


def run(kernel, target, start, tuning, draws=DRAWS, tile=TILE, devices=None):
    """The run after some draws, and what was told of them."""
    placement = Placement.of(len(start), tile, devices)
    program = Program(target, kernel, keep=keep_info)
    state = enter(program, begin(program, placement, root_key(11), start, tuning), placement, draws)
    return advance(program, state, jnp.asarray(draws, jnp.int32), placement, draws)


def keep_info(transition, target):
    return {"info": transition.info}


ALGORITHMS = {
    "hmc": {"step_size": 0.85, "num_integration_steps": 3},
    "nuts": {"step_size": 0.85, "max_num_doublings": 4},
    "mala": {"step_size": 0.3},
}
SCALE = np.array([0.5, 0.8, 1.4, 2.2])


def sampler(blackjax, algorithm):
    metric = {} if algorithm == "mala" else {"inverse_mass_matrix": SCALE}
    return shoal.from_blackjax(getattr(blackjax, algorithm), **ALGORITHMS[algorithm], **metric)


def from_exact_draws(kernel, tuning, dtype):
    exact = EXACT["skewed"]
    start = exact.draw(np.random.default_rng(5), CHAINS).astype(dtype)
    after, kept = run(kernel, exact.target(dtype), start, tuning)
    position = np.asarray(after.ensemble.position)
    assert position.dtype == dtype
    assert (position != start).mean() > 0.7
    return worst_z(exact, position), kept["info"]


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_lifted_algorithm_leaves_target_invariant(blackjax, algorithm, dtype):
    recipe = sampler(blackjax, algorithm)
    with with_x64(dtype):
        (z, where, _), info = from_exact_draws(recipe.kernel(), recipe.tuning(4, dtype), dtype)
    assert z < 5, f"{where} off by {z:.1f} standard errors"
    steps = np.asarray(info.num_steps)
    assert {"hmc": (steps == 3).all(), "nuts": steps.std() > 0, "mala": (steps == 1).all()}[algorithm]
    np.testing.assert_array_equal(info.gradients, steps)
    tiles = (steps + np.asarray(info.idle)).reshape(DRAWS, -1, TILE)
    np.testing.assert_array_equal(tiles, np.broadcast_to(tiles.max(2, keepdims=True), tiles.shape))
    np.testing.assert_allclose(info.step_size, ALGORITHMS[algorithm]["step_size"], rtol=1e-6)
    np.testing.assert_allclose(np.exp(-np.asarray(info.energy_error)), info.acceptance_rate, atol=1e-6)
    # That of `hmc` is of the proposal, and mala tells none.
    assert (info.energy is not None) is (algorithm == "nuts")
    if algorithm == "nuts":
        x = np.asarray(info.proposal[-1], float)
        kinetic = info.energy[-1] + (x - np.exp(x)).sum(axis=1)
        assert abs(kinetic.mean() - 2.0) < 5 * kinetic.std() / len(x) ** 0.5


def test_draws_do_not_depend_on_the_number_of_devices(blackjax):
    recipe, exact = sampler(blackjax, "nuts"), EXACT["skewed"]
    start = exact.draw(np.random.default_rng(5), 30).astype(np.float32)
    ends = [
        run(recipe.kernel(), exact.target(np.float32), start, recipe.tuning(4, np.float32), 10, 8, jax.devices()[:n])[0]
        for n in (1, 4)
    ]
    one, four = (np.asarray(end.ensemble.position)[:30] for end in ends)
    np.testing.assert_array_equal(one, four)


class State(NamedTuple):
    position: jax.Array


class Walk(NamedTuple):
    """Random-walk Metropolis for one chain, in the least that an algorithm may hold; `power` 1 is right."""

    power: float = 1.0

    def init(self, position, log_density):
        return State(position)

    def step(self, key, state, log_density, parameters):
        noise, uniform = jax.random.split(key)
        x = state.position + jax.random.normal(noise, state.position.shape, state.position.dtype)
        log = self.power * (log_density(x) - log_density(state.position))
        accept = jnp.log(jax.random.uniform(uniform, (), x.dtype)) < log
        return State(jnp.where(accept, x, state.position)), None


def test_an_algorithm_that_holds_and_tells_nothing():
    (z, where, _), info = from_exact_draws(Lifted(Walk()), {}, np.float32)
    assert z < 5, f"{where} off by {z:.1f} standard errors"
    assert (np.asarray(info.gradients) == 1).all()
    assert (np.asarray(info.num_steps) == 1).all()
    assert (np.asarray(info.acceptance_rate) == 1).all()
    assert np.isnan(np.asarray(info.step_size)).all()
    assert not np.asarray(info.idle).any()


def test_a_wrong_algorithm_is_caught():
    (z, where, _), _ = from_exact_draws(Lifted(Walk(power=0.5)), {}, np.float32)
    assert z > 5, f"{where} off by only {z:.1f} standard errors"


class Outwards(NamedTuple):
    """Steps that leave the support of the target without looking."""

    def init(self, position, log_density):
        return State(position)

    def step(self, key, state, log_density, parameters):
        return State(state.position - 1.0), None


def test_a_draw_that_is_not_finite_is_not_taken():
    target = Target(lambda x, data: jnp.sum(jnp.log(x)), nothing, None, 1)
    start = np.array([[0.5], [2.5]], np.float32)
    after, kept = run(Lifted(Outwards()), target, start, {}, draws=3, tile=2)
    np.testing.assert_array_equal(after.ensemble.position, [[0.5], [0.5]])
    assert np.isfinite(after.ensemble.log_density).all()
    np.testing.assert_array_equal(kept["info"].diverging, [[True, False], [True, False], [True, True]])
    assert np.isinf(kept["info"].energy_error[-1]).all()


def test_set_by_hand_it_samples_and_new_data_compile_nothing(blackjax, compile_counter):
    model = shoal.examples.load("eight_schools")
    nuts = lambda: shoal.from_blackjax(
        blackjax.nuts, step_size=0.4, inverse_mass_matrix=np.ones(model.dim), max_num_doublings=6
    )
    result = shoal.sample(model, sampler=nuts(), num_warmup=40, **FEW)
    assert result.draws["mu"].shape == (16, 60)
    assert isinstance(result.converged, bool)
    assert result.settings["sampler"] == "blackjax"
    assert result.settings["sampler.algorithm"] == "nuts"
    assert result.settings["sampler.max_num_doublings"] == 6
    np.testing.assert_array_equal(result.tuning["inverse_mass_matrix"], np.ones(model.dim))
    moved = model.with_data({**model.data, "y": model.data["y"] + 1.0})
    with compile_counter:
        again = shoal.sample(moved, sampler=nuts(), num_warmup=40, **FEW)
    assert compile_counter.count == 0
    assert (again.draws["mu"] != result.draws["mu"]).any()


def test_window_adaptation_tunes_it(blackjax):
    model = shoal.examples.load("eight_schools")
    nuts = shoal.from_blackjax("nuts", warmup="window_adaptation", max_num_doublings=6)
    result = shoal.sample(model, sampler=nuts, num_warmup=150, **FEW)
    assert set(result.tuning) == {"step_size", "inverse_mass_matrix"}
    assert 0.05 < result.tuning["step_size"] < 1.5
    assert (result.tuning["inverse_mass_matrix"] > 0).all()
    assert result.warmup["draws"] == 150
    low, high = result.warmup["window_adaptation"]["step_sizes"]
    assert low <= result.tuning["step_size"] <= high
    assert result.gradients.warmup > 16 * 150
    assert 0.5 < result.sample_stats["acceptance_rate"].mean() < 0.99
    assert abs(result.draws["mu"].mean() - 4.4) < 1.5
    same = shoal.sample(model, sampler=nuts, tuning=result.tuning, num_warmup=5, **FEW)
    np.testing.assert_array_equal(same.tuning["step_size"], result.tuning["step_size"])


def test_chains_that_found_nothing_do_not_spoil_the_pool():
    from shoal.samplers.blackjax import pooled

    mass = np.array([[1.0, 2.0], [3.0, 4.0], [np.nan, 1.0], [5.0, 6.0]])
    found = pooled(np.array([0.1, 0.3, 0.2, 0.0]), mass)
    np.testing.assert_allclose(found["step_size"], 0.2)
    np.testing.assert_allclose(found["inverse_mass_matrix"], [2.0, 3.0])
    none = pooled(np.full(4, np.nan), mass)
    np.testing.assert_array_equal(none["inverse_mass_matrix"], np.ones(2))


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with pytest.raises(ModuleNotFoundError, match=r"shoal.from_blackjax needs .* pip install \"shoal\[blackjax\]\""):
        shoal.from_blackjax("nuts")


@pytest.mark.parametrize(
    ("algorithm", "arguments", "words"),
    [
        ("nutz", {}, "nutz"),
        ("ghmc", {}, "a position to begin from"),
        ("elliptical_slice", {}, "a log density"),
        ("svgd", {}, "a sampler of BlackJAX"),
        ("nuts", {}, "missing a required argument: 'step_size'"),
        ("nuts", {"step_size": 0.1, "inverse_mass_matrix": [1.0], "depth": 3}, "unexpected keyword argument 'depth'"),
        ("nuts", {"step_size": -0.1, "inverse_mass_matrix": [1.0]}, "positive step_size"),
        ("nuts", {"warmup": "stan"}, "window_adaptation"),
        ("mala", {"warmup": "window_adaptation"}, "expected nuts, hmc or mhmc"),
        ("nuts", {"warmup": "window_adaptation", "step_size": 0.1}, "one or the other"),
        ("nuts", {"warmup": "window_adaptation", "integrator": []}, "does not hash"),
    ],
)
def test_bad_input_is_met_at_the_door(blackjax, algorithm, arguments, words):
    with pytest.raises(ValueError, match=words):
        shoal.from_blackjax(algorithm, **arguments)


def test_an_inverse_mass_matrix_of_another_model_is_refused(blackjax):
    nuts = shoal.from_blackjax("nuts", step_size=0.1, inverse_mass_matrix=np.ones(3))
    with pytest.raises(ValueError, match=r"got shape \(3,\), expected \(10,\)"):
        shoal.sample(shoal.examples.load("eight_schools"), sampler=nuts, **FEW)
