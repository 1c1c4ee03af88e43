"""Supports and parameters: round trips, log|J| against autodiff, precision, equality by value, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

import shoal
from shoal.models.parameters import Parameter

PARAMETERS = {
    "real": shoal.real(3),
    "scalar": shoal.real(),
    "positive": shoal.positive((2, 2)),
    "interval": shoal.interval(-1, 2.5, shape=3),
    "unit_interval": shoal.unit_interval(3),
    "simplex": shoal.simplex(4),
    "simplexes": shoal.simplex((3, 4)),
    "ordered": shoal.ordered(4),
    "cholesky_corr": shoal.cholesky_corr(4),
    "cholesky_corrs": shoal.cholesky_corr((2, 3, 3)),
    "greater_than": shoal.param(3, support=constraints.greater_than(1.5)),
    "less_than": shoal.param(3, support=constraints.less_than(np.array([1.0, 2.0, 3.0]))),
    "intervals": shoal.param(2, support=constraints.interval(np.zeros(2), np.array([1.0, 5.0]))),
    "zero_sum": shoal.param(4, support=constraints.zero_sum(1)),
    "lower_cholesky": shoal.param((3, 3), support=constraints.lower_cholesky),
    "positive_ordered": shoal.param(3, support=constraints.positive_ordered_vector),
    "softplus_positive": shoal.param(3, support=constraints.softplus_positive),
}


def _free(parameter, dtype, seed=0):
    values = np.random.default_rng(seed).normal(size=parameter.free_shape())
    return jnp.asarray(values.astype(dtype))


def _independent_entries(name, value):
    """Coordinates of the support that are free to move, the others following from them."""
    if name.startswith("simplex") or name == "zero_sum":
        return value[..., :-1].ravel()
    if name.startswith("cholesky"):
        rows, columns = np.tril_indices(value.shape[-1], -1)
        return value[..., rows, columns].ravel()
    if name == "lower_cholesky":
        rows, columns = np.tril_indices(value.shape[-1])
        return value[..., rows, columns].ravel()
    return value.ravel()


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_round_trip_keeps_shape_precision_and_support(name, x64):
    parameter, dtype = PARAMETERS[name], np.float64 if x64 else np.float32
    with jax.enable_x64(x64):
        free = _free(parameter, dtype)
        value, log_det = parameter.constrain_with_log_det(free)
        again = parameter.unconstrain(value)
        assert value.shape == parameter.shape
        assert value.dtype == again.dtype == log_det.dtype == dtype
        assert log_det.shape == ()
        np.testing.assert_allclose(again, free, atol=1e-9 if x64 else 2e-4)
        np.testing.assert_array_equal(parameter.constrain(free), value)
        if name not in ("zero_sum", "cholesky_corr", "cholesky_corrs", "simplex", "simplexes"):
            assert np.all(parameter.support.constraint()(value))


@pytest.mark.parametrize("name", [name for name in PARAMETERS if "cholesky" not in name])
def test_float32_stays_float32_in_x64_mode(name):
    # NumPyro's own transforms answer in float64 where a bound is a Python number, and fail for triangular
    # matrices; sampling in float32 leaves x64 mode beforehand.
    with jax.enable_x64(True):
        value, log_det = PARAMETERS[name].constrain_with_log_det(_free(PARAMETERS[name], np.float32))
        assert value.dtype == log_det.dtype == np.float32


@pytest.mark.parametrize("name", PARAMETERS)
def test_log_det_is_that_of_the_transform(name):
    parameter = PARAMETERS[name]
    with jax.enable_x64(True):
        free = _free(parameter, np.float64, seed=1)
        flat = free.ravel()

        def entries(point):
            return _independent_entries(name, parameter.constrain(point.reshape(free.shape)))

        jacobian = jax.jacfwd(entries)(flat)
        assert jacobian.shape == (flat.size, flat.size)
        expected = np.linalg.slogdet(np.asarray(jacobian))[1]
        if name == "zero_sum":
            # NumPyro counts an orthonormal map: no change of volume on the plane, where the first three
            # coordinates see it at an angle of cosine 1 / 2.
            expected += math.log(2)
        np.testing.assert_allclose(parameter.constrain_with_log_det(free)[1], expected, rtol=1e-9, atol=1e-9)


def test_supports_are_what_their_names_say():
    rng = np.random.default_rng(0)
    draws = {
        name: jnp.asarray(rng.normal(scale=2, size=(200, *PARAMETERS[name].free_shape())), np.float32)
        for name in PARAMETERS
    }
    values = {name: np.asarray(jax.vmap(PARAMETERS[name].constrain)(free)) for name, free in draws.items()}
    assert np.all(values["positive"] > 0)
    assert np.all((values["interval"] > -1) & (values["interval"] < 2.5))
    assert np.all((values["unit_interval"] > 0) & (values["unit_interval"] < 1))
    np.testing.assert_allclose(values["simplexes"].sum(-1), 1, rtol=1e-5)
    assert np.all(values["simplexes"] >= 0)
    assert np.all(np.diff(values["ordered"]) > 0)
    np.testing.assert_allclose(np.linalg.norm(values["cholesky_corr"], axis=-1), 1, rtol=1e-5)
    assert np.all(np.triu(values["cholesky_corr"], 1) == 0)
    assert np.all(values["greater_than"] > 1.5)
    assert np.all(values["less_than"] < [1, 2, 3])


@pytest.mark.parametrize(
    ("build", "shape", "free"),
    [
        (lambda: shoal.positive(30), (30,), (30,)),
        (shoal.positive, (), ()),
        (lambda: shoal.real([2, 3]), (2, 3), (2, 3)),
        (lambda: shoal.real(np.int64(3)), (3,), (3,)),
        (lambda: shoal.interval(0, 1, 4), (4,), (4,)),
        (lambda: shoal.simplex(3), (3,), (2,)),
        (lambda: shoal.ordered((5, 3)), (5, 3), (5, 3)),
        (lambda: shoal.cholesky_corr(3), (3, 3), (3,)),
        (lambda: shoal.cholesky_corr((5, 3, 3)), (5, 3, 3), (5, 3)),
    ],
)
def test_shapes(build, shape, free):
    assert build().shape == shape
    assert build().free_shape() == free


def test_parameters_compare_and_hash_by_value():
    assert shoal.interval(0, 1) == shoal.interval(0.0, 1.0)
    assert hash(shoal.interval(0, 1)) == hash(shoal.interval(0.0, 1.0))
    assert shoal.interval(0, 1) != shoal.interval(0, 2)
    assert shoal.positive() != shoal.real()
    assert shoal.positive(3) != shoal.positive()

    def bounded(high, low=constraints.greater_than):
        return shoal.param(2, support=low(high))

    assert bounded(np.ones(2)) == bounded(jnp.ones(2))
    assert hash(bounded(np.ones(2))) == hash(bounded(jnp.ones(2)))
    assert bounded(np.ones(2)) != bounded(np.zeros(2))
    assert bounded(1.0) != bounded(1.0, constraints.less_than)
    assert shoal.param(3, support=constraints.real_vector) == shoal.param(3, support=constraints.real_vector)
    assert isinstance(bounded(1.0), Parameter)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: shoal.real(0), r"real\(\.\.\.\).*shape 0.*at least 1"),
        (lambda: shoal.real(-2), "shape -2"),
        (lambda: shoal.positive(2.5), r"positive\(\.\.\.\).*2\.5"),
        (lambda: shoal.positive("three"), "'three'"),
        (lambda: shoal.positive(True), "True"),
        (lambda: shoal.simplex(1), "simplex needs a last axis of at least 2"),
        (lambda: shoal.simplex(()), "simplex needs a last axis"),
        (lambda: shoal.ordered(()), "ordered vector needs a last axis"),
        (lambda: shoal.cholesky_corr((2, 3)), "square, 2 × 2 or larger"),
        (lambda: shoal.cholesky_corr(1), "square, 2 × 2 or larger"),
        (lambda: shoal.interval(1, 0), r"interval\(1, 0\).*two finite numbers"),
        (lambda: shoal.interval(0, math.inf), "greater_than"),
        (lambda: shoal.interval(math.nan, 1), "two finite numbers"),
        (lambda: shoal.interval("a", [1]), "two finite numbers"),
        (lambda: shoal.interval(np.zeros(2), np.ones(2)), "bound per element"),
        (lambda: shoal.param(3, support=constraints.nonnegative_integer), "integer parameter.*continuous"),
        (lambda: shoal.param(3, support=constraints.boolean), "integer parameter"),
        (lambda: shoal.param(3, support="positive"), "'positive'.*NumPyro's constraints"),
        (lambda: shoal.param(3, support=constraints.dependent), "depends on another parameter"),
        (lambda: shoal.param(3, support=constraints.sphere), "cannot be reached"),
        (lambda: shoal.param((), support=constraints.simplex), "0 axes.*takes 1"),
        (lambda: shoal.param(3, support=constraints.greater_than(np.zeros(2))), "cannot be reached|leads to"),
        (lambda: shoal.param((2,), support=constraints.greater_than(np.zeros((3, 1)))), "broadcast"),
        (lambda: shoal.param((2, 3), support=constraints.corr_cholesky), "leads to|cannot be reached"),
        (lambda: shoal.param(3, support=constraints.complex), "leads to|cannot be reached"),
    ],
)
def test_refusals_name_what_came_and_what_is_expected(build, words):
    with pytest.raises(ValueError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)
