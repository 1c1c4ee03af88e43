"""Structured likelihoods against NumPyro's distributions and plain autodiff: values, derivatives, what they cost."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import shoal
from shoal.glm import bernoulli_logit, categorical_logit, normal_identity, ordered_logistic, poisson_log
from shoal.glm.families import BERNOULLI
from shoal.glm.fused import log_prob

ROWS, COLUMNS, CLASSES, CHAINS = 23, 4, 3, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, COLUMNS))
LABELS = RNG.integers(0, CLASSES, ROWS)
OUTCOMES = RNG.integers(0, 2, ROWS).astype(float)
normal = lambda *shape: RNG.normal(size=(CHAINS, *shape))


def numpyro_normal(y, x, w, offset, scale):
    return dist.Normal(x @ w + offset, scale).log_prob(y).sum()


# Name: the likelihood, the same by NumPyro, y and x (those that are differentiated), parameters of every chain.
CASES = {
    "bernoulli": (
        bernoulli_logit,
        lambda y, x, w, offset: dist.Bernoulli(logits=x @ w + offset).log_prob(y).sum(),
        (OUTCOMES, X),
        (normal(COLUMNS), normal(ROWS)),
    ),
    "poisson": (
        poisson_log,
        lambda y, x, w, offset: dist.Poisson(jnp.exp(x @ w + offset)).log_prob(y).sum(),
        (LABELS.astype(float), X),
        (normal(COLUMNS), normal()),
    ),
    "normal": (
        lambda y, x, w, offset, scale: normal_identity(y, x, w, offset, scale=scale),
        numpyro_normal,
        (RNG.normal(size=ROWS), X),
        (normal(COLUMNS), normal(), np.exp(normal())),
    ),
    "normal, a scale for each row": (
        lambda y, x, w, offset, scale: normal_identity(y, x, w, offset, scale=scale),
        numpyro_normal,
        (RNG.normal(size=ROWS), X),
        (normal(COLUMNS), normal(ROWS), np.exp(normal(ROWS))),
    ),
    "categorical": (
        partial(categorical_logit, LABELS),
        lambda x, w, offset: dist.Categorical(logits=x @ w + offset).log_prob(LABELS).sum(),
        (X,),
        (normal(COLUMNS, CLASSES), normal(CLASSES)),
    ),
    "ordered": (
        lambda x, w, offset, cutpoints: ordered_logistic(LABELS, x, w, offset, cutpoints=cutpoints),
        lambda x, w, offset, cutpoints: dist.OrderedLogistic(x @ w + offset, cutpoints).log_prob(LABELS).sum(),
        (X,),
        (normal(COLUMNS), normal(ROWS), np.sort(normal(CLASSES - 1))),
    ),
}


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def of_every_chain(likelihood, data, params):
    """Values and all gradients, data shared, compiled; in the precision of JAX."""
    arguments = (*data, *params)
    both = jax.value_and_grad(likelihood, argnums=tuple(range(len(arguments))))
    axes = (*(None,) * len(data), *(0,) * len(params))
    return flat(jax.jit(jax.vmap(both, axes))(*map(jnp.asarray, arguments)))


def check_against(likelihood, oracle, data, params, tolerance):
    expected = of_every_chain(oracle, data, params)
    np.testing.assert_allclose(
        of_every_chain(likelihood, data, params), expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_numpyros(case, precision, tolerance):
    with jax.enable_x64(precision == "float64"):
        check_against(*CASES[case], tolerance)


@pytest.mark.parametrize("score", [lambda y, eta, _: (y - jnp.tanh(0.5 * eta), 0.5), lambda y, eta, _: (y - eta, 1.0)])
def test_a_mutant_is_caught(score):
    mutant = partial(log_prob, BERNOULLI._replace(score=score))
    wrong = lambda y, x, w, offset: mutant(y, x, w, offset, ())
    _, oracle, data, params = CASES["bernoulli"]
    with pytest.raises(AssertionError, match="Not equal"):
        check_against(wrong, oracle, data, params, 2e-6)


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives_are_those_of_autodiff(case):
    """Forward over reverse, in all arguments and across them."""
    likelihood, oracle, data, params = CASES[case]
    with jax.enable_x64(True):
        arguments = [jnp.asarray(argument) for argument in (*data, *(param[0] for param in params))]
        hessian = lambda of: flat(jax.jit(jax.hessian(of, tuple(range(len(arguments)))))(*arguments))
        expected = hessian(oracle)
        np.testing.assert_allclose(hessian(likelihood), expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


def test_extreme_predictors_are_finite(strict):
    """|η| of 10,000 in float32, on both sides of every class: the values are known."""
    x = jnp.asarray([[1e4], [-1e4], [1e4], [-1e4]], jnp.float32)
    y = jnp.asarray([0, 0, 1, 1])
    likelihoods = {
        "bernoulli": lambda w: bernoulli_logit(y, x, w),
        "poisson": lambda w: poisson_log(2 * y[1::2], x[1::2], w),
        "normal": lambda w: normal_identity(y, x, w, scale=1.0),
        "categorical": lambda w: categorical_logit(y, x, jnp.stack([0 * w, w], 1)),
        "ordered": lambda w: ordered_logistic(y, x, w, cutpoints=jnp.asarray([0.0, 1e3])),
    }

    @jax.jit
    def derivatives(w):
        return {name: (of(w), jax.grad(of)(w), jax.hessian(of)(w)) for name, of in likelihoods.items()}

    found = derivatives(jnp.ones(1, jnp.float32))
    for name, of_one in found.items():
        assert np.isfinite(flat(of_one)).all(), name
    values = {name: float(of_one[0]) for name, of_one in found.items()}
    assert values["bernoulli"] == values["categorical"] == -2e4
    assert values["ordered"] == -1e4 - 9e3 - 1e4
    assert values["poisson"] == pytest.approx(-2e4 - np.log(2))
    assert [float(found[name][1][0]) for name in ("bernoulli", "categorical", "poisson")] == [-2e4] * 3


# What a gradient costs


@pytest.fixture
def optimised():
    """The program that users get: what nobody reads is dropped."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def program(of, case):
    """What XLA makes of a function of the parameters of every chain."""
    likelihood, _, data, params = CASES[case]
    data = [jnp.asarray(item, jnp.float32) for item in data]
    made = jax.vmap(lambda data, *params: of(lambda *p: likelihood(*data, *p))(*params), (None, *(0,) * len(params)))
    return jax.jit(made).lower(data, *(jnp.asarray(param, jnp.float32) for param in params)).compile().as_text()


def count(text: str, operation: str) -> int:
    return len(re.findall(rf" {operation}\(", text))


TRANSCENDENTAL = ("tanh", "exponential", "exponential-minus-one", "logistic", "log", "log-plus-one", "power")
# Ordered classes choose their cutpoints by two small products more.
GRADIENT = {
    "bernoulli": {"dot": 2, "tanh": 1},
    "poisson": {"dot": 2, "exponential": 1},
    "normal": {"dot": 2},
    "normal, a scale for each row": {"dot": 2},
    "categorical": {"dot": 2, "exponential": 1},
    "ordered": {"dot": 4, "tanh": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_alone_is_two_products_and_the_score(case, optimised):
    text = program(jax.grad, case)
    found = {name: count(text, name) for name in ("dot", *TRANSCENDENTAL)}
    assert {name: times for name, times in found.items() if times} == GRADIENT[case]


def test_value_and_gradient_share_the_predictor(optimised):
    text = program(jax.value_and_grad, "bernoulli")
    assert (count(text, "dot"), count(text, "log-plus-one")) == (2, 1)


def test_the_factorial_is_of_the_data_alone():
    """Under vmap the sum of log y! has no axis of chains."""
    _, _, (y, x), (w, _) = CASES["poisson"]
    text = str(jax.make_jaxpr(jax.vmap(poisson_log, (None, None, 0)))(y, x, w))
    assert re.findall(r":f32\[([\d,]+)\] = (lgamma|exp)\b", text) == [
        (f"{CHAINS},{ROWS}", "exp"),
        (f"{ROWS}", "lgamma"),
    ]


# In models


def test_a_model_and_numpyros_factor_give_the_same():
    x, y = X.astype(np.float32), OUTCOMES.astype(np.float32)
    prior = lambda w: dist.Normal(0, 1).log_prob(w).sum()

    def with_factor(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([COLUMNS]).to_event(1))
        numpyro.factor("y", bernoulli_logit(y, x, w))

    mine = shoal.Model(
        params={"w": shoal.real(COLUMNS)},
        log_prior=lambda p: prior(p["w"]),
        log_likelihood=lambda p, rows: bernoulli_logit(rows["y"], rows["x"], p["w"]),
        data={"x": x, "y": y},
    ).target()
    bridged = shoal.from_numpyro(with_factor, x, y).target()
    position = jnp.asarray(RNG.normal(size=(5, COLUMNS)), jnp.float32)
    np.testing.assert_allclose(flat(mine(position)), flat(bridged(position)), rtol=1e-5)
    np.testing.assert_allclose(mine.gradient(position), mine(position)[1], rtol=1e-5, atol=1e-5)


def test_precision_is_the_wider_of_design_and_coefficients():
    single, double = np.zeros(COLUMNS, np.float32), np.zeros(COLUMNS)
    with jax.enable_x64(True):
        precision = lambda x, w: jax.eval_shape(lambda: bernoulli_logit(OUTCOMES, x, w)).dtype
        assert precision(X.astype(np.float32), double) == precision(X, single) == jnp.float64
        assert precision(X.astype(np.float32), single) == jnp.float32
        # Indicators and whole numbers are a design, too, in the precision of the coefficients.
        assert precision(X > 0, single) == precision(np.int8(10 * X), single) == jnp.float32


def test_observations_outside_of_the_support_that_a_program_is_given_are_nan():
    y = jnp.asarray(2 * OUTCOMES - 1)
    assert np.isnan(jax.jit(bernoulli_logit)(y, X, np.zeros(COLUMNS)))
    assert np.isnan(jax.jit(categorical_logit)(LABELS + 1, X, np.zeros((COLUMNS, CLASSES))))


# At the door

W, W_CLASSES = np.zeros(COLUMNS), np.zeros((COLUMNS, CLASSES))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bernoulli_logit(OUTCOMES, X[:, 0], W), r"x of shape \(23,\).*x is \[rows, columns\]"),
        (lambda: bernoulli_logit(OUTCOMES[1:], X, W), r"y of shape \(22,\).*one entry for each of the 23 rows"),
        (lambda: poisson_log(OUTCOMES, X, W[1:]), r"w of shape \(3,\).*one coefficient for each column of x: \[4\]"),
        (lambda: poisson_log(OUTCOMES, X, np.zeros((CHAINS, COLUMNS))), r"written for one point"),
        (lambda: bernoulli_logit(OUTCOMES, X, W, W), r"offset of shape \(4,\).*shape \(\) or \(23,\)"),
        (lambda: bernoulli_logit(OUTCOMES, X, 1j * W), r"w of type complex.*real numbers"),
        (lambda: bernoulli_logit(OUTCOMES, "x", W), r"x = 'x', but x is an array of real numbers"),
        (lambda: bernoulli_logit(2 * OUTCOMES - 1, X, W), r"y\[\d+\] = -1.*y is 0 or 1"),
        (lambda: poisson_log(OUTCOMES - 1, X, W), r"outside of the support, but y holds counts"),
        (lambda: normal_identity(OUTCOMES, X, W, scale=W), r"scale of shape \(4,\).*one for each row"),
        (lambda: categorical_logit(OUTCOMES, X, W_CLASSES), r"y of type float32.*y\.astype\(int\)"),
        (lambda: categorical_logit(LABELS, X, W), r"one coefficient for each column of x: \[4, classes\]"),
        (lambda: categorical_logit(LABELS, X, W_CLASSES[:, :1]), r"at least two classes"),
        (lambda: categorical_logit(LABELS, X, W_CLASSES, W), r"offset of shape \(4,\).*\(3,\) or \(23, 3\)"),
        (lambda: categorical_logit(LABELS + 1, X, W_CLASSES), r"= 3, the first of .*from 0 to 2"),
        (lambda: ordered_logistic(LABELS, X, W, cutpoints=0.0), r"cutpoints of shape \(\)"),
        (lambda: ordered_logistic(LABELS, X, W, cutpoints=np.zeros(0)), r"cutpoints of shape \(0,\)"),
        (lambda: ordered_logistic(LABELS, X, W, cutpoints=np.zeros(1)), r"from 0 to 1 with 1 cutpoints"),
        (lambda: ordered_logistic(OUTCOMES, X, W, cutpoints=np.zeros(1)), r"y of type float32"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
