"""Deterministic quantities, and data drawn from posterior and prior: against closed forms, and against NumPyro itself.

Draws of the posterior are exact and independent here, so that z-scores need no effective sample size. A bound of five
standard errors gives a false alarm in two million checks.
"""

import dataclasses
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import norm
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer import Predictive

import shoal
from shoal.predicting import batches

xarray = pytest.importorskip("xarray")

Y = np.array([0.3, -1.2, 0.8, 1.5, 0.1, 2.2, -0.4, 0.9])
COUNT = len(Y)
# mu ~ N(0, 1) and y_i ~ N(mu, 1) make mu | y ~ N(sum(y) / (n + 1), 1 / (n + 1)).
MEAN, VARIANCE = Y.sum() / (COUNT + 1), 1 / (COUNT + 1)
CHAINS, DRAWS = 16, 250


def log_density(params, data):
    return norm.logpdf(params["mu"]) + norm.logpdf(data["y"], params["mu"]).sum()


def again(params, data, key):
    return {"y": params["mu"] + jax.random.normal(key, data["y"].shape, params["mu"].dtype)}


def deviations(params, data):
    return {"square": params["mu"] ** 2, "off": data["y"] - params["mu"]}


def plain(**changes):
    given = {"params": {"mu": shoal.real()}, "log_density": log_density, "data": {"y": Y}, "generated": again}
    return shoal.Model(**(given | changes))


def normals(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("obs", COUNT):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def exact_run(draws=DRAWS, chains=CHAINS, **rest):
    """As a run that made exact draws of mu would have it."""
    mu = np.random.default_rng(1).normal(MEAN, VARIANCE**0.5, (chains, draws)).astype(np.float32)
    return shoal.Result(
        draws={"mu": mu}, sample_stats={}, superchain=np.arange(chains) // 2, parameters=("mu",), **rest
    )


def drawn(model, run=None, **options):
    return shoal.posterior_predictive(model, run or exact_run(), **options)["posterior_predictive"]["y"].to_numpy()


# The law


def z(values, expected, sd):
    """How many standard errors the mean of independent values is off."""
    return float((np.mean(values) - expected) / (sd / np.size(values) ** 0.5))


def misfits(y, mu):
    """z-scores of what `again` draws at exact draws of mu, `[chain, draw, 8]` and `[chain, draw]`: by name."""
    y, mu = y.astype(float), mu.astype(float)
    noise, centred = y - mu[..., None], (mu - MEAN) / VARIANCE**0.5
    first, total = y[..., 0] - MEAN, 1 + VARIANCE
    pairs = {
        "draws": (noise[:, 1:], noise[:, :-1]),
        "chains": (noise[1:], noise[:-1]),
        "rows": (noise[..., 1:], noise[..., :-1]),
        "parameter": (noise[..., 0], centred),
    }
    return {
        "noise": z(noise, 0, 1),
        "noise variance": z(noise**2, 1, 2**0.5),
        "mean": z(first, 0, total**0.5),
        "variance": z(first**2, total, 2**0.5 * total),
        "covariance": z(first * (y[..., 1] - MEAN), VARIANCE, (total**2 + VARIANCE**2) ** 0.5),
        **{f"correlation of {name}": z(one * other, 0, 1) for name, (one, other) in pairs.items()},
    }


MODELS = {"plain": plain, "numpyro": lambda: shoal.from_numpyro(normals, Y)}


@pytest.mark.parametrize("name", MODELS)
def test_posterior_predictive_has_the_law_of_the_closed_form(name):
    """Nine checks: 2e-5 of seeds would fail one."""
    run = exact_run()
    scores = misfits(drawn(MODELS[name](), run), run.draws["mu"])
    assert max(map(abs, scores.values())) < 5, scores


def one_key(points, begin, end):
    chain, number, rows = between(points, begin, end)
    return 0 * chain, 0 * number, rows


def one_key_for_a_chain(points, begin, end):
    chain, number, rows = between(points, begin, end)
    return chain, 0 * number, rows


def one_key_for_a_draw(points, begin, end):
    chain, number, rows = between(points, begin, end)
    return 0 * chain, number, rows


def shifted(points, begin, end):
    return between(points._replace(values={name: np.roll(v, 1, 1) for name, v in points.values.items()}), begin, end)


between = batches.Points.between


@pytest.mark.parametrize(
    ("mutant", "sees"),
    [
        (one_key, "noise"),
        (one_key_for_a_chain, "correlation of draws"),
        (one_key_for_a_draw, "correlation of chains"),
        (shifted, "noise variance"),
    ],
)
def test_a_mutant_is_caught(mutant, sees, monkeypatch):
    monkeypatch.setattr(batches.Points, "between", mutant)
    run = exact_run()
    assert abs(misfits(drawn(plain(), run), run.draws["mu"])[sees]) > 5


def test_what_is_drawn_depends_on_seed_chain_and_draw_alone(monkeypatch):
    model, run = plain(), exact_run()
    whole = drawn(model, run, seed=3)
    np.testing.assert_array_equal(drawn(model, run, seed=3), whole)
    assert not np.any(drawn(model, run, seed=4) == whole)
    some = shoal.posterior_predictive(model, run, seed=3, num_samples=7)
    numbers = some["posterior_predictive"]["draw"].to_numpy()
    assert numbers[0] == 0
    assert set(np.diff(numbers)) <= {35, 36}
    np.testing.assert_array_equal(some["posterior_predictive"]["y"], whole[:, numbers])
    both = some["posterior"]["mu"].sel(draw=some["posterior_predictive"]["draw"])
    np.testing.assert_array_equal(both, run.draws["mu"][:, numbers])
    few = dataclasses.replace(run, draws={"mu": run.draws["mu"][:3]}, superchain=np.arange(3))
    np.testing.assert_array_equal(drawn(model, few, seed=3), whole[:3])
    # Many small calls, the last of them not full, instead of one.
    monkeypatch.setattr(batches, "CALL_BYTES", 11 * 36)
    np.testing.assert_allclose(drawn(model, run, seed=3), whole, rtol=1e-6, atol=1e-6)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(batches, "CALL_BYTES", 1000 * 36)
    points = batches.Points(16, np.arange(100), {"mu": np.zeros((16, 100), np.float32)})
    assert batches._sizes(points, {"y": jax.ShapeDtypeStruct((8,), np.float32)}) == (128, 7)
    assert batches._sizes(points, {"y": jax.ShapeDtypeStruct((10**6,), np.float32)}) == (1, 1)
    # All chains of a run side by side, as in sampling.
    assert batches._sizes(points._replace(num_chains=500), {"y": jax.ShapeDtypeStruct((8,), np.float32)}) == (500, 2)


def test_other_data_compile_nothing(compile_counter):
    model, run = plain(), exact_run(draws=10)
    before = drawn(model, run)
    with compile_counter:
        after = drawn(plain().with_data(y=Y + 1), run)
    assert compile_counter.count == 0
    np.testing.assert_array_equal(before, after)


def test_precision_is_the_runs():
    run = exact_run(draws=10, settings={"precision": "float64"})
    tree = shoal.posterior_predictive(plain(), run)
    assert tree["posterior_predictive"]["y"].dtype == np.float64
    assert tree["observed_data"]["y"].dtype == np.float64


# Against NumPyro


def hierarchy(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfNormal(2))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def votes(x, y=None):
    b = numpyro.sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.factor("soft", -(b.sum() ** 2))
    numpyro.sample("y", dist.Bernoulli(logits=x @ b), obs=y)


def series(first, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, 0.5))

    def step(last, now):
        level = numpyro.sample("level", dist.Normal(slope * last, 1))
        now = numpyro.sample("y", dist.Normal(level, 0.1), obs=now)
        return now, None

    scan(step, first, y, length=5)


def conditioned(first, y=None):
    """As in NumPyro's example of an AR(2) process: the observations come from outside the loop."""
    slope = numpyro.sample("slope", dist.Normal(0, 0.5))

    def step(last, _):
        now = numpyro.sample("y", dist.Normal(slope * last, 1))
        return now, None

    if y is None:
        scan(step, first, None, length=5)
    else:
        with numpyro.handlers.condition(data={"y": y}):
            scan(step, first, None, length=5)


def either(flag, y=None):
    a = numpyro.sample("a", dist.Normal())
    one, other = (lambda y, law=law: numpyro.sample("y", law, obs=y) for law in (dist.Normal(a, 1), dist.Normal(a, 9)))
    cond(flag[0] > 0, one, other, y)


AGAINST = {
    "plate": (hierarchy, (np.array([1.0, 2.0, 3.0]),), np.zeros(3), {"mu": (), "tau": (), "theta": (3,)}),
    "factor": (votes, (np.ones((4, 2), np.float32),), np.zeros(4, np.int32), {"b": (2,)}),
    "scan": (series, (np.zeros(()),), np.linspace(0, 1, 5), {"slope": (), "level": (5,)}),
    "condition": (conditioned, (np.zeros(()),), np.linspace(0, 1, 5), {"slope": ()}),
    "cond": (either, (np.ones(1),), np.zeros(()), {"a": ()}),
}


@pytest.mark.parametrize("name", AGAINST)
def test_what_is_drawn_is_what_numpyro_draws(name):
    """Bit by bit, by the same key: NumPyro's own way calls the model without its observations."""
    function, args, y, shapes = AGAINST[name]
    model = shoal.from_numpyro(function, *args, y=y)
    assert model.generated_names == ("y",)
    rng = np.random.default_rng(0)
    given = {name: jnp.asarray(np.abs(rng.normal(size=(20, *shape))), jnp.float32) for name, shape in shapes.items()}
    keys = jax.random.split(jax.random.key(5), 20)
    data = model.target().data
    ours = jax.jit(jax.vmap(lambda values, key: model.compiled.predictive.draw(values, data, key)))(given, keys)["y"]
    args = jax.tree.map(jnp.asarray, args)
    theirs = jax.jit(jax.vmap(lambda values, key: Predictive(function, values, batch_ndims=0)(key, *args)["y"]))(
        given, keys
    )
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape), rtol=1e-6)
    assert len(np.unique(np.asarray(theirs)[..., 0])) > 1 or name == "cond"
    np.testing.assert_array_equal(model.compiled.predictive.observed(model.data)["y"], np.float32(y))


def test_it_has_the_law_of_numpyros_predictive():
    """Means and variances of three schools at the same draws of the parameters, against one call of `Predictive`."""
    sigma = np.array([1.0, 2.0, 3.0], np.float32)
    model = shoal.from_numpyro(hierarchy, sigma, y=np.zeros(3))
    rng = np.random.default_rng(2)
    draws = {"mu": rng.normal(size=(8, 500)), "tau": rng.gamma(2, size=(8, 500)), "theta": rng.normal(size=(8, 500, 3))}
    draws = {name: values.astype(np.float32) for name, values in draws.items()}
    run = shoal.Result(draws=draws, sample_stats={}, superchain=np.zeros(8, int))
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in draws.items()}
    theirs = Predictive(hierarchy, flat, parallel=True)(jax.random.key(0), sigma)["y"] - flat["theta"]
    ours = drawn(model, run).reshape(-1, 3) - flat["theta"]
    for power in (1, 2):
        one, other = (np.asarray(noise, float) ** power for noise in (ours, theirs))
        assert np.all(np.abs(one.mean(0) - other.mean(0)) < 5 * np.sqrt((one.var(0) + other.var(0)) / len(one)))


def test_a_law_that_is_broadcast_is_drawn_once_for_every_observation():
    """`Predictive` would give one number, and the density has eight."""

    def loose(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal()), 1), obs=y)

    run = exact_run()
    scores = misfits(drawn(shoal.from_numpyro(loose, Y), run), run.draws["mu"])
    assert max(map(abs, scores.values())) < 5, scores


def test_what_is_computed_from_parameters_was_not_observed():
    def residuals(y):
        mu = numpyro.sample("mu", dist.Normal())
        numpyro.sample("off", dist.Normal().expand([COUNT]), obs=y - mu)
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    tree = shoal.posterior_predictive(shoal.from_numpyro(residuals, Y), exact_run(draws=3))
    assert set(tree["posterior_predictive"]) == {"off", "y"}
    assert set(tree["observed_data"]) == {"y"}


SEEN = np.arange(COUNT) != 2


def unseen(y, seen):
    numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal()), 1).expand([COUNT]), obs=y, obs_mask=seen)


def handled(y, seen):
    with numpyro.handlers.mask(mask=seen):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal()), 1).expand([COUNT]), obs=y)


def together(y, seen):
    law = dist.Normal(numpyro.sample("mu", dist.Normal()), 1).expand([COUNT]).mask(seen).to_event(1)
    numpyro.sample("y", law, obs=y)


@pytest.mark.parametrize(("function", "name"), [(unseen, "y_observed"), (handled, "y"), (together, "y")])
def test_what_a_mask_hides_was_not_observed(function, name):
    model = shoal.from_numpyro(function, Y.astype(np.float32), SEEN)
    tree = shoal.prior_predictive(model, num_samples=2)
    np.testing.assert_array_equal(tree["observed_data"][name], np.where(SEEN, Y.astype(np.float32), np.nan))


def test_predictions_from_the_prior_and_the_posterior_have_no_keys_in_common():
    def one(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal()), 1), obs=y)

    model = shoal.from_numpyro(one, np.float32(0.5) * np.ones(()))
    nowhere = {"mu": np.zeros((1, 500), np.float32)}
    run = shoal.Result(draws=nowhere, sample_stats={}, superchain=np.arange(1), parameters=("mu",))
    noise = shoal.posterior_predictive(model, run)["posterior_predictive"]["y"].values.ravel()
    prior = shoal.prior_predictive(model, num_samples=500)["prior"]["mu"].values.ravel()
    assert abs(np.corrcoef(noise, prior)[0, 1]) < 5 / np.sqrt(500)


def test_prior_predictive_has_the_moments_of_the_closed_form():
    """tau ~ Gamma(3, 1), mu ~ N(1, 2), y ~ N(mu, 1): seven checks at five standard errors."""

    def model_fn(y):
        mu = numpyro.sample("mu", dist.Normal(1, 2))
        tau = numpyro.deterministic("twice", 2 * numpyro.sample("tau", dist.Gamma(3.0))) / 2
        with numpyro.plate("obs", 3):
            numpyro.sample("y", dist.Normal(mu, 1), obs=y)
            numpyro.sample("w", dist.Exponential(1 / tau), obs=y**2)

    model = shoal.from_numpyro(model_fn, np.ones(3), coords={"obs": list("abc")})
    tree = shoal.prior_predictive(model, num_samples=20_000, seed=1)
    prior, predicted = tree["prior"], tree["prior_predictive"]
    y, mu, tau, w = (
        part.to_numpy().astype(float) for part in (predicted["y"], prior["mu"], prior["tau"], predicted["w"])
    )
    off = y - 1
    scores = {
        "mu": z(mu, 1, 2),
        "tau": z(tau, 3, 3**0.5),
        "mean": z(off[..., 0], 0, 5**0.5),
        "variance": z(off[..., 0] ** 2, 5, 50**0.5),
        "covariance": z(off[..., 0] * off[..., 1], 4, (25 + 16) ** 0.5),
        # E w = E tau = 3, E w² = 2 E tau² = 24.
        "w": z(w[..., 0], 3, 15**0.5),
        "given mu": z((y[..., 0] - mu) ** 2, 1, 2**0.5),
    }
    assert max(map(abs, scores.values())) < 5, scores
    np.testing.assert_allclose(prior["twice"], 2 * prior["tau"], rtol=1e-6)
    assert predicted["y"].dims == ("chain", "draw", "obs")
    assert list(predicted["obs"]) == list("abc")
    np.testing.assert_array_equal(tree["observed_data"]["y"], np.ones(3))
    few = shoal.prior_predictive(model, num_samples=10, seed=1)
    np.testing.assert_array_equal(few["prior"]["mu"], prior["mu"][:, :10])


# The tree


def test_axes_have_the_names_that_the_model_gives():
    coords = {"obs": list("abcdefgh"), "pair": ["low", "high"]}

    def more(params, data, key):
        return again(params, data, key) | {"mean": again(params, data, key)["y"].mean(), "ends": jnp.zeros(2)}

    model = plain(generated=more, deterministic=deviations, dims={"y": "obs", "ends": ("pair",)}, coords=coords)
    assert model.dims == {}
    assert model.coords == {}
    assert model.generated_names == ("y", "mean", "ends")
    assert model.generated_dims == {"y": ("obs",), "ends": ("pair",)}
    for one in (model, model.with_data(y=Y + 1)):
        tree = shoal.posterior_predictive(one, exact_run(draws=3))
        assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "obs")
        assert tree["posterior_predictive"]["mean"].dims == ("chain", "draw")
        assert list(tree["posterior_predictive"]["pair"]) == coords["pair"]
        assert list(tree["observed_data"]["obs"]) == coords["obs"]
        assert set(tree["observed_data"]) == {"y"}
        np.testing.assert_array_equal(tree["observed_data"]["y"], one.data["y"])
        np.testing.assert_array_equal(tree["posterior_predictive"]["superchain"], tree["posterior"]["superchain"])
    unnamed = shoal.posterior_predictive(plain(), exact_run(draws=3))
    assert unnamed["observed_data"]["y"].dims == ("y_dim_0",)
    assert unnamed["posterior_predictive"]["y"].dims == ("chain", "draw", "y_dim_0")


def test_entries_of_another_shape_were_not_observed():
    longer = lambda params, data, key: {"y": jnp.zeros(COUNT + 1)}
    assert "observed_data" not in shoal.posterior_predictive(plain(generated=longer), exact_run(draws=3))


def test_plates_name_the_axes_of_observed_sites_unless_that_would_change_others():
    model = shoal.from_numpyro(normals, Y)
    assert model.dims == {}
    assert model.generated_dims == {"y": ("obs",)}

    def crossed(y):
        with numpyro.plate("column", 3):
            a = numpyro.sample("a", dist.Normal())
        with numpyro.plate("row", 4):
            numpyro.sample("y", dist.Normal(a.sum(), 1), obs=y)

    named = shoal.from_numpyro(crossed, np.zeros(4), dims={"a": "row"})
    assert named.dims == {"a": ("row",)}
    assert named.generated_dims == {}
    both = shoal.from_numpyro(crossed, np.zeros(4), dims={"a": "y", "y": "i"})
    assert both.dims == {"a": ("y",)}
    assert both.generated_dims == {"y": ("i",)}


def test_names_of_scopes_have_no_slash():
    model = shoal.from_numpyro(numpyro.handlers.scope(normals, prefix="a"), Y)
    run = exact_run(draws=3)
    run = dataclasses.replace(run, draws={"a/mu": run.draws["mu"]})
    tree = shoal.posterior_predictive(model, run)
    assert set(tree["posterior_predictive"]) == set(tree["observed_data"]) == {"a.y"}


def test_a_run_on_disk_does_as_well(tmp_path):
    pytest.importorskip("zarr")
    run = exact_run(draws=30)
    run.save(tmp_path / "run")
    np.testing.assert_array_equal(drawn(plain(), shoal.load(tmp_path / "run")), drawn(plain(), run))


def test_parameters_alone_must_be_kept():
    model = plain(params={"mu": shoal.real(), "nu": shoal.positive(2)}, deterministic=deviations)
    run = exact_run(draws=3)
    with pytest.raises(ValueError, match=r"no draws of 'nu'.*keep="):
        shoal.posterior_predictive(model, run)
    whole = dataclasses.replace(run, draws=run.draws | {"nu": np.ones((CHAINS, 3, 2), np.float32)})
    assert drawn(model, whole).shape == (CHAINS, 3, COUNT)
    wrong = dataclasses.replace(run, draws=run.draws | {"nu": np.ones((CHAINS, 3, 4), np.float32)})
    with pytest.raises(ValueError, match=r"'nu' in the shape \(4,\).*\(2,\)"):
        shoal.posterior_predictive(model, wrong)


# Deterministic quantities


@pytest.mark.parametrize(
    "function",
    [
        lambda params: {"double": 2 * params["mu"]},
        lambda params, data: {"double": 2 * params["mu"] + 0 * data["y"][0]},
        functools.partial(lambda scale, params, data: {"double": scale * params["mu"]}, 2),
    ],
)
def test_deterministic_quantities_are_computed_from_values_on_the_supports(function):
    model = plain(params={"mu": shoal.positive()}, deterministic=function)
    assert model.deterministic_names == ("double",)
    values = model.constrain(np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(values["double"], 2 * np.exp([0.0, 1.0]))
    np.testing.assert_allclose(model.unconstrain({"mu": np.e}), [1.0], rtol=1e-6)


def test_they_have_axes_and_stay_with_other_data():
    model = plain(deterministic=deviations, dims={"off": "obs"}, coords={"obs": range(COUNT)})
    assert model.shapes == {"mu": (), "square": (), "off": (COUNT,)}
    assert model.dims == {"off": ("obs",)}
    other = model.with_data(y=Y + 1)
    assert other.deterministic_names == ("square", "off")
    assert other.dims == model.dims
    assert other.target().constrain == model.target().constrain == plain(deterministic=deviations).target().constrain
    np.testing.assert_allclose(other.constrain(np.zeros(1))["off"], Y + 1)
    assert model.check(max_seconds=1).ok


def test_without_them_the_program_is_as_it_was():
    bare = plain(generated=None)
    assert bare.target().constrain == plain().target().constrain
    assert bare.target().log_density == plain(deterministic=deviations).target().log_density
    assert bare.generated_names == bare.deterministic_names == ()


def test_a_run_can_be_asked_for_their_precision():
    model = plain(deterministic=deviations)
    until = shoal.Until(mcse={"square": 0.02})
    run = shoal.sample(model, num_chains=32, until=until, sampler="chees", num_warmup=200, progress_bar=False)
    assert set(run.draws) == {"mu", "square", "off"}
    np.testing.assert_allclose(run.draws["square"], run.draws["mu"] ** 2, rtol=1e-6)
    row = run.summary("square").loc["square"]
    assert row["mcse_mean"] <= 0.02
    assert abs(row["mean"] - (MEAN**2 + VARIANCE)) < 5 * row["mcse_mean"]
    tree = shoal.posterior_predictive(model, run, num_samples=2)
    assert tree["posterior_predictive"]["y"].shape == (32, 2, COUNT)
    assert tree["posterior"]["off"].shape == (32, run.num_draws, COUNT)


# What is refused


def broken(params):
    raise TypeError("no such thing")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (3, "deterministic is 3"),
        (lambda: {}, r"neither as deterministic\(params\) nor"),
        (broken, r"deterministic\(params\) failed.*no such thing.*jax.numpy"),
        (lambda params: params["nu"], "'nu'"),
        (lambda params: {"a": float(params["mu"])}, "failed when it was traced"),
        (lambda params: None, r"returned a NoneType.*return statement"),
        (lambda params: params["mu"], "mapping from names to arrays"),
        (lambda params: {}, "an empty mapping"),
        (lambda params: {"mu": params["mu"]}, "'mu', but the model has one of that name already"),
        (lambda params: {"a": [params["mu"]]}, "'a' as something a list"),
        (lambda params: {"a": {"b": params["mu"]}}, "'a' as something a dict"),
        (lambda params: {"a": "high"}, "'a' as something a str"),
        (lambda params: {"a": params["mu"] * 1j}, "'a' as something of type complex64"),
        (lambda params: {1: params["mu"]}, "called 1"),
        (lambda params: {"draw": params["mu"]}, "called 'draw'"),
    ],
)
def test_refusals_name_deterministic(function, words):
    with pytest.raises(ValueError, match=words) as caught:
        plain(deterministic=function)
    assert "deterministic" in str(caught.value) or "'draw'" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (3, "generated is 3"),
        (lambda params, key: {}, r"as generated\(params, data, key\).*data= was given"),
        (lambda params, data, key: data["x"], r"generated\(params, data, key\) failed.*'x'"),
        (lambda params, data, key: jnp.zeros(3), "mapping from names to arrays"),
        (lambda params, data, key: {"mu": params["mu"]}, "'mu', but the model has one"),
        (lambda params, data, key: {"square": params["mu"]}, "'square', but the model has one"),
        (lambda params, data, key: {"y": key}, "'y' as something of type key"),
        (lambda params, data, key: {"chain": params["mu"]}, "called 'chain'"),
    ],
)
def test_refusals_name_generated(function, words):
    with pytest.raises(ValueError, match=words):
        plain(generated=function, deterministic=deviations)


def test_without_data_functions_take_none():
    bare = {"data": None, "log_density": lambda params: norm.logpdf(params["mu"])}
    draw = lambda params, key: {"y": params["mu"] + jax.random.normal(key)}
    assert drawn(plain(**bare, generated=draw), exact_run(draws=3)).shape == (CHAINS, 3)
    with pytest.raises(ValueError, match=r"as generated\(params, key\).*data= was not given"):
        plain(**bare)
    with pytest.raises(ValueError, match="deterministic takes params and data, but data= was not given"):
        plain(**bare, generated=draw, deterministic=deviations)


def test_dims_must_fit_generated_quantities():
    with pytest.raises(ValueError, match=r"dims\['y'\] names 2 axes"):
        plain(dims={"y": ("a", "b")})
    with pytest.raises(ValueError, match="'x', but the model has no such quantity; it has mu, y"):
        plain(dims={"x": ("a",)})
    with pytest.raises(ValueError, match="calls an axis 'y'"):
        plain(dims={"y": ("y",)})
    with pytest.raises(ValueError, match="different names"):
        plain(deterministic=lambda params: {"two": jnp.zeros(2)}, dims={"y": "i", "two": "i"})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shoal.posterior_predictive(normals, exact_run()), "expected a shoal.Model"),
        (lambda: shoal.posterior_predictive(plain(), {"mu": 1}), "got dict, expected a shoal.Result"),
        (lambda: shoal.posterior_predictive(plain(generated=None), exact_run()), "does not say how.*generated="),
        (lambda: shoal.posterior_predictive(plain(), exact_run(draws=0)), "no draws yet"),
        (lambda: shoal.posterior_predictive(plain(), exact_run(), num_samples=0), "num_samples=0"),
        (lambda: shoal.posterior_predictive(plain(), exact_run(), num_samples=251), "has 250 draws"),
        (lambda: shoal.posterior_predictive(plain(), exact_run(), seed=-1), "seed=-1"),
        (lambda: shoal.prior_predictive(plain()), "is a log density.*NumPyro model"),
        (lambda: shoal.prior_predictive(plain(generated=None)), "is a log density"),
        (lambda: shoal.prior_predictive(shoal.from_numpyro(normals, Y), num_samples=0), "num_samples=0"),
        (lambda: shoal.prior_predictive(shoal.from_numpyro(normals, Y), seed=1.5), "seed=1.5"),
        (lambda: shoal.prior_predictive(normals), "expected a shoal.Model"),
    ],
)
def test_refusals_of_predictions(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_run_that_keeps_no_draws_is_refused():
    run = dataclasses.replace(exact_run(), draws={}, moments=object(), settings={"keep": "moments"})
    with pytest.raises(ValueError, match=r"keeps no draws \(keep='moments'\)"):
        shoal.posterior_predictive(plain(), run)


def test_numpyro_models_that_cannot_be_drawn_from_are_refused():
    def improper(y):
        mu = numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    model = shoal.from_numpyro(improper, Y)
    assert drawn(model, exact_run(draws=3)).shape == (CHAINS, 3, COUNT)
    with pytest.raises(ValueError, match=r"prior of 'improper' failed.*improper prior is none"):
        shoal.prior_predictive(model)

    def unobserved():
        numpyro.sample("mu", dist.Normal())

    with pytest.raises(ValueError, match="no observed site"):
        shoal.posterior_predictive(shoal.from_numpyro(unobserved), exact_run())
    assert set(shoal.prior_predictive(shoal.from_numpyro(unobserved), num_samples=2).children) == {"prior"}

    def reserved(y):
        numpyro.sample("draw", dist.Normal(numpyro.sample("mu", dist.Normal()), 1), obs=y)

    with pytest.raises(ValueError, match="called 'draw'"):
        shoal.posterior_predictive(shoal.from_numpyro(reserved, Y), exact_run())


def test_numpyro_is_whole_after_arviz():
    """ArviZ leaves NumPyro behind as a module that is loaded later, of which a part can be loaded twice."""
    pytest.importorskip("lazy_loader", reason="lazy_loader, which ArviZ does it by, is not installed")
    lazily = "import lazy_loader, shoal; numpyro = lazy_loader.load('numpyro')"
    code = f"{lazily}; shoal.positive().free_shape(); numpyro.distributions.distribution"
    subprocess.run([sys.executable, "-c", code], check=True)
