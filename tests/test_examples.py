"""The examples: the post's three numbers, the same in double, and every example of the catalogue."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import bernoulli, gamma, norm

import shoal
from shoal.examples import catalogue, load
from shoal.examples.logistic import log1p_exp, log_bernoulli
from shoal.examples.stochastic_volatility import autoregression

pytest.importorskip("sklearn")

from shoal.examples import breast_cancer

NAMES = [example.name for example in catalogue()]


@pytest.fixture(scope="module")
def founding():
    return load("breast_cancer")


# The founding posterior


def test_the_posts_joint_log_prob(founding):
    beta = jax.random.uniform(jax.random.key(0), (30,))
    assert float(beta[0]) == pytest.approx(0.947667, abs=5e-7)
    assert float(beta[-1]) == pytest.approx(0.22934973, abs=5e-8)
    x, y = jnp.asarray(founding.data["x"]), jnp.asarray(founding.data["y"])
    value = float(breast_cancer.joint_log_prob(x, y, 1.0, 1.0, beta))
    assert value == pytest.approx(-4869.8623, rel=1e-5)
    # With a vector of ones the prior of λ counts thirty times.
    assert float(breast_cancer.joint_log_prob(x, y, 1.0, jnp.ones(30), beta)) == pytest.approx(-4911.011, rel=1e-5)


def test_the_founding_table_is_as_scikit_learn_gives_it(founding):
    from sklearn.datasets import load_breast_cancer
    from sklearn.preprocessing import StandardScaler

    table = load_breast_cancer()
    np.testing.assert_array_equal(founding.data["x"], StandardScaler().fit_transform(table.data).astype(np.float32))
    np.testing.assert_array_equal(founding.data["y"], table.target)
    assert list(founding.coords["feature"]) == table.feature_names.tolist()


def test_log_density_and_gradient_at_the_origin(founding):
    value, gradient = founding.target()(jnp.zeros((1, 61)))
    assert float(value[0]) == pytest.approx(-465.956, rel=1e-5)
    assert float(jnp.linalg.norm(gradient)) == pytest.approx(803.637, rel=1e-5)


def test_the_same_numbers_in_double(founding):
    with jax.enable_x64(True):
        target = founding.target(np.float64)
        value, gradient = target(jnp.zeros((1, 61)))
        assert float(value[0]) == pytest.approx(-465.955996, abs=1e-6)
        assert float(jnp.linalg.norm(gradient)) == pytest.approx(803.637237, abs=1e-6)
        beta = jax.random.uniform(jax.random.key(0), (30,), np.float32).astype(np.float64)
        value = breast_cancer.joint_log_prob(*target.data.values(), 1.0, 1.0, beta)
        assert float(value) == pytest.approx(-4869.86213, abs=1e-5)


def test_data_and_names_are_those_of_the_post(founding):
    assert founding.dim == 61
    assert founding.parameter_names == ("tau", "lamb", "beta")
    assert founding.coordinates[:2] == ("tau", "lamb[0]")
    x, y = founding.data["x"], founding.data["y"]
    assert x.shape == (569, 30)
    assert x.dtype == y.dtype == np.float32
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-6)
    assert set(np.unique(y)) == {0, 1}
    assert founding.coords["feature"][0] == "mean radius"


def test_breast_cancer_is_its_law_by_other_code(founding):
    def plain(z):
        tau, lamb, beta = jnp.exp(z[0]), jnp.exp(z[1:31]), z[31:]
        prior = gamma.logpdf(tau, 0.5, scale=2) + gamma.logpdf(lamb, 0.5, scale=2).sum()
        logits = founding.data["x"].astype(np.float64) @ (tau * lamb * beta)
        labels = bernoulli.logpmf(founding.data["y"].astype(int), jax.nn.sigmoid(logits)).sum()
        return prior + norm.logpdf(beta).sum() + labels + z[:31].sum()

    with jax.enable_x64(True):
        position = 0.3 * jax.random.normal(jax.random.key(3), (5, 61), np.float64)
        value, gradient = founding.target(np.float64)(position)
        expected, slope = jax.vmap(jax.value_and_grad(plain))(position)
        np.testing.assert_allclose(value, expected, rtol=1e-10)
        np.testing.assert_allclose(gradient, slope, rtol=1e-7, atol=1e-9)


def test_rows_may_be_given_in_blocks(founding):
    target = founding.target()
    params = {"tau": jnp.array(0.5), "lamb": jnp.full(30, 0.3), "beta": jnp.linspace(-1, 1, 30)}
    whole = breast_cancer.log_likelihood(params, target.data)
    blocks = [
        breast_cancer.log_likelihood(params, {name: leaf[rows] for name, leaf in target.data.items()})
        for rows in (slice(0, 300), slice(300, None))
    ]
    np.testing.assert_allclose(sum(blocks), whole, rtol=1e-6)


def test_gradient_in_float32_is_that_in_double(founding):
    position = 0.5 * np.random.default_rng(0).normal(size=(8, 61))
    gradient = np.asarray(founding.target().gradient(jnp.asarray(position, np.float32)))
    with jax.enable_x64(True):
        exact = np.asarray(founding.target(np.float64).gradient(jnp.asarray(position)))
    error = np.linalg.norm(gradient - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() < 5e-6


# The logistic likelihood


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_log1p_exp_and_its_derivatives_are_exact(x64):
    dtype = np.float64 if x64 else np.float32
    points = np.array([-1e4, -90.0, -20.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 20.0, 90.0, 1e4])
    with jax.enable_x64(x64), np.errstate(over="ignore"):
        x = jnp.asarray(points, dtype)
        tolerance = 4 * np.finfo(dtype).eps
        np.testing.assert_allclose(log1p_exp(x), np.logaddexp(0, points), rtol=tolerance, atol=1e-37)
        first = jax.vmap(jax.grad(log1p_exp))(x)
        np.testing.assert_allclose(first, 1 / (1 + np.exp(-points)), atol=tolerance)
        second = jax.vmap(jax.grad(jax.grad(log1p_exp)))(x)
        np.testing.assert_allclose(second, 0.25 / np.cosh(np.clip(points, -700, 700) / 2) ** 2, atol=tolerance)
        assert first.dtype == second.dtype == dtype
    assert float(log_bernoulli(jnp.array([1.0, 0.0]), jnp.array([1e5, -1e5]))) == 0


# The catalogue


def test_the_catalogue_reads_without_jax():
    code = (
        "import json, sys; from shoal.examples import catalogue;"
        "print(json.dumps([sorted({'jax', 'numpy', 'numpyro', 'sklearn'} & set(sys.modules)),"
        "[e.name for e in catalogue()]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, names = json.loads(done.stdout)
    assert heavy == []
    assert names == sorted(names) == NAMES


@pytest.mark.parametrize("example", catalogue(), ids=NAMES)
def test_every_example_has_the_dimension_it_says_and_finite_gradients(example):
    model = load(example.name)
    assert model.dim == example.dim
    assert model.name == example.name
    assert example.difficulty in ("easy", "medium", "hard")
    assert "\n" not in example.words
    position = 0.2 * jax.random.normal(jax.random.key(0), (3, model.dim))
    value, gradient = jax.jit(lambda position: model.target()(position))(position)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    values = model.constrain(np.asarray(position))
    assert all(np.isfinite(array).all() for array in values.values())
    for name, axes in model.dims.items():
        assert len(axes) == values[name].ndim - 1
    again = load(example.name)
    assert again.target().log_density == model.target().log_density
    assert jax.tree.all(jax.tree.map(np.array_equal, again.data, model.data))


def test_centred_and_not_are_one_posterior():
    """The same law in other coordinates: densities differ by log|dθ/dθ_raw| = 8 log τ."""
    with jax.enable_x64(True):
        raw, centred = load("eight_schools"), load("eight_schools_centered")
        position = np.random.default_rng(0).normal(size=(4, 10))
        values = raw.constrain(position)
        other = centred.unconstrain({name: values[name] for name in ("mu", "tau", "theta")})
        difference = (
            raw.target(np.float64)(jnp.asarray(position))[0] - centred.target(np.float64)(jnp.asarray(other))[0]
        )
        np.testing.assert_allclose(difference, 8 * np.log(values["tau"]), atol=1e-9)


def test_sparse_logistic_of_any_size():
    model = load("sparse_logistic", num_rows=50, num_columns=7, seed=3)
    assert model.dim == 15
    assert model.data["x"].shape == (50, 7)
    assert not np.array_equal(model.data["x"], load("sparse_logistic", num_rows=50, num_columns=7).data["x"])
    assert load("sparse_logistic", num_columns=7, num_rows=50, seed=3).data["y"].tolist() == list(model.data["y"])


@pytest.mark.parametrize("num", [2, 3, 8, 37])
def test_autoregression_is_the_recursion(num):
    shocks = np.random.default_rng(0).normal(size=num)
    expected = [shocks[0]]
    for shock in shocks[1:]:
        expected.append(-0.7 * expected[-1] + shock)
    with jax.enable_x64(True):
        np.testing.assert_allclose(autoregression(jnp.array(-0.7), jnp.asarray(shocks)), expected)


def test_stochastic_volatility_is_stationary():
    model = load("stochastic_volatility", num_times=40)
    assert model.dim == 43
    rng = np.random.default_rng(0)
    position = np.concatenate([np.tile([1.5, -1.0, -1.0], (4000, 1)), rng.normal(size=(4000, 40))], 1)
    values = model.constrain(position)
    spread = values["log_volatility"].std(0)
    expected = values["scale"][0] / np.sqrt(1 - values["persistence"][0] ** 2)
    np.testing.assert_allclose(spread, expected, rtol=0.06)


def test_gaussian_process_is_its_law():
    from numpyro import distributions as dist

    model = load("gaussian_process", num_points=12, seed=1)
    x, y = model.data["x"], model.data["y"]
    with jax.enable_x64(True):
        position = np.array([[0.2, -0.3, -1.0]])
        a, length, s = np.exp(position[0])
        cov = a**2 * np.exp(-0.5 * (x[:, None] - x) ** 2 / length**2) + (s**2 + 1e-6 * a**2) * np.eye(12)
        expected = dist.MultivariateNormal(np.zeros(12), cov).log_prob(y) + sum(
            dist.LogNormal(mean, 1.0).log_prob(value) + np.log(value)
            for mean, value in zip((0, 0, -1.5), (a, length, s), strict=True)
        )
        value = model.target(np.float64)(jnp.asarray(position))[0][0]
        np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_groups_of_the_diabetes_example_are_balanced():
    model = load("diabetes")
    counts = np.bincount(model.data["group"])
    assert len(counts) == 10
    assert counts.min() > 30
    assert model.dims["slope"] == ("feature",)
    assert list(model.coords["feature"])[:2] == ["sex", "bmi"]
    assert len(model.coords["age"]) == 10


def test_neural_network_is_its_law_by_other_code():
    model = load("neural_network", num_hidden=5, num_rows=20, num_columns=3)
    x, y = model.data["x"].astype(float), model.data["y"].astype(float)

    def plain(z):
        w, b, v, noise = z[:15].reshape(3, 5), z[15:20], z[20:25], jnp.exp(z[25])
        mean = jnp.array([sum(2 / 5**0.5 * v[h] * jnp.tanh(row @ w[:, h] + b[h]) for h in range(5)) for row in x])
        prior = norm.logpdf(z[:25]).sum() + norm.logpdf(noise, scale=0.5)
        return prior + norm.logpdf(y, mean, noise).sum() + z[25]

    with jax.enable_x64(True):
        position = jnp.asarray(0.5 * np.random.default_rng(0).normal(size=(4, 26)))
        value, gradient = model.target(np.float64)(position)
        expected, slope = jax.vmap(jax.value_and_grad(plain))(position)
        np.testing.assert_allclose(value - value[0], expected - expected[0], rtol=1e-9)
        np.testing.assert_allclose(gradient, slope, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: load("breast_canser"), "no example called 'breast_canser'.*breast_cancer"),
        (lambda: load("logistic"), "no example called 'logistic'"),
        (lambda: load("sparse_logistic", rows=3), "rows"),
        (lambda: load("sparse_logistic", num_rows=0), "num_rows is 0"),
        (lambda: load("sparse_logistic", num_columns=2.5), r"num_columns is 2\.5"),
        (lambda: load("stochastic_volatility", num_times=1), "num_times is 1"),
        (lambda: load("neural_network", num_hidden=0), "num_hidden is 0"),
    ],
)
def test_refusals(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_shoal_offers_the_examples():
    assert shoal.examples.load is load
