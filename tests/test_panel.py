"""The benchmark panel's judgement: exact draws are right, wrong ones are not, and costs are counted as they say."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("arviz_stats", reason="the panel counts with arviz-stats: pip install 'shoal[diagnostics]'")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from panel.measures import draws_to_small_bias, smallest_ess
from panel.outcome import Count, Outcome, Seconds
from panel.rows import bias_cost, superchains
from panel.summary import Cell, race_shares
from panel.targets import TARGETS, Reference
from panel.targets.adversaries import RHO, SCALES

CHAINS, DRAWS = 64, 250


def exact(name, rng):
    """Independent draws of an adversary, `[chain, draw, dim]`."""
    shape = (CHAINS, DRAWS, TARGETS[name].dim)
    z = rng.standard_normal(shape)
    if name == "funnel":
        v = 3.0 * z[..., :1]
        return np.concatenate([v, np.exp(v / 2) * z[..., 1:]], axis=-1)
    if name == "axis_gaussian":
        return z * SCALES
    if name == "correlated_gaussian":
        for time in range(1, shape[-1]):
            z[..., time] = RHO * z[..., time - 1] + np.sqrt(1 - RHO**2) * z[..., time]
        return z
    if name == "student_t2":
        return rng.standard_t(2.0, shape)
    if name == "cauchy":
        return rng.standard_cauchy(shape)
    z[..., 0] += np.where(rng.random(shape[:-1]) < 2 / 3, 4.0, -4.0)
    return z


ADVERSARIES = [name for name, target in TARGETS.items() if target.family == "adversary"]


@pytest.mark.parametrize("name", ADVERSARIES)
def test_exact_draws_of_an_adversary_are_right_and_shrunken_ones_are_not(name):
    target = TARGETS[name]
    z = exact(name, np.random.default_rng(0))
    right = target.judge({"z": z})
    assert right["right"], right["worst"]
    wrong = target.judge({"z": 0.7 * z})
    assert not wrong["right"]
    assert wrong["worst"][1] > 1.0


@pytest.mark.parametrize("name", ADVERSARIES)
def test_references_of_adversaries_agree_with_exact_draws(name):
    target = TARGETS[name]
    values, known = target.quantities({"z": exact(name, np.random.default_rng(1))}), target.reference()
    count = CHAINS * DRAWS
    assert np.all(abs(values.mean((0, 1)) - known.mean) < 5 * known.sd / np.sqrt(count))
    squares = values**2
    assert np.all(abs(squares.mean((0, 1)) - known.mean_sq) < 5 * known.spread_sq / np.sqrt(count))
    np.testing.assert_allclose(squares.std((0, 1)), known.spread_sq, rtol=0.1)


@pytest.mark.parametrize("name", ADVERSARIES)
def test_log_densities_of_adversaries_are_those_of_their_draws(name):
    # Stein's identity, E[u(z) g(z) + u'(z)] = 0 for the gradient g, with a bounded u.
    target = TARGETS[name]
    z = exact(name, np.random.default_rng(2)).reshape(-1, target.dim)
    gradient = np.asarray(target.model().target().gradient(jnp.asarray(z, jnp.float32)), np.float64)
    bounded = z / np.sqrt(1 + z**2)
    stein = gradient * bounded + (1 + z**2) ** -1.5
    error = stein.std(0) / np.sqrt(len(z))
    assert np.all(abs(stein.mean(0)) < 5 * error)


def test_a_target_that_is_not_there_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("panel.targets.base.SHARED", tmp_path / "none")
    with pytest.raises(ValueError, match="SHOAL_TARGETS"):
        TARGETS["banana"].reference()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the shared ports leave data files open
def test_every_dimension_is_that_of_the_model(targets):
    for name in ("eight_schools-eight_schools_noncentered", "banana", "breast_cancer"):
        target = TARGETS[name]
        assert target.model().dim == target.dim


def test_small_bias_is_what_stays_small():
    # Running means 1, 0.05, 0.3, 0.05, 0.05: small at the second draw, but to stay only from the fourth.
    running = np.array([1.0, 0.05, 0.3, 0.05, 0.05])
    draws = np.diff(running * np.arange(1, 6), prepend=0.0)
    values = np.broadcast_to(draws[None, :, None], (3, 5, 1))
    assert draws_to_small_bias(values, np.zeros(1), np.ones(1)) == 4
    assert draws_to_small_bias(values[:, :3], np.zeros(1), np.ones(1)) is None
    assert draws_to_small_bias(np.zeros((3, 5, 1)), np.zeros(1), np.ones(1)) == 1
    known = Reference.exact(["x"], 0.0, 1.0)
    outcome = Outcome(values, Count(both=100), Count(both=10, gradient=40), Seconds())
    wide = Reference.exact(["x"], 0.0, 1.0, 1e6)
    assert bias_cost(outcome, values, wide) == 100 + 40
    assert bias_cost(outcome, values, known) is None


def test_effective_draws_of_constants_and_of_independent_draws():
    rng = np.random.default_rng(3)
    values = rng.standard_normal((4, 500, 2))
    assert 1_500 < smallest_ess(values) < 2_600
    values[..., 1] = 1.0
    assert smallest_ess(values) == 0.0


def test_superchains_keep_the_order_of_draws():
    values = np.arange(32 * 3, dtype=float).reshape(32, 3, 1)
    grouped = superchains(values)
    assert grouped.shape == (16, 6, 1)
    np.testing.assert_array_equal(grouped[0, :, 0], [0, 3, 1, 4, 2, 5])
    assert superchains(values[:8]).shape == (8, 3, 1)


def test_the_worst_seed_is_what_a_cell_says():
    good = {"status": "done", "right": True, "converged": True, "cost_4000": 2.0}
    silent = {"status": "done", "right": False, "converged": True, "cost_4000": 4.0}
    assert Cell({0: good, 1: good}).good
    assert Cell({0: good, 1: silent}).worst == "silent"
    assert Cell({0: good, 1: {"status": "timeout"}}).worst == "unfinished"
    assert Cell({0: good, 1: silent}).median("cost_4000") == 3.0


def test_what_the_race_took_is_a_share_of_every_run_that_ended():
    row = lambda **settings: {"status": "done", "cost_4000": 200.0, "settings": settings}
    rows = {0: row(race_gradients=30), 1: row(race_gradients=10)}
    found = {("banana", "shoal_auto"): Cell(rows | {2: {"status": "timeout"}}), ("banana", "shoal_nuts"): Cell(rows)}
    assert race_shares(found, "shoal_auto") == [0.15, 0.05]
