"""The public contract of Model: what it computes, what it keeps, what it refuses and in which words."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import beta as beta_law
from jax.scipy.stats import dirichlet, gamma, norm
from numpyro.distributions import constraints

import shoal


def log_prior(params):
    return norm.logpdf(params["slope"]).sum() + gamma.logpdf(params["scale"], 2.0)


def log_likelihood(params, rows):
    return norm.logpdf(rows["y"], rows["x"] @ params["slope"], params["scale"]).sum()


def table(seed=0, rows=20):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(rows, 3)), "y": rng.normal(size=rows)}


PARAMS = {"scale": shoal.positive(), "slope": shoal.real(3)}


def regression(**changes):
    given = {"params": PARAMS, "log_prior": log_prior, "log_likelihood": log_likelihood, "data": table()}
    return shoal.Model(**(given | changes))


def density(log_density, params=None, **changes):
    return shoal.Model(params=params or {"a": shoal.real(2)}, log_density=log_density, **changes)


def total(params):
    return -0.5 * sum(jnp.sum(value**2) for value in params.values())


# What it computes


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_log_density_is_prior_plus_likelihood_plus_log_det(x64):
    dtype = np.float64 if x64 else np.float32
    with jax.enable_x64(x64):
        model = regression()
        target = model.target(dtype)
        position = jnp.asarray([[0.3, 1.0, -1.0, 0.5]], dtype)
        value, gradient = target(position)
        params = {"scale": jnp.exp(position[0, 0]), "slope": position[0, 1:]}
        rows = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), table())
        expected = log_prior(params) + log_likelihood(params, rows) + position[0, 0]
        np.testing.assert_allclose(value[0], expected, rtol=1e-13 if x64 else 1e-5)
        assert value.dtype == gradient.dtype == dtype
        assert gradient.shape == (1, 4)
        np.testing.assert_array_equal(target.gradient(position), gradient)
        assert {leaf.dtype for leaf in jax.tree.leaves(target.data)} == {np.dtype(dtype)}


def _integral(model, edges=12.0, points=401):
    """The integral of the density over R^dim, on a grid in double precision."""
    with jax.enable_x64(True):
        target = model.target(np.float64)
        axis = np.linspace(-edges, edges, points)
        grid = np.array(list(itertools.product(axis, repeat=model.dim)))
        values = jax.vmap(target.log_density, in_axes=(0, None))(jnp.asarray(grid), target.data)
        return float(jnp.sum(jnp.exp(values))) * (axis[1] - axis[0]) ** model.dim


@pytest.mark.parametrize(
    ("params", "log_law"),
    [
        ({"a": shoal.positive()}, lambda p: gamma.logpdf(p["a"], 3.0)),
        ({"a": shoal.unit_interval()}, lambda p: beta_law.logpdf(p["a"], 2.0, 3.0)),
        ({"a": shoal.interval(-1, 4)}, lambda p: beta_law.logpdf((p["a"] + 1) / 5, 2.0, 3.0) - np.log(5)),
        ({"a": shoal.simplex(3)}, lambda p: dirichlet.logpdf(p["a"], jnp.array([2.0, 3.0, 4.0]))),
        ({"a": shoal.ordered(2)}, lambda p: norm.logpdf(p["a"]).sum() + np.log(2)),
        ({"a": shoal.cholesky_corr(2)}, lambda p: jnp.log(0.5)),
        (
            {"a": shoal.param((), support=constraints.less_than(1.0)), "b": shoal.real()},
            lambda p: gamma.logpdf(1 - p["a"], 2.0) + norm.logpdf(p["b"]),
        ),
    ],
)
def test_densities_on_every_support_integrate_to_one(params, log_law):
    # The entry below the diagonal of a 2 × 2 factor is uniform on (-1, 1).
    assert _integral(density(log_law, params)) == pytest.approx(1, abs=2e-3)


def test_a_forgotten_jacobian_would_be_seen():
    model = density(lambda p: gamma.logpdf(p["a"], 3.0) - jnp.log(p["a"]), {"a": shoal.positive()})
    assert abs(_integral(model) - 1) > 0.1


# The forms of log_density


class Callable:
    def __call__(self, params):
        return total(params)

    def method(self, params, data):
        return total(params) + data.sum()


def with_default(params, data=None):
    return total(params) + (0.0 if data is None else data.sum())


def with_option(params, *, scale=1.0):
    return total(params) * scale


def with_rest(*args):
    return total(args[0]) + sum(data.sum() for data in args[1:])


def needs_data(params, data):
    return total(params) + data.sum()


class Learned(eqx.Module):
    weights: jax.Array

    def __call__(self, params):
        return total(params) + self.weights.sum()


ONES = np.ones(3)


@pytest.mark.parametrize(
    ("log_density", "data", "expected"),
    [
        (total, None, 0),
        (needs_data, ONES, 3),
        (with_default, None, 0),
        (with_default, ONES, 3),
        (with_option, None, 0),
        (with_rest, None, 0),
        (with_rest, ONES, 3),
        (Callable(), None, 0),
        (Callable().method, ONES, 3),
        (functools.partial(needs_data, data=ONES), None, 3),
        (functools.partial(with_option, scale=2.0), None, 0),
        (lambda params: total(params) + ONES.sum(), None, 3),
        (jax.jit(total), None, 0),
        (jax.jit(needs_data), ONES, 3),
        (Learned(jnp.ones(3)), None, 3),
        (Learned(jnp.ones(3)).__call__, None, 3),
    ],
)
def test_log_density_may_be_any_callable_with_or_without_data(log_density, data, expected):
    target = density(log_density, data=data).target()
    assert target(jnp.zeros((1, 2)))[0][0] == expected
    hash(target.log_density)


def test_data_may_be_any_pytree_for_log_density():
    data = {"counts": [1, 2, 3], "pair": (np.float32(2.0), np.array(True)), "empty": None}
    model = density(lambda p, d: total(p) + d["pair"][0] + d["counts"].sum(), data=data)
    assert model.data["counts"].tolist() == [1, 2, 3]
    assert model.target()(jnp.zeros((1, 2)))[0][0] == 8


def test_params_given_to_one_term_cannot_be_changed_for_the_next():
    def prior(params):
        params["scale"] = 0.0
        return jnp.zeros(())

    value = regression(log_prior=prior).target()(jnp.zeros((1, 4)))[0]
    assert np.isfinite(value).all()


# What it keeps


def test_what_it_says_about_itself():
    dims = {"slope": ("column",)}
    model = regression(dims=dims, coords={"column": ["a", "b", "c"]}, name="lines")
    assert model.dim == 4
    assert model.name == "lines"
    assert model.parameter_names == ("scale", "slope")
    assert model.deterministic_names == ()
    assert model.shapes == {"scale": (), "slope": (3,)}
    assert model.coordinates == ("scale", "slope[0]", "slope[1]", "slope[2]")
    assert model.dims == dims
    assert list(model.coords["column"]) == ["a", "b", "c"]
    for words in ("lines", "4 dimensions", "slope[3]", "data['x'] (20, 3)"):
        assert words in repr(model)
    assert "\n" not in repr(model)
    assert regression().name == "log_likelihood"
    matrix = density(total, {"w": shoal.real((2, 2)), "p": shoal.simplex(3)})
    assert matrix.coordinates == ("w[0, 0]", "w[0, 1]", "w[1, 0]", "w[1, 1]", "p[0]", "p[1]")


def test_data_keep_their_precision_and_targets_cast_floats_only():
    data = table() | {"group": np.arange(20), "flag": np.ones(20, bool), "half": np.ones(20, np.float16)}
    model = regression(data=data)
    assert model.data["x"].dtype == np.float64
    cast = model.target(np.float32).data
    assert {key: leaf.dtype.name for key, leaf in cast.items()} == {
        "x": "float32",
        "y": "float32",
        "half": "float32",
        "group": "int32",
        "flag": "bool",
    }
    assert model.target(np.float32) is model.target("float32")
    with jax.enable_x64(True):
        assert {leaf.dtype.name for leaf in model.target(np.float64).data.values()} == {
            "float64",
            "int64",
            "bool",
        }
        assert model.target(np.float32).data["x"].dtype == np.float32


def test_later_changes_of_the_users_arrays_do_not_reach_the_target():
    data = table()
    model = regression(data=data)
    before = np.array(model.target().data["y"])
    data["y"][:] = 7.0
    np.testing.assert_array_equal(model.target().data["y"], before)


def test_targets_of_equal_models_compare_equal_and_compile_once(compile_counter):
    first, second = (regression(params=dict(PARAMS), data=table(seed)).target() for seed in (0, 1))
    assert first.log_density == second.log_density
    assert hash(first.log_density) == hash(second.log_density)
    assert first.constrain == second.constrain
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert eqx.tree_equal(regression().target(), regression().target())
    other = regression(log_prior=lambda params: log_prior(params)).target()
    assert first.log_density != other.log_density
    evaluate = eqx.filter_jit(lambda target, position: target(position))
    position = jnp.ones((2, 4))
    jax.block_until_ready(evaluate(first, position))
    with compile_counter:
        jax.block_until_ready(evaluate(second, position))
    assert compile_counter.count == 0
    jax.block_until_ready(evaluate(other, position))


def test_with_data_swaps_data_without_compiling(compile_counter):
    model = regression(dims={"slope": ("column",)}, name="lines")
    evaluate = eqx.filter_jit(lambda target, position: target(position)[0])
    position = jnp.ones((2, 4))
    old = evaluate(model.target(), position)
    new = table(1)
    with compile_counter:
        swapped = model.with_data(new)
        partly = model.with_data(y=new["y"])
        values = [np.asarray(evaluate(other.target(), position)) for other in (swapped, partly)]
    assert compile_counter.count == 0
    expected = evaluate(regression(data=new).target(), position)
    np.testing.assert_array_equal(values[0], expected)
    assert not np.allclose(values[0], values[1])
    assert not np.allclose(values[0], old)
    assert swapped.dims == model.dims
    assert swapped.name == "lines"
    assert partly.data["x"] is model.data["x"]


def test_with_data_accepts_whole_numbers_for_floats_and_keeps_float64():
    model = regression(data={"x": table()["x"].astype(np.float32), "y": table()["y"]})
    swapped = model.with_data(x=table(1)["x"], y=np.arange(20))
    assert swapped.data["x"].dtype == np.float64
    assert swapped.data["y"].dtype == np.float64
    assert swapped.target().data["x"].dtype == np.float32


def test_numpy_arrays_closed_over_serve_double_precision_after_the_door():
    group, weight = np.repeat(np.arange(2), 3), np.full(6, 1 / 3)
    model = density(lambda params: -0.5 * jnp.sum(weight * params["a"][group] ** 2))
    with jax.enable_x64(True):
        value = model.target(np.float64)(jnp.ones((1, 2)))[0]
    assert abs(float(value[0]) + 1) < 1e-12


def test_a_target_made_while_something_is_traced_keeps_no_tracers():
    model = regression()
    jax.jit(lambda position: model.target()(position)[0])(jnp.ones((1, 4)))
    assert all(isinstance(np.asarray(leaf), np.ndarray) for leaf in model.target().data.values())


# To the supports and back

EVERY = {
    "a": shoal.real(2),
    "b": shoal.positive((2, 2)),
    "c": shoal.interval(-1, 3),
    "d": shoal.simplex(3),
    "e": shoal.ordered(3),
    "f": shoal.cholesky_corr(3),
}


@pytest.mark.parametrize("batch", [(), (5,), (3, 2), (0, 4)])
def test_constrain_and_unconstrain_are_inverse_with_leading_axes(batch):
    model = density(total, EVERY)
    position = np.random.default_rng(0).normal(size=(*batch, model.dim))
    values = model.constrain(position)
    assert list(values) == list(EVERY)
    for name, parameter in EVERY.items():
        assert values[name].shape == batch + parameter.shape
        assert values[name].dtype == np.float64
        assert isinstance(values[name], np.ndarray)
    again = model.unconstrain(values)
    assert again.shape == position.shape
    assert again.dtype == np.float64
    np.testing.assert_allclose(again, position, atol=1e-8)


def test_constrain_follows_the_precision_of_the_position():
    model = density(total, EVERY)
    values = model.constrain(np.zeros((2, model.dim), np.float32))
    assert {value.dtype.name for value in values.values()} == {"float32"}
    assert {value.dtype.name for value in model.constrain(np.zeros(model.dim, int)).values()} == {"float32"}
    again = model.unconstrain({name: np.float32(value) for name, value in values.items()})
    np.testing.assert_allclose(again, 0, atol=1e-5)


def test_values_of_float32_draws_come_back():
    model = density(total, EVERY)
    position = np.random.default_rng(1).normal(size=(500, model.dim)).astype(np.float32)
    np.testing.assert_allclose(model.unconstrain(model.constrain(position)), position, atol=2e-3)


# Refusals


def broken(params):
    return params["a"] @ jnp.ones(7)


def branching(params):
    return 1.0 if params["a"][0] > 0 else 0.0


NAN = table()
NAN["x"][3, 1] = np.nan
INFINITE = table()
INFINITE["y"][4] = np.inf


@pytest.mark.parametrize(
    ("build", "words"),
    [
        # Parameters
        (lambda: density(total, {"n": int}), r"params\['n'\].*Integer parameters cannot be sampled"),
        (lambda: density(total, {"n": 3}), r"params\['n'\] is 3.*shoal\.positive\(30\)"),
        (lambda: density(total, {"n": shoal.positive}), r"params\['n'\].*did you mean shoal\.positive\(\)"),
        (lambda: density(total, {"n": constraints.positive}), r"params\['n'\].*shoal\.param"),
        (lambda: density(total, {1: shoal.real()}), "name 1"),
        (lambda: shoal.Model(params={}, log_density=total), "at least one parameter"),
        (lambda: shoal.Model(params=shoal.real(), log_density=total), "params.*mapping"),
        (lambda: density(total, {"chain": shoal.real()}), "'chain'.*another name"),
        # Forms of the log density
        (lambda: shoal.Model(params=PARAMS), "no log density.*log_prior"),
        (lambda: regression(log_density=total), "log_prior and log_likelihood and log_density"),
        (lambda: regression(log_prior=None), "Model was given log_likelihood, but"),
        (lambda: regression(data=None), "log_likelihood.*without data"),
        (lambda: density(3.0), r"log_density is 3\.0"),
        (lambda: density(needs_data), "data= was not given"),
        (lambda: density(total, data=ONES), "data was given, but log_density takes only params"),
        (lambda: density(lambda: 0.0), "neither as log_density"),
        (lambda: density(lambda a, b, c: 0.0, data=ONES), "neither as log_density"),
        (lambda: regression(log_prior=needs_data), r"log_prior cannot be called as log_prior\(params\)"),
        (lambda: regression(log_likelihood=total), r"log_likelihood cannot be called.*rows"),
        # What they return
        (lambda: density(broken), r"log_density\(params\) failed.*a: float32\[2\].*TypeError"),
        (lambda: density(branching), r"log_density\(params\) failed.*TracerBoolConversionError"),
        (lambda: density(lambda p: p["b"]), "KeyError: 'b'"),
        (lambda: density(lambda p: p["a"]), r"shape \(2,\).*jnp\.sum"),
        (lambda: density(lambda p: jnp.sum(p["a"])[None]), r"shape \(1,\)"),
        (lambda: density(lambda p: None), "returned None.*return statement"),
        (lambda: density(lambda p: jnp.sum(p["a"] > 0)), "type int32.*floating-point"),
        (lambda: density(lambda p: jnp.sum(p["a"]) + 0j), "type complex64"),
        (lambda: density(lambda p: {"value": jnp.sum(p["a"])}), "returned a dict of 1 arrays"),
        (lambda: density(lambda p: (p["a"][0], p["a"][1])), "returned a tuple of 2 arrays"),
        (lambda: density(lambda p: "one"), "log_density"),
        (lambda: regression(log_prior=lambda p: p["slope"]), r"log_prior\(params\).*shape \(3,\)"),
        (
            lambda: regression(log_likelihood=lambda p, rows: rows["z"]),
            r"log_likelihood\(params, rows\) failed.*data.*KeyError",
        ),
        # Data
        (lambda: regression(data=table() | {"y": np.ones(19)}), r"\['x'\] \(20, 3\), data\['y'\] \(19,\)"),
        (lambda: regression(data=table() | {"n": 3.0}), r"one row per observation.*\['n'\] \(\)"),
        (lambda: regression(data={}), "no leaves at all"),
        (lambda: regression(data={"x": np.ones((0, 3)), "y": np.ones(0)}), "at least one row"),
        (lambda: regression(data=NAN), r"data\['x'\]\[3, 1\] is nan.*first of 1"),
        (lambda: regression(data=INFINITE), r"data\['y'\]\[4\] is inf"),
        (lambda: density(needs_data, data=np.array(np.nan)), "data is nan"),
        (lambda: density(needs_data, data={"k": jax.random.key(0)}), r"data\['k'\] is a random key"),
        (lambda: density(needs_data, data={"s": "text"}), r"data\['s'\] is a str"),
        (lambda: density(needs_data, data={"s": [[1, 2], [3]]}), r"data\['s'\] is a list"),
        (lambda: density(needs_data, data={"s": object()}), r"data\['s'\] is a object"),
        (lambda: density(needs_data, data=np.array([1j])), "complex"),
        (lambda: density(needs_data, data=np.array([2**40])), "beyond 32 bits"),
        # Names of axes
        (lambda: regression(dims={"slop": ("c",)}), "'slop'.*no such quantity.*slope"),
        (lambda: regression(dims={"slope": ("c", "d")}), r"names 2 axes.*shape \(3,\)"),
        (lambda: regression(dims={"slope": ("chain",)}), "'chain'.*axis of every result"),
        (lambda: regression(dims={"slope": ("scale",)}), "'scale'.*quantity of the model"),
        (lambda: regression(dims={"slope": (3,)}), "non-empty names"),
        (lambda: density(total, {"w": shoal.real((2, 2))}, dims={"w": ("c", "c")}), "different, non-empty"),
        (
            lambda: density(total, {"v": shoal.real(2), "w": shoal.real(3)}, dims={"v": "c", "w": "c"}),
            r"v \(length 2\) and of w \(length 3\) both 'c'",
        ),
        (lambda: regression(dims={"slope": ("c",)}, coords={"c": [1, 2]}), r"coords\['c'\].*length 3"),
        (lambda: regression(coords={"c": [1, 2]}), "'c', but no axis has this name"),
        # Later on
        (lambda: regression().constrain(np.zeros(3)), "4 unconstrained coordinates.*slope"),
        (lambda: regression().unconstrain({"scale": 1.0}), "given for: scale.*scale, slope"),
        (lambda: regression().unconstrain([1.0]), "list"),
        (lambda: regression().unconstrain({"scale": 1.0, "slope": 0.0, "c": 1}), "leave out"),
        (lambda: regression().unconstrain({"scale": 1.0, "slope": np.ones(2)}), r"slope.*shape \(2,\)"),
        (
            lambda: regression().unconstrain({"scale": np.ones(2), "slope": np.ones((3, 3))}),
            r"scale \(2,\), slope \(3,\)",
        ),
        (lambda: regression().unconstrain({"scale": -1.0, "slope": np.ones(3)}), "scale was given as -1.0"),
        (lambda: regression().unconstrain({"scale": 0.0, "slope": np.ones(3)}), "on its boundary"),
        (lambda: regression().unconstrain({"scale": 1.0, "slope": [0, np.nan, 0]}), r"slope\[1\].*nan"),
        (lambda: density(total, {"d": shoal.simplex(2)}).unconstrain({"d": [0.5, 0.6]}), "outside"),
        (lambda: density(total, {"e": shoal.ordered(2)}).unconstrain({"e": [1.0, 0.0]}), "outside"),
        (lambda: regression().target(np.float16), "float16.*float32 or float64"),
        (lambda: regression().target(np.float64), "enable_x64"),
        (
            lambda: regression(data=table() | {"big": np.full(20, 1e300)}).target(),
            r"data\['big'\].*precision",
        ),
        (lambda: regression().with_data(), "neither"),
        (lambda: regression().with_data(table(), y=ONES), "both"),
        (lambda: regression().with_data(z=ONES), "given z.*entries x, y"),
        (lambda: regression().with_data(y=ONES), r"data\['y'\] of shape \(3,\).*shape \(20,\)"),
        (lambda: regression().with_data(table(rows=21)), r"data\['x'\] of shape \(21, 3\)"),
        (lambda: regression().with_data({"x": ONES}), r"given data\['x'\], but the model's data are"),
        (lambda: regression().with_data(INFINITE), r"data\['y'\]\[4\] is inf"),
        (
            lambda: density(needs_data, data=np.arange(3)).with_data(np.full(3, 0.5)),
            "type float64.*type int",
        ),
        (lambda: density(total).with_data(ONES), "without data="),
    ],
)
def test_refusals_name_the_argument_and_say_what_to_do(build, words):
    with pytest.raises(ValueError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_the_users_own_error_is_chained():
    with pytest.raises(ValueError, match="log_density") as caught:
        density(broken)
    assert isinstance(caught.value.__cause__, TypeError)
