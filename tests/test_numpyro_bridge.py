"""from_numpyro: the log density is NumPyro's own, data can be swapped, sites and plates arrive."""

import functools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import potential_energy, unconstrain_fn

import numpyro_models
import shoal
from shoal import from_numpyro

Y = np.array([1.0, 2.0, 0.5, 3.0])


def hierarchy(y=None, scale=5.0, num=4):
    mu = numpyro.sample("mu", dist.Normal(0, scale))
    tau = numpyro.sample("tau", dist.HalfCauchy(scale))
    with numpyro.plate("group", num):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.deterministic("double", 2 * theta)
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def dynamic(y):
    low = numpyro.sample("low", dist.Normal(0, 1))
    high = numpyro.sample("high", dist.TruncatedNormal(0, 1, low=low))
    numpyro.sample("between", dist.Uniform(low, high + 1))
    numpyro.sample("y", dist.Normal(high, 1), obs=y)


def improper(y):
    mu = numpyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    sd = numpyro.sample("sd", dist.ImproperUniform(constraints.positive, (), event_shape=(2,)))
    numpyro.factor("prior", -jnp.log(sd).sum())
    numpyro.sample("y", dist.Normal(mu, sd.sum()).expand([len(y)]), obs=y)


def many_supports(y):
    with numpyro.plate("outer", 2, dim=-2), numpyro.plate("inner", 3, dim=-1):
        w = numpyro.sample("w", dist.Dirichlet(jnp.ones(4)))
    cuts = numpyro.sample("cuts", dist.TransformedDistribution(dist.Normal(jnp.zeros(3), 1).to_event(1), _ordered()))
    chol = numpyro.sample("chol", dist.LKJCholesky(3, 2.0))
    rate = numpyro.sample("rate", dist.Beta(2, 3))
    numpyro.sample("y", dist.Normal(w.sum() + cuts.sum() + chol.sum() + rate, 1).expand([len(y)]), obs=y)


def _ordered():
    return dist.transforms.OrderedTransform()


def predictive(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(slope * x, 1), obs=y)
    numpyro.sample("next", dist.Normal(slope, 1))


MODELS = {
    "hierarchy": (hierarchy, (Y,), {}),
    "dynamic": (dynamic, (Y,), {}),
    "improper": (improper, (Y,), {}),
    "many_supports": (many_supports, (Y,), {}),
    "predictive": (predictive, (np.arange(4.0),), {"y": Y}),
    "decentred": (reparam(hierarchy, config={"theta": LocScaleReparam(0)}), (), {"y": Y}),
    "partial": (functools.partial(hierarchy, scale=2.0), (Y,), {}),
    "unobserved": (hierarchy, (), {}),
} | {name: entry[:3] for name, entry in numpyro_models.DOCUMENTED.items()}


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_log_density_is_minus_numpyros_potential_energy(name, x64):
    model_fn, args, kwargs = MODELS[name]
    dtype = np.float64 if x64 else np.float32
    with jax.enable_x64(x64):
        model = from_numpyro(model_fn, *args, **kwargs)
        target = model.target(dtype)
        position = jnp.asarray(numpyro_models.position(model.dim), dtype)
        value, gradient = eqx.filter_jit(lambda target, position: target(position))(target, position)

        as_jax = args, kwargs
        if name == "autoregression":  # NumPyro's scan cannot slice a numpy array.
            as_jax = jax.tree.map(jnp.asarray, as_jax)

        def energy(point):
            # By site, in the order of the vector.
            free, start = {}, 0
            for slot in model.layout.slots:
                free[slot.name] = point[start : start + slot.size].reshape(slot.free_shape)
                start += slot.size
            return potential_energy(numpyro.handlers.seed(model_fn, 0), *as_jax, free)

        expected, slope = jax.jit(jax.vmap(jax.value_and_grad(energy)))(position)
        np.testing.assert_allclose(value, -expected, rtol=1e-10 if x64 else 2e-4)
        scale = np.abs(slope).max()
        np.testing.assert_allclose(gradient, -slope, atol=scale * (1e-9 if x64 else 2e-4))
        assert value.dtype == gradient.dtype == dtype


@pytest.mark.parametrize("name", MODELS)
def test_positions_come_back_through_the_supports(name):
    model_fn, args, kwargs = MODELS[name]
    model = from_numpyro(model_fn, *args, **kwargs)
    position = np.asarray(numpyro_models.position(model.dim), np.float64)
    values = model.constrain(position)
    assert list(values) == [*model.parameter_names, *model.deterministic_names]
    np.testing.assert_allclose(
        model.unconstrain({name: values[name] for name in model.parameter_names}), position, atol=1e-6
    )


@pytest.mark.parametrize("name", numpyro_models.names())
def test_models_of_numpyros_documentation_give_finite_gradients(name):
    model = numpyro_models.documented(name)
    assert model.dim == numpyro_models.DOCUMENTED[name][3]
    value, gradient = model.target()(numpyro_models.position(model.dim))
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()


def test_unconstrain_is_numpyros():
    with jax.enable_x64(True):
        values = {"low": np.float64(-0.3), "high": np.float64(1.2), "between": np.float64(0.4)}
        expected = unconstrain_fn(dynamic, (Y,), {}, values)
    position = from_numpyro(dynamic, Y).unconstrain(values)
    np.testing.assert_allclose(position, [float(expected[name]) for name in values], rtol=1e-12)


def test_a_support_that_depends_on_another_site_is_kept():
    values = from_numpyro(dynamic, Y).constrain(np.random.default_rng(0).normal(size=(50, 3)) * 3)
    assert np.all(values["high"] > values["low"])
    assert np.all((values["between"] > values["low"]) & (values["between"] < values["high"] + 1))


# What arrives


def test_sites_plates_and_deterministic_quantities_arrive():
    model = from_numpyro(hierarchy, Y)
    assert model.parameter_names == ("mu", "tau", "theta")
    assert model.deterministic_names == ("double",)
    assert model.dims == {"theta": ("group",), "double": ("group",)}
    assert model.name == "hierarchy"
    values = model.constrain(np.zeros((2, 3, 6), np.float32))
    assert values["double"].shape == (2, 3, 4)
    assert model.coordinates[-1] == "theta[3]"
    given = from_numpyro(hierarchy, Y, dims={"theta": ("school",)}, coords={"school": list("abcd")}, name="schools")
    assert given.dims == {"theta": ("school",), "double": ("group",)}
    assert given.name == "schools"
    assert list(given.coords["school"]) == list("abcd")


def test_axes_of_nested_plates_and_events_have_names():
    model = from_numpyro(many_supports, Y)
    assert model.shapes["w"] == (2, 3, 4)
    assert model.dims == {"w": ("outer", "inner", "w_dim_2")}
    assert "cuts_base" in model.parameter_names or "cuts" in model.parameter_names


def test_plates_whose_names_would_clash_give_no_axes():
    def clash():
        with numpyro.plate("chain", 3):
            numpyro.sample("a", dist.Normal())

    assert from_numpyro(clash).dims == {}


def test_reparametrised_sites_come_back_as_deterministic():
    model = from_numpyro(*MODELS["decentred"][:1], y=Y)
    assert model.parameter_names == ("mu", "tau", "theta_decentered")
    assert set(model.deterministic_names) == {"theta", "double"}


def test_param_sites_and_keys_are_fixed():
    def model_fn(y):
        shift = numpyro.param("shift", jnp.array(2.0))
        noise = jax.random.normal(numpyro.prng_key())
        a = numpyro.sample("a", dist.Normal())
        numpyro.deterministic("fixed", shift + noise)
        numpyro.sample("y", dist.Normal(a + shift + 0 * noise, 1), obs=y)

    model = from_numpyro(model_fn, Y)
    assert model.parameter_names == ("a",)
    values = model.constrain(np.zeros((3, 1), np.float32))
    assert np.ptp(values["fixed"]) == 0
    value = model.target()(jnp.zeros((1, 1)))[0][0]
    expected = dist.Normal().log_prob(0.0) + dist.Normal(2.0, 1).log_prob(Y).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-6)


# Data


def test_arrays_are_data_by_argument_and_swap_without_compiling(compile_counter):
    model = from_numpyro(predictive, np.arange(4.0), y=Y)
    assert set(model.data) == {"x", "y"}
    evaluate = eqx.filter_jit(lambda target, position: target(position)[0])
    position = jnp.ones((2, 2))
    old = evaluate(model.target(), position)
    with compile_counter:
        new = np.asarray(evaluate(model.with_data(y=Y + 1).target(), position))
        rebuilt = np.asarray(evaluate(from_numpyro(predictive, np.arange(4.0), y=Y + 1).target(), position))
    assert compile_counter.count == 0
    np.testing.assert_array_equal(new, rebuilt)
    assert not np.allclose(old, new)


def test_equal_models_give_equal_targets_and_others_do_not():
    def built(*args, **kwargs):
        return from_numpyro(hierarchy, *args, **kwargs).target().log_density

    assert built(Y) == built(Y + 1)
    assert hash(built(Y)) == hash(built(Y + 1))
    assert built(Y, scale=2.0) == built(Y, scale=2.0)
    assert built(Y, scale=2.0) != built(Y, scale=3.0)
    assert built(Y, scale=2) != built(Y, scale=2.0)
    assert built(Y, 5.0) != built(y=Y, scale=5.0)
    assert built(Y, scale=np.float64(2.0)) == built(Y, scale=np.float64(2.0))
    assert built(Y, scale=jnp.array(2.0)) == built(Y, scale=jnp.array(2.0))
    assert built(Y, scale=jnp.array(2.0)) != built(Y, scale=jnp.array(3.0))


def test_nested_and_variadic_arguments():
    def model_fn(tables, *more, **others):
        a = numpyro.sample("a", dist.Normal())
        for name in ("x", "y"):
            numpyro.sample(name, dist.Normal(a, tables["sd"]), obs=tables[name])
        numpyro.sample("rest", dist.Normal(a + others["shift"], 1), obs=more[0] + others["z"])

    tables = {"y": Y, "sd": 2.0, "x": Y + 1}
    model = from_numpyro(model_fn, tables, Y, shift=1.0, z=Y)
    assert set(model.data) == {"tables", "more0", "z"}
    value = model.target()(jnp.zeros((1, 1)))[0][0]
    free = {"a": jnp.zeros(())}
    expected = potential_energy(model_fn, (tables, Y), {"shift": 1.0, "z": Y}, free)
    np.testing.assert_allclose(value, -expected, rtol=1e-6)
    swapped = model.with_data(tables={"x": Y, "y": Y, "sd": None})
    expected = potential_energy(model_fn, (tables | {"x": Y}, Y), {"shift": 1.0, "z": Y}, free)
    np.testing.assert_allclose(swapped.target()(jnp.zeros((1, 1)))[0][0], -expected, rtol=1e-6)


def test_indices_whose_values_the_model_computes_with_become_constants():
    model = numpyro_models.documented("hierarchical")
    assert set(model.data) == {"Weeks", "FVC_obs"}
    with pytest.raises(ValueError, match=r"given patient_code.*Weeks, FVC_obs|given patient_code"):
        model.with_data(patient_code=np.zeros(108, int))
    again = numpyro_models.documented("hierarchical")
    assert model.target().log_density == again.target().log_density


def test_arrays_whose_values_the_model_computes_with_become_constants():
    def model_fn(y):
        a = numpyro.sample("a", dist.Normal())
        if y.max() > 2:
            numpyro.sample("y", dist.Normal(a, float(y.std())), obs=y)

    model = from_numpyro(model_fn, Y)
    assert model.data is None
    assert np.isfinite(model.target()(jnp.zeros((1, 1)))[0]).all()
    with pytest.raises(ValueError, match=r"model_fn needs the values of its arguments.*constants"):
        model.with_data(y=Y)
    assert model.target().log_density == from_numpyro(model_fn, Y).target().log_density
    assert model.target().log_density != from_numpyro(model_fn, Y + 1).target().log_density


def test_masked_nan_is_kept_and_other_nan_refused():
    holes = Y.copy()
    holes[1] = np.nan

    def masked(y, seen):
        a = numpyro.sample("a", dist.Normal())
        with numpyro.handlers.mask(mask=seen):
            numpyro.sample("y", dist.Normal(a, 1), obs=jnp.where(seen, y, 0.0))

    model = from_numpyro(masked, holes, ~np.isnan(holes))
    assert np.isfinite(model.target()(jnp.zeros((1, 1)))[0]).all()
    model.with_data(y=holes)
    with pytest.raises(ValueError, match=r"data\['y'\]\[1\] is nan"):
        from_numpyro(hierarchy, holes)
    with pytest.raises(ValueError, match=r"data\['y'\]\[1\] is nan"):
        from_numpyro(hierarchy, Y).with_data(y=holes)


def test_numpy_arrays_closed_over_serve_double_precision_after_the_door():
    group = np.repeat(np.arange(4), 3)

    def model_fn():
        with numpyro.plate("groups", 4):
            a = numpyro.sample("a", dist.Normal())
        numpyro.sample("y", dist.Normal(a[group], 1), obs=jnp.zeros(12))

    model = from_numpyro(model_fn)
    position = model.unconstrain({"a": np.ones(4)})
    with jax.enable_x64(True):
        value = model.target(np.float64)(jnp.asarray(position[None]))[0]
    np.testing.assert_allclose(value, dist.Normal().log_prob(np.ones(16)).sum(), rtol=1e-6)


def test_values_come_back_where_numpy_arrays_closed_over_hold_the_model_in_single_precision():
    group = np.repeat(np.arange(4), 3)

    def model_fn():
        with numpyro.plate("groups", 4):
            a = numpyro.sample("a", dist.HalfNormal())
        numpyro.sample("y", dist.Normal(a[group], 1), obs=jnp.zeros(12))

    model = from_numpyro(model_fn)
    value = eqx.filter_jit(lambda target, position: target(position))(model.target(), jnp.ones((1, 4)))
    position = model.unconstrain({"a": np.full(4, 2.0)})
    np.testing.assert_allclose(position, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(model.constrain(position)["a"], 2.0, rtol=1e-6)
    assert np.isfinite(value[0]).all()


# Refusals


def _discrete(y):
    numpyro.sample("a", dist.Normal())
    k = numpyro.sample("k", dist.Categorical(jnp.ones(3) / 3), infer={"enumerate": "parallel"})
    n = numpyro.sample("n", dist.Poisson(2.0))
    numpyro.sample("y", dist.Normal(k + n, 1), obs=y)


def _subsampled(y):
    a = numpyro.sample("a", dist.Normal())
    with numpyro.plate("rows", len(y), subsample_size=2) as index:
        numpyro.sample("y", dist.Normal(a, 1), obs=y[index])


def _failing(y):
    numpyro.sample("a", dist.Normal())
    raise KeyError("here")


def _point():
    numpyro.sample("a", dist.Normal())
    numpyro.sample("d", dist.Delta(1.0))


def _observed(y):
    numpyro.sample("y", dist.Normal(), obs=y)


def _branching():
    a = numpyro.sample("a", dist.Normal())
    if a > 0:
        numpyro.sample("b", dist.Normal())


def _sphere():
    numpyro.sample("direction", dist.ProjectedNormal(jnp.zeros(3)))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: from_numpyro(_discrete, Y), "discrete latent sites: k, n.*MixtureSameFamily"),
        (lambda: from_numpyro(_subsampled, Y), "subsamples its plates: rows.*subsample_size"),
        (lambda: from_numpyro(_failing, Y), "_failing failed.*KeyError: 'here'"),
        (lambda: from_numpyro(hierarchy, Y, 5.0, 4, 7), "hierarchy failed.*TypeError"),
        (lambda: from_numpyro(_point), "samples d from a Delta"),
        (lambda: from_numpyro(_observed, Y), "no latent site"),
        (lambda: from_numpyro(_branching), "_branching cannot be traced: TracerBoolConversionError"),
        (lambda: from_numpyro(_sphere), "_sphere failed|direction"),
        (lambda: from_numpyro(3), "given 3.*NumPyro model"),
        (lambda: from_numpyro(hierarchy, np.zeros(3)), "site: 'y'.*shapes of its arguments"),
        (lambda: from_numpyro(hierarchy, Y, dims={"thet": ("x",)}), "'thet'.*no such quantity"),
        (lambda: from_numpyro(hierarchy, Y, coords={"group": [1]}), r"coords\['group'\].*length 4"),
        (lambda: from_numpyro(hierarchy).with_data(y=Y), "none of its arguments is an array"),
        (lambda: from_numpyro(hierarchy, Y).unconstrain({"mu": 0.0}), "mu, tau, theta"),
    ],
)
def test_refusals_name_the_site_and_say_what_to_do(build, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=words) as caught:
            build()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_it_is_the_same_class_of_model():
    assert type(from_numpyro(hierarchy, Y)) is shoal.Model
