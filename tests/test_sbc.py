"""Calibration: right models pass, every planted bug is found, and the tests' p values are what they say.

Bugs are entries of the data, so that one program serves the right model and all wrong ones.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy.stats import binom, kstest

import shoal
from shoal.calibration import outcome, simulated
from shoal.calibration.ranks import Quantity, independent_draws, ranked, thinned
from shoal.calibration.uniformity import bands, counts_below, ecdf_p_value, p_values, stays
from shoal.diagnostics.findings import Finding

ROWS = 4
RIGHT = {"scale": 1.0, "rate": 1.0, "jacobian": 1.0, "twice": 1.0, "noise": 1.0}


def log_density(params, data):
    """Normal data with mu ~ N(0, 1) and sigma ~ Exponential(1), written for the logarithm of sigma."""
    mu, log_sigma = params["mu"], params["log_sigma"]
    sigma = jnp.exp(log_sigma)
    prior = norm.logpdf(mu, 0.0, data["scale"]) - data["rate"] * sigma + data["jacobian"] * log_sigma
    return prior + data["twice"] * norm.logpdf(data["y"], mu, sigma * data["noise"]).sum()


def model(**rest):
    data = {"y": np.zeros(ROWS), **{name: np.array(value) for name, value in RIGHT.items()}}
    params = {"mu": shoal.real(), "log_sigma": shoal.real()}
    return shoal.Model(params=params, log_density=log_density, data=data, name="toy", **rest)


def simulator(**wrong):
    """The right simulation, for a model in which something is wrong."""

    def simulate(key):
        first, second, third = jax.random.split(key, 3)
        mu, sigma = jax.random.normal(first), jax.random.exponential(second)
        y = mu + sigma * jax.random.normal(third, (ROWS,))
        return {"mu": mu, "log_sigma": jnp.log(sigma)}, {"y": y, **{k: jnp.asarray(v) for k, v in wrong.items()}}

    return simulate


def calibrated(seed=1, **wrong):
    return shoal.sbc(model(), simulator(**wrong), num_warmup=200, seed=seed, progress_bar=False)


@pytest.fixture(scope="module")
def right():
    return calibrated()


def test_a_right_model_passes(right):
    """A false alarm in one of a hundred seeds, at most."""
    assert right.passed
    assert {finding.kind for finding in right.findings} <= {"not_converged"}
    assert right.results.converged.mean() > 0.97
    assert right.labels == ("mu", "log_sigma", "log density")
    assert right.ranks.shape == right.places.shape == (200, 3)
    assert right.ranks.min() >= 0
    assert right.ranks.max() <= right.num_draws
    assert right.level == pytest.approx(0.01 / 9)
    assert "passed" in repr(right)
    table = right.summary()
    assert list(table.index) == list(right.labels)
    assert np.allclose(table["mean_rank"], 0.5, atol=4 / math.sqrt(12 * 200))


@pytest.mark.parametrize(
    ("wrong", "kind", "where", "words"),
    [
        ({"jacobian": 0.0}, "location", "log_sigma", "shifted to small values"),
        ({"scale": 0.5}, "spread", "mu", "too narrow"),
    ],
)
def test_planted_bugs_are_found(right, wrong, kind, where, words):
    """With the missing Jacobian a p value of 1e-8 is usual, with the prior of half the scale 1e-15; 1e-3 counts."""
    found = calibrated(**wrong)
    assert not found.passed
    blamed = {finding.where: finding for finding in found.findings if finding.blocking}
    assert blamed[where].kind == kind
    assert words in blamed[where].words
    assert blamed[where].number < found.level == blamed[where].threshold
    assert "not calibrated" in repr(found)
    # A mutant that knows of no mean, no spread and no distribution sees nothing.
    blind = dataclasses.replace(found, p_values=np.ones_like(found.p_values))
    assert not [finding for finding in blind.findings if finding.kind == kind]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "where"),
    [({"rate": 2.0}, "log_sigma"), ({"noise": 1.3}, "log_sigma"), ({"twice": 2.0}, "log density")],
)
def test_more_planted_bugs_are_found(wrong, where):
    assert where in {finding.where for finding in calibrated(**wrong).findings if finding.blocking}


@pytest.mark.slow
def test_a_model_that_ignores_its_data_passes():
    """The limit of calibration, as the documentation has it: the posterior is the prior."""
    assert calibrated(twice=0.0).passed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_right_models_pass_with_other_seeds(seed):
    """All ten but once in ten."""
    assert calibrated(seed=seed + 100).passed


# The tests' own law


def test_the_probability_to_stay_within_bounds_is_that_of_simulations(rng):
    low, high = np.array([1, 4, 9, 14]), np.array([8, 12, 16, 19])
    counts = np.sort(rng.uniform(size=(20_000, 20)), axis=1)
    below = np.stack([(counts < point).sum(1) for point in (0.2, 0.4, 0.6, 0.8)], axis=1)
    share = ((below >= low) & (below <= high)).all(1).mean()
    chance = stays(low, high, 20)
    assert abs(share - chance) < 5 * math.sqrt(chance * (1 - chance) / 20_000)
    assert stays(np.zeros(4, int), np.full(4, 20), 20) == pytest.approx(1)


def test_p_values_of_uniform_places_are_uniform(rng):
    """Those of the continuous statistics by Kolmogorov's test at 1e-5; of the counts at most as often as they say."""
    p = np.array([p_values(rng.uniform(size=60), 59) for _ in range(400)])
    assert kstest(p[:, 0], "uniform").pvalue > 1e-5
    assert kstest(p[:, 1], "uniform").pvalue > 1e-5
    for level in (0.05, 0.2, 0.5):
        assert binom.sf((p[:, 2] <= level).sum() - 1, 400, level) > 1e-5
    assert (p[:, 2] <= 0.2).mean() > 0.1


def test_bands_are_left_as_often_as_they_say(rng):
    found = bands(60, 59, 0.1)
    shares = np.array([counts_below(rng.uniform(size=60), 59) for _ in range(2000)]) / 60
    left = ((shares < found.low) | (shares > found.high)).any(1).mean()
    assert 0.03 < left < 0.1 + 5 * math.sqrt(0.09 / 2000)


@pytest.mark.parametrize(
    ("shape", "which"),
    [((2.0, 1.0), 0), ((2.0, 2.0), 1), ((0.6, 0.6), 1)],
)
def test_places_that_are_not_uniform_are_found_by_their_test(rng, shape, which):
    p = p_values(rng.beta(*shape, size=200), 199)
    assert p[which] < 1e-4


def test_two_humps_are_found_by_the_whole_distribution(rng):
    """Mean and spread are those of uniform places, nearly."""
    places = np.concatenate([rng.uniform(0.1, 0.3, 100), rng.uniform(0.7, 0.9, 100)])
    assert ecdf_p_value(counts_below(places, 199), 200) < 1e-6


# Ranks


def test_ranks_among_ties_are_any_that_there_could_be():
    draws = np.zeros((4000, 9))
    rank, places = ranked(draws, np.zeros(4000), np.random.default_rng(0))
    assert set(rank) == set(range(10))
    assert kstest(places, "uniform").pvalue > 1e-5
    rank, places = ranked(np.arange(9.0)[None], np.array([3.5]), np.random.default_rng(0))
    assert rank[0] == 4
    assert 0.4 < places[0] < 0.5


def test_thinned_draws_are_of_all_chains_and_far_apart():
    draws = np.arange(64 * 200.0).reshape(1, 64, 200)
    kept = thinned(draws, 256)
    assert kept.shape == (1, 256)
    assert set(kept[0] % 200) == {199.0, 149.0, 99.0, 49.0}
    few = thinned(draws, 10)
    assert few.shape == (1, 10)
    assert len(set(few[0] // 200)) == 10


def test_chains_that_hardly_move_have_few_independent_draws(rng):
    stuck = np.repeat(rng.normal(size=(30, 64, 1)), 50, axis=2) + 1e-3 * rng.normal(size=(30, 64, 50))
    assert independent_draws([Quantity("x", stuck, np.zeros(30))]) < 80
    free = rng.normal(size=(30, 64, 50))
    assert independent_draws([Quantity("x", free, np.zeros(30))]) == 256


# What is told


def test_data_sets_that_have_not_converged_are_told_of(right, monkeypatch):
    judged = Finding("r_hat", "mu", 2.0, "", "")

    def of(wrong):
        some = [dataclasses.replace(result, judged=(judged,) * (i < wrong)) for i, result in enumerate(right.results)]
        return dataclasses.replace(right, results=dataclasses.replace(right.results, results=tuple(some)))

    few = of(3)
    assert few.passed
    assert [finding.kind for finding in few.findings] == ["not_converged"]
    assert "data sets 0, 1 and 2" in few.findings[0].words
    assert not of(21).passed
    monkeypatch.setattr(outcome, "UNCONVERGED", 0.5)
    assert of(21).passed


def test_few_draws_are_told_of(right):
    few = dataclasses.replace(right, num_draws=7)
    assert [finding.kind for finding in few.findings if finding.blocking] == ["few_draws"]
    assert not few.passed


def test_the_whole_distribution_speaks_where_mean_and_spread_do_not(right):
    p = right.p_values.copy()
    p[0] = (0.5, 0.5, 1e-9)
    assert dataclasses.replace(right, p_values=p).findings[0].kind == "ecdf"


def test_the_figure(right):
    pytest.importorskip("matplotlib")
    drawn = right.plot()
    assert [axes.get_title() for axes in drawn.axes] == list(right.labels)
    assert len(right.plot(["mu"]).axes) == 1
    with pytest.raises(ValueError, match="labels="):
        right.plot(["nu"])


# At the door


def of_numpy(key):
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    mu, sigma = rng.normal(), rng.exponential()
    return {"mu": mu, "log_sigma": np.log(sigma)}, {"y": rng.normal(mu, sigma, ROWS)}


def test_functions_of_numpy_are_called_one_by_one():
    made = simulated.simulated(model(), of_numpy, jax.random.key(0), 30)
    assert made.values["mu"].shape == (30,)
    assert len(np.unique(made.values["mu"])) == 30
    assert len(made.data) == 30


def wrong_pair(values, data=None):
    return lambda key: (values(key), {"y": jax.random.normal(key, (ROWS,))} if data is None else data)


@pytest.mark.parametrize(
    ("simulate", "words"),
    [
        (3, "simulate: got int"),
        (lambda key: 1 / 0, "simulate failed for data set 0: .*division by zero"),
        (lambda key: {"mu": 1.0}, "simulate returned a dict"),
        (wrong_pair(lambda key: {"mu": jax.random.normal(key)}), "simulate gave nothing for log_sigma"),
        (wrong_pair(lambda key: dict.fromkeys(("mu", "log_sigma", "tau"), jax.random.normal(key))), "also tau"),
        (wrong_pair(lambda key: dict.fromkeys(("mu", "log_sigma"), jax.random.normal(key, (2,)))), r"shape \(2,\)"),
        (wrong_pair(lambda key: {"mu": 0.0, "log_sigma": 0.0}), "the same parameters for all keys"),
        (
            wrong_pair(lambda key: dict.fromkeys(("mu", "log_sigma"), jax.random.normal(key)), {"z": np.zeros(3)}),
            r"datasets\[0\]: sample_many was given",
        ),
    ],
)
def test_wrong_simulators(simulate, words):
    with pytest.raises(ValueError, match=words):
        shoal.sbc(model(), simulate)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_datasets": 3}, "num_datasets=3"),
        ({"false_alarm": 0.0}, r"false_alarm=0\.0"),
        ({"seed": -1}, "seed=-1"),
        ({"sampler": "auto"}, "sampler='auto'"),
        ({"precision": "half"}, "precision='half'"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        shoal.sbc(model(), simulator(), **arguments)


def test_what_is_no_model():
    with pytest.raises(ValueError, match="model: got function"):
        shoal.sbc(log_density, simulator())  # pyright: ignore


def test_values_outside_their_support_are_named():
    positive = shoal.Model(
        params={"tau": shoal.positive()}, log_density=lambda p, d: -p["tau"] + 0 * d, data=np.array(0.0)
    )
    with pytest.raises(ValueError, match=r"simulate gave data set \d+ tau = -.*outside its support"):
        shoal.sbc(positive, lambda key: ({"tau": jax.random.normal(key)}, jax.random.normal(key)))
