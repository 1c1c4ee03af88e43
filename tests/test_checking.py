"""A model before a run: what the check finds, in which parameter, and that right models are left in peace.

Every kind of finding has a model that provokes it, and a mutant of the detector that does not see it; what could be
taken for trouble and is none has a mutant that cries out. A slow test has it look at the benchmark panel.
"""

import dataclasses
import functools
import json
import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import norm
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import ExpTransform

import shoal
from shoal.checking import differences, jumps, maps, rounding, slopes, speed, starting
from shoal.checking.differences import STEPS, extrapolated
from shoal.checking.outcome import Check
from shoal.checking.probe import Probe
from shoal.checking.speed import Rate, Speed
from shoal.cli import main
from shoal.diagnostics.findings import Finding
from shoal.examples import catalogue, load

ROWS = np.random.default_rng(0).normal(size=20)
REALS = {"a": shoal.real(3), "s": shoal.positive()}


def bowl(params):
    """A log density with nothing wrong."""
    return -0.5 * jnp.sum(params["a"] ** 2) - params["s"]


def model(log_density, params=REALS, **rest):
    return shoal.Model(params=params, log_density=log_density, **rest)


# Models with one mistake each


@jax.custom_vjp
def square(x):
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, slope: (slope * x,))


@jax.custom_jvp
def cube_of_last(x):
    return x[2] ** 3


@cube_of_last.defjvp
def _(primals, tangents):
    # Off by a hundredth, in one coordinate.
    return cube_of_last(primals[0]), 3.03 * primals[0][2] ** 2 * tangents[0][2]


def positive_by(check=None, **wrong):
    """A constraint of a user's own, with a check of its own, whose map has one part wrong."""

    class Own(constraints._GreaterThan):  # pyright: ignore
        def __init__(self):
            super().__init__(0.0)

        def __call__(self, x):
            return x > 0 if check is None else check(x)

    own = type("OwnMap", (ExpTransform,), wrong)
    biject_to.register(Own)(lambda _: own())
    return shoal.param((2,), support=Own())


def split(likelihood):
    return shoal.Model(params=REALS, log_prior=bowl, log_likelihood=likelihood, data=ROWS)


def own(**wrong):
    return model(lambda p: -jnp.sum(p["a"] ** 2), {"a": positive_by(**wrong)}, name="own")


def stopped(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(mu, jax.lax.stop_gradient(sigma)), obs=y)


def logarithm(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(jnp.log(mu), 1.0), obs=y)


@functools.cache
def wrong(name):
    """A model with one mistake."""
    return {
        "vjp": lambda: split(lambda p, y: -0.5 * jnp.sum(square(y - p["a"][1]))),
        "jvp": lambda: model(lambda p: bowl(p) + cube_of_last(p["a"])),
        "stopped": lambda: shoal.from_numpyro(stopped, ROWS),
        "nan": lambda: split(lambda p, y: jnp.sum(norm.logpdf(y, jnp.log(p["a"][0] + 1.5)))),
        "logarithm": lambda: shoal.from_numpyro(logarithm, ROWS),
        "everywhere": lambda: model(lambda p: bowl(p) + jnp.log(-1.0 - p["a"][0] ** 2)),
        "infinite": lambda: model(lambda p: bowl(p) + jnp.where(p["a"][1] > 1.5, jnp.inf, 0.0)),
        "slope": lambda: model(lambda p: bowl(p) + jnp.where(p["a"][2] > 0, jnp.sqrt(p["a"][2]), 0.0)),
        "narrow": lambda: model(lambda p: bowl(p) + jnp.where(p["a"][0] > -1.5, 0.0, -jnp.inf)),
        "half": lambda: model(lambda p: bowl(p) + jnp.where(p["a"][0] + p["s"] > 3.0, 0.0, -jnp.inf)),
        "overflow": lambda: model(lambda p: bowl(p) - jnp.exp(50 * p["a"][0])),
        "improper": lambda: model(lambda p: -jnp.sum(p["a"][:2] ** 2) - p["s"]),
        "no prior": lambda: model(lambda p: -jnp.sum(p["a"] ** 2)),
        "round": lambda: model(lambda p: bowl(p) + jnp.round(3 * p["a"][1])),
        "change": lambda: split(lambda p, y: jnp.where(jnp.arange(20) < 20 * p["s"] / 4, y, -y).sum()),
        "sums": lambda: split(lambda p, y: 1e7 - 0.5 * jnp.sum((y - p["a"][1]) ** 2)),
        "log_det": lambda: own(log_abs_det_jacobian=lambda self, x, y, intermediates=None: 2 * x),
        "inverse": lambda: own(_inverse=lambda self, y: jnp.log(y) + 1e-3),
        "numpy": lambda: own(check=lambda x: np.asarray(x) > 0),
        "outside": lambda: own(
            __call__=lambda self, x: jnp.exp(x) - 0.5,
            _inverse=lambda self, y: jnp.log(y + 0.5),
        ),
    }[name]()


# kind, where, words, whether it blocks
FOUND = {
    "vjp": ("gradient", "a[1]", "that of log_likelihood", True),
    "jvp": ("gradient", "a[2]", "this unconstrained coordinate", True),
    "stopped": ("gradient", "sigma", "that of site y", True),
    "nan": ("not_finite", "a[0]", "log density is nan. It is log_likelihood", True),
    "logarithm": ("not_finite", "mu", "It is site y that is not finite", True),
    "everywhere": ("not_finite", "starts", "At 64 of 64 starting points the log density is nan", True),
    "infinite": ("not_finite", "a[1]", "log density is inf", True),
    "slope": ("not_finite", "a[2]", "the gradient is not finite", True),
    "narrow": ("not_finite", "a[0]", "log density is -inf", False),
    "half": ("not_finite", "a[0] and s", "log density is -inf", True),
    "overflow": ("not_finite", "a[0]", "-inf in single, and finite in double", False),
    "improper": ("improper", "a[2]", "is 0 at all 64", True),
    "no prior": ("improper", "s", "is 1 at all 64", True),
    "round": ("jump", "a[1]", "jumps by 1 at a[1] =", True),
    "change": ("jump", "s", "at s =", True),
    "sums": ("single", "a[1]", "terms log_likelihood", True),
    "log_det": ("jacobian", "a", "by differences of the map", True),
    "inverse": ("round_trip", "a", "off by 0.001", True),
    "numpy": ("unseen", "supports", "TracerArrayConversionError", False),
    "outside": ("support", "a", "outside its support", True),
}


@functools.cache
def probe_of(some, dtype):
    """Programs are compiled once for all that the tests ask of a model."""
    return Probe(some, dtype)


@pytest.fixture
def whole(monkeypatch):
    """`shoal.check` without rates."""
    monkeypatch.setattr("shoal.checking.check.Probe", probe_of)
    monkeypatch.setattr(speed, "measure", lambda *_: Speed((), None, math.nan))
    return shoal.check


@pytest.fixture
def check(whole, monkeypatch):
    """`shoal.check` without rates, and without what is compiled to look at the maps onto supports."""
    look, unseen = maps.look, maps.Maps(math.nan, math.nan, (), ())
    monkeypatch.setattr(maps, "look", lambda probe, some: look(probe, some) if probe.model.name == "own" else unseen)
    return whole


def kinds(seen: Check) -> set[str]:
    return {finding.kind for finding in seen.findings}


@pytest.mark.parametrize("name", FOUND)
def test_every_kind_of_trouble_is_found(check, name):
    kind, where, words, blocking = FOUND[name]
    seen = check(wrong(name))
    assert kinds(seen) == {kind}
    finding = next(iter(seen.findings))
    assert (finding.where, finding.blocking) == (where, blocking)
    assert words in finding.words
    assert finding.remedy
    assert seen.ok is not blocking
    # NaN is not equal to itself, and reads the same.
    assert repr(Finding.from_dict(json.loads(json.dumps(finding.as_dict())))) == repr(finding)


def test_the_numbers_of_a_wrong_derivative(check):
    (finding,) = check(wrong("jvp")).findings
    # Of 3.03 x² - x against 3 x² - x.
    assert slopes.RELATIVE < finding.number < 0.1
    (finding,) = check(wrong("vjp")).findings
    assert 0.4 < finding.number < 0.6


def test_all_parameters_with_wrong_derivatives_are_named(check):
    both = model(lambda p: -jnp.sum(square(p["a"])) - square(p["s"]))
    assert {finding.where.partition("[")[0] for finding in check(both).findings} == {"a", "s"}


# Detectors that do not see


def nowhere(*_):
    return []


def straight(probe, position):
    """The gradient is as good as the values, whatever it is."""
    value, gradient = Probe.at(probe, position)
    return value, np.zeros_like(gradient)


BLIND = {
    "vjp": (slopes, "RELATIVE", 10.0),
    "jvp": (slopes, "RELATIVE", 0.1),
    "stopped": (slopes, "directions", lambda probe, rng: iter(())),
    "nan": (starting, "kind_of", lambda value: "-inf" if math.isnan(value) else str(value)),
    "slope": (starting, "_not_finite", nowhere),
    "half": (starting, "MOST_LOST", 1.0),
    "overflow": (starting, "_not_finite", nowhere),
    "improper": (starting, "_improper", nowhere),
    "round": (jumps, "LINES", 0),
    "change": (jumps, "FELT", 100.0),
    "sums": (rounding, "FELT", 10.0),
    "log_det": (maps, "LOG_DET", {"float64": math.inf}),
    "inverse": (maps, "BACK", {"float64": 0.01}),
    "numpy": (maps, "_inside", lambda constraint, value: jnp.ones((), bool)),
    "outside": (maps, "_inside", lambda constraint, value: jnp.ones((), bool)),
}


@pytest.mark.parametrize("name", BLIND)
def test_a_blind_detector_would_show(monkeypatch, check, name):
    module, attribute, instead = BLIND[name]
    monkeypatch.setattr(module, attribute, instead)
    if module is maps:
        # What is patched is compiled in.
        monkeypatch.setattr("shoal.checking.check.Probe", Probe)
    with pytest.raises(AssertionError):
        test_every_kind_of_trouble_is_found(check, name)


# What is no trouble


@pytest.mark.parametrize("name", [example.name for example in catalogue()])
def test_the_examples_are_right(whole, name):
    # Smaller ones are the same models and take less time.
    smaller = {
        "gaussian_process": {"num_points": 10},
        "neural_network": {"num_rows": 20, "num_hidden": 4},
        "sparse_logistic": {"num_rows": 50, "num_columns": 10},
        "stochastic_volatility": {"num_times": 10},
    }
    seen = whole(load(name, **smaller.get(name, {})))
    assert seen.findings == ()
    assert seen.ok
    assert seen.finite == seen.starts == 64
    assert seen.coordinates == seen.dim
    assert seen.gradient_error < 1e-4
    assert seen.round_trip_error < 1e-12
    assert seen.log_det_error < 1e-9
    assert seen.rounding < 1e-3
    assert seen.gradient_rounding < 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the shared ports leave data files open
@pytest.mark.parametrize("seed", range(4))
def test_the_targets_of_the_panel_are_right(whole, targets, monkeypatch, seed):
    """A chaotic solver, necks, heavy tails, two modes, and starts whose log density is -1e11 among them."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    from panel.targets import TARGETS

    found = {name: whole(target.model(), seed=seed).findings for name, target in TARGETS.items()}
    assert len(found) == 40
    assert {name: some for name, some in found.items() if some} == {}


@functools.cache
def rough():
    """Kinks, some nearer to starting points of seed 0 than the shortest step: in the midst of all differences."""
    kinks = starting_points(dim=4).astype(np.float64)[:, :3] + 8e-6
    return model(lambda p: bowl(p) - jnp.sum(jax.nn.relu(p["a"] - kinks)) - jnp.sum(jnp.abs(p["a"][0] - ROWS)))


def starting_points(dim, seed=0):
    key = shoal.starts.key_of_starts(shoal.randomness.root_key(seed))
    return np.asarray(shoal.starts.points_of(key, jnp.int32(0), (64, dim), np.float32))


@functools.cache
def noisy():
    """A density that rounds to single inside, whatever it is evaluated in."""
    return model(lambda p: bowl(p) - jnp.sum((p["a"].astype(jnp.float32) * 30 - ROWS[0].astype(np.float32)) ** 2))


def test_a_kink_is_no_wrong_derivative(check, monkeypatch):
    assert check(rough()).findings == ()
    # Without a look nearby, or with tiny steps, the mean slope of both sides would be believed.
    monkeypatch.setattr(slopes, "TINY", np.ones(3))
    assert check(rough()).findings == ()
    monkeypatch.setattr(slopes, "NEARBY", 0)
    monkeypatch.setattr(slopes, "any", lambda others: True, raising=False)
    assert "gradient" in kinds(check(rough()))


def test_a_noisy_density_is_no_wrong_derivative(check, monkeypatch):
    assert "gradient" not in kinds(check(noisy()))
    silent = lambda probe, points, rng: differences.Noise(np.zeros(len(points)), np.zeros(points.shape))
    monkeypatch.setattr(slopes, "noise_at", silent)
    monkeypatch.setattr(slopes, "extrapolated", lambda some, noise: (some[:, -1], np.zeros(len(some))))
    assert "gradient" in kinds(check(noisy()))


def test_a_wild_density_has_no_wrong_derivative(check, monkeypatch):
    """Its derivative of 3e5 is right, and shows in steps far below 1e-5 alone."""
    wild = model(lambda p: bowl(p) + jnp.cos(3e5 * p["a"][0]))
    assert "gradient" not in kinds(check(wild))
    monkeypatch.setattr(slopes, "TINY", np.ones(3))
    assert "gradient" in kinds(check(wild))


def test_a_cliff_is_no_jump(check, monkeypatch):
    cliff = model(lambda p: bowl(p) - 50 * jax.nn.sigmoid(300 * p["a"][0]))
    assert check(cliff).findings == ()
    monkeypatch.setattr(jumps, "HALVINGS", 0)
    assert kinds(check(cliff)) == {"jump"}


def test_jumps_where_no_chain_stays_do_no_harm(check, monkeypatch):
    def log_density(p):
        far = jnp.abs(p["a"][0])
        return bowl(p) - 1e6 * jax.nn.relu(far - 1.0) - jnp.where(far > 1.5, jnp.round(50 * far), 75.0)

    deep = model(log_density)
    assert check(deep).findings == ()
    monkeypatch.setattr(jumps, "middle_of", lambda probe, starts: -math.inf)
    assert kinds(check(deep)) == {"jump"}


def test_starts_that_are_far_out_do_not_ask_for_double(check, monkeypatch):
    """There the log density is about -1e11, and chains soon are where it is -100."""
    far = model(lambda p: -0.5 * jnp.sum((1e5 * (p["a"] - 0.9)) ** 2) - p["s"])
    seen = check(far)
    assert seen.findings == ()
    assert seen.rounding < rounding.FELT
    monkeypatch.setattr(rounding, "climb", lambda *_: ([], True))
    assert kinds(check(far)) == {"single"}
    # Where there was no time to go to the mode, it is said and stands in nobody's way.
    monkeypatch.setattr(rounding, "climb", lambda *_: ([], False))
    cut = check(far)
    assert kinds(cut) == {"single"}
    assert cut.ok
    assert "near the starts" in cut.findings[0].words


def test_a_law_of_its_own_random_numbers_is_not_blamed_on_rounding(check, monkeypatch):
    """They are others in double."""
    numbers = lambda: jax.random.normal(jax.random.key(0), (3,))
    drawn = model(lambda p: -0.5 * jnp.sum((p["a"] - numbers()) ** 2) - p["s"])
    assert kinds(check(drawn)) == {"double"}
    assert check(drawn).ok
    monkeypatch.setattr(rounding, "RANDOM", ())
    assert kinds(check(drawn)) == {"single"}


@pytest.mark.parametrize("where", ["data far from the starts", "a wide prior"])
def test_a_straight_line_that_bends_far_out_is_not_improper(check, monkeypatch, where):
    laws = {
        "data far from the starts": lambda p: -jnp.abs(50.0 + ROWS - p["a"]).sum(),
        "a wide prior": lambda p: -0.5 * ((p["a"] - 1e7) / 1e6) ** 2,
    }
    law = model(laws[where], {"a": shoal.real()})
    assert "improper" not in kinds(check(law))
    monkeypatch.setattr(starting, "_straight_far_out", lambda *_: True)
    assert "improper" in kinds(check(law))


def test_names_with_brackets(check):
    """They are parameters of their own, and no coordinates of others."""
    seen = check(
        model(
            lambda p: -0.5 * p["w[0]"] ** 2 - p["w[1]"].sum() + jnp.where(p["w[1]"][0] > 1.3, 2.0, 0.0),
            {"w[0]": shoal.real(), "w[1]": shoal.positive(2), "w[2]": shoal.real()},
        )
    )
    assert {(finding.kind, finding.where) for finding in seen.findings} == {("jump", "w[1][0]"), ("improper", "w[2]")}


def test_large_correlation_matrices_come_back(monkeypatch):
    """At the starts themselves NumPyro's maps lose them."""
    # Their log|J|, of 120 coordinates, takes seconds to compile.
    monkeypatch.setattr(maps, "MOST_ENTRIES", 0)
    of_them = {"a": shoal.param((16, 16), support=constraints.corr_matrix)}
    probe = Probe(model(lambda p: p["a"].sum(), of_them), np.float64)
    points = starting_points(probe.model.dim)[:32].astype(np.float64)
    assert maps.look(probe, points).findings == ()
    monkeypatch.setattr(maps, "NEARER", 1.0)
    assert "round_trip" in {finding.kind for finding in maps.look(probe, points).findings}


def test_a_model_that_refuses_double_is_looked_at_in_single(check):
    def log_density(p):
        assert p["a"].dtype == jnp.float32
        return bowl(p)

    seen = check(model(log_density))
    assert kinds(seen) == {"double"}
    assert seen.ok


def test_a_derivative_that_is_a_little_off_stands_in_nobodys_way(check):
    """As of a solver whose adjoint is as good as its tolerance."""

    @jax.custom_jvp
    def loose(x):
        return x**2

    loose.defjvp(lambda primals, tangents: (primals[0] ** 2, (2 + 2e-3) * primals[0] * tangents[0]))
    seen = check(model(lambda p: -0.5 * loose(p["a"]).sum() - p["s"]))
    assert kinds(seen) == {"gradient"}
    assert seen.ok


def test_a_part_of_the_line_is_not_improper(check):
    """An exponential law with its support as a wall: straight wherever it is not zero."""
    half_line = model(lambda p: jnp.where(p["a"] > -1.0, -p["a"], -jnp.inf), {"a": shoal.real()})
    assert kinds(check(half_line)) == {"not_finite"}


SUPPORTS = {
    "interval": shoal.param((3,), support=constraints.interval(np.array([0.0, 1.0, 2.0]), 3.0)),
    "simplex": shoal.simplex((2, 3)),
    "factor": shoal.cholesky_corr(2),
}


def test_log_det_of_every_kind_of_support():
    every = Probe(model(bowl, SUPPORTS | REALS), np.float64)
    seen = maps.look(every, starting_points(every.model.dim))
    assert seen.findings == ()
    assert seen.names == (*SUPPORTS, "s")
    assert seen.log_det < 1e-9
    assert seen.back < 1e-9


def test_supports_that_depend_on_other_sites(whole):
    def between(y):
        low = numpyro.sample("low", dist.Normal(0, 1))
        high = numpyro.sample("high", dist.TruncatedNormal(0, 1, low=low))
        numpyro.sample("between", dist.Uniform(low, high + 1))
        numpyro.sample("y", dist.Normal(high, 1), obs=y)

    seen = whole(shoal.from_numpyro(between, ROWS))
    assert seen.findings == ()
    assert seen.supports == ("high", "between")


# Precision


def closed_over():
    rows = ROWS.copy()

    def normal():
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1))
        numpyro.sample("y", dist.Normal(0.5 * (mu + jax.lax.stop_gradient(mu)), sigma), obs=rows)

    return shoal.from_numpyro(normal)


@eqx.filter_jit
def evaluated(target, position):
    return target(position)


def test_a_check_is_in_the_way_of_no_run(check):
    """Its programs, in double first and in single then, do not hold arrays that the model closes over to either."""
    some = closed_over()
    assert kinds(check(some)) == {"gradient"}
    with jax.enable_x64(True):
        value, _ = evaluated(some.target(np.float64), jnp.zeros((1, 2), np.float64))
    assert value.dtype == np.float64


def test_a_model_that_is_held_to_single_is_looked_at_in_single(check, monkeypatch):
    some = closed_over()
    evaluated(some.target(), jnp.zeros((1, 2)))
    seen = check(some)
    assert [(finding.kind, finding.where) for finding in seen.findings] == [
        ("gradient", "mu"),
        ("double", "log density"),
    ]
    assert not seen.findings[1].blocking
    assert math.isnan(seen.rounding)
    with pytest.raises(ValueError, match="Cannot lower"):
        check(some, precision="float64")
    monkeypatch.setattr("shoal.checking.check.in_double", lambda model, required: (None, ()))
    assert kinds(check(some)) == {"gradient"}


def test_double_is_looked_at_for_a_run_in_double(check):
    seen = check(wrong("sums"), precision="float64")
    assert seen.findings == ()
    assert math.isnan(seen.rounding)


# Differences


def test_extrapolated_differences_are_exact_and_know_their_error():
    f, x = np.sin, np.array([0.3, 1.0, 2.5])[:, None]
    measured, error = extrapolated((f(x + STEPS) - f(x - STEPS)) / (2 * STEPS), np.full(3, 1e-16))
    np.testing.assert_allclose(measured, np.cos(x[:, 0]), atol=1e-10)
    assert (error < 1e-8).all()
    assert (np.abs(measured - np.cos(x[:, 0])) < 10 * error).all()
    rough = np.where(STEPS > 1e-3, 1.0, 5.0)[None]
    assert extrapolated(rough, np.zeros(1))[1][0] < 1.0
    # The slope of a jump is as uncertain as it is steep.
    steep, uncertain = extrapolated(1.0 / STEPS[None], np.zeros(1))
    assert uncertain[0] > 0.5 * steep[0]
    assert np.isinf(extrapolated(np.full((1, len(STEPS)), np.nan), np.zeros(1))[1][0])


# Rates


def test_rates_and_the_chains_that_pay():
    rates = [Rate(1, 10.0), Rate(32, 100.0), Rate(64, 190.0), Rate(128, 200.0), Rate(256, 205.0)]
    assert speed.recommended(rates) == 64
    assert speed.recommended(rates[:3]) is None
    assert speed.recommended(rates[:1]) is None
    assert speed.recommended([]) is None
    # One chain is another sampler's business, whatever its rate.
    assert speed.recommended([Rate(1, 100.0), *([Rate(32, 101.0), Rate(64, 102.0)])]) == 32
    # A plateau before a rise is no end.
    assert speed.recommended([Rate(32, 100.0), Rate(64, 101.0), Rate(128, 200.0), Rate(256, 201.0)]) == 128


def test_rates_are_measured_and_bounded_in_time(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.005)
    some = Probe(model(bowl), np.float32)
    every = speed.measure(some, np.zeros((2, 4), np.float32), math.inf)
    numbers = [rate.num_chains for rate in every.rates]
    assert numbers == sorted(numbers)
    assert {1, 32, 128} <= set(numbers)
    assert all(rate.gradients_per_second > 1000 for rate in every.rates)
    assert 0 < every.bytes_per_chain < 10_000
    late = speed.measure(some, np.zeros((2, 4), np.float32), 0.0)
    assert [rate.num_chains for rate in late.rates] == [1]
    assert speed.measure(some, np.zeros((0, 4), np.float32), math.inf).rates == ()


def test_more_chains_than_fit_are_not_tried(monkeypatch):
    from shoal.mesh import Placement

    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 1_000_000}

    placement = Placement.of(1024, devices=[Device()])
    assert placement.layout.tile == 1024
    assert speed.fits(placement, 700.0)
    assert not speed.fits(placement, 900.0)
    assert speed.fits(placement, math.nan)


def test_little_time_is_enough_for_a_look():
    some = model(lambda p: -jnp.sum(p["a"] ** 2), {"a": shoal.real(100)})
    seen = shoal.check(some, max_seconds=1e-6)
    assert seen.findings == ()
    assert 0 < seen.coordinates < some.dim
    assert len(seen.rates) == 1


# The front doors


def test_a_check_reads_well_and_is_json(whole):
    seen = whole(wrong("vjp"))
    text = repr(seen)
    assert text.startswith("Look again before a run: 1 thing stands in the way.\n  ! a[1]: ")
    assert all(len(line) <= 120 for line in text.splitlines())
    said = json.loads(json.dumps(seen.as_dict()))
    assert said["ok"] is False
    assert said["findings"][0]["where"] == "a[1]"
    assert said["verdict"] == seen.verdict
    right = whole(model(bowl, name="bowl"))
    assert right.verdict.startswith("Ready to sample")
    assert "bowl, 4 dimensions" in str(right)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"precision": "half"}, "precision='half'"),
        ({"max_seconds": 0}, "max_seconds=0"),
    ],
)
def test_refusals(given, words):
    with pytest.raises(ValueError, match=words):
        model(bowl).check(**given)


def test_only_models_are_checked():
    with pytest.raises(ValueError, match="from_numpyro"):
        shoal.check(stopped)  # pyright: ignore[reportArgumentType]


FILE = """
import jax, jax.numpy as jnp, shoal

right = shoal.Model(params={"x": shoal.real(2)}, log_density=lambda p: -jnp.sum(p["x"] ** 2))
wrong = shoal.Model(params={"x": shoal.real(2)}, log_density=lambda p: -p["x"][0] * jax.lax.stop_gradient(p["x"][0]))
"""


def test_the_command(tmp_path, capsys):
    pytest.importorskip("rich")
    (tmp_path / "models.py").write_text(FILE)
    assert main(["check", f"{tmp_path / 'models.py'}:right", "--max-seconds", "0.1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Ready to sample")
    assert "gradients/s" in said
    assert f"shoal sample {tmp_path / 'models.py'}:right" in said
    assert main(["check", f"{tmp_path / 'models.py'}:wrong", "--json", "--max-seconds", "0.1", "--seed", "2"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert {finding["kind"] for finding in found["findings"]} == {"gradient", "improper"}
    assert main(["check", "brest_cancer"]) == 2
    assert "Did you mean breast_cancer?" in " ".join(capsys.readouterr().err.split())


def test_the_next_command_is_the_run_that_was_looked_at(check):
    from shoal.cli.check import next_command

    seen = check(model(bowl))
    assert next_command(seen, "a b.py:m", 0) == "shoal sample 'a b.py:m'"
    more = dataclasses.replace(seen, recommended_chains=4096, precision="float64")
    assert next_command(more, "m.py:m", 3) == "shoal sample m.py:m --num-chains 4096 --precision float64 --seed 3"
