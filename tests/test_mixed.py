"""Positions and gradients in single, the log density in double: digits where single has none left."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import shoal
from shoal.diagnostics.digits import coarse
from shoal.dynamics.metrics import Diagonal
from shoal.kernels import HMC as HMCKernel
from shoal.kernels.bundle import Point
from shoal.mesh import Placement
from shoal.placing import targets_of
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import advance, begin, enter, report
from shoal.statistics import Moments

SCALE = np.array([0.5, 1.0, 2.0])
# At this size numbers of single precision are 8 apart.
LARGE = 1e8
SAMPLERS = {
    "hmc": shoal.HMC(step_size=0.4, num_steps=4),
    "chees": "chees",
    "nuts": "nuts",
    "mams": "mams",
    "meads": "meads",
    "auto": "auto",
}


def model(constant):
    return shoal.Model(
        params={"x": shoal.real(3)},
        log_density=lambda params, data: data["constant"] - 0.5 * jnp.sum((params["x"] / data["scale"]) ** 2),
        data={"scale": SCALE, "constant": np.float64(constant)},
        name="shifted",
    )


def sampled(constant, sampler, precision="mixed", **more):
    settings = {"num_chains": 64, "num_samples": 100, "seed": 1} | more
    if not isinstance(sampler, str):
        settings["num_warmup"] = 20
    return shoal.sample(model(constant), sampler=sampler, precision=precision, progress_bar=False, **settings)


def z_of_variances(result, chains=64):
    """Of the last draws, one of each chain, against the exact variances."""
    last = np.asarray(result.draws["x"], float)[:, -1] / SCALE
    return (np.square(last).mean(0) - 1) * (chains / 2) ** 0.5


def acceptance(result):
    return float(np.mean(result.sample_stats["acceptance_rate"]))


@pytest.mark.parametrize(
    "sampler", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("nuts", "mams", "meads"))) for name in SAMPLERS]
)
def test_a_constant_makes_no_difference(sampler):
    """A hundred million added to the log density: the right law, by 18 z-scores in all.

    None is beyond 4: by chance one is in one of 900 seeds.
    """
    mixed = sampled(LARGE, SAMPLERS[sampler])
    assert np.abs(z_of_variances(mixed)).max() < 4
    assert mixed.draws["x"].dtype == np.float32
    assert mixed.sample_stats["lp"].dtype == np.float64
    level = -0.5 * np.square(np.asarray(mixed.draws["x"], float) / SCALE).sum(-1)
    np.testing.assert_allclose(np.asarray(mixed.sample_stats["lp"]) - LARGE, level, atol=1e-5)
    assert "digits" not in {finding.kind for finding in mixed.findings}


def test_acceptances_are_those_without_the_constant():
    """Of 6,400 draws the same but for what the last bits make of chains; in single, with steps of 8, others."""
    plain, mixed = sampled(0.0, SAMPLERS["hmc"], "float32"), sampled(LARGE, SAMPLERS["hmc"])
    single = sampled(LARGE, SAMPLERS["hmc"], "float32")
    assert acceptance(mixed) == pytest.approx(acceptance(plain), abs=0.01)
    assert abs(acceptance(single) - acceptance(plain)) > 0.02
    finding = next(finding for finding in single.findings if finding.kind == "digits")
    assert not finding.blocking
    assert finding.number == 8.0


def test_the_log_density_is_judged_about_the_constant():
    """Of a hundred million single has no digit left for its standard deviation, the square root of 3/2.

    Within 4 errors of 6,400 draws, which are as good as 3,000 or more: off by chance once in 16,000 seeds.
    """
    made = model(LARGE)
    with jax.enable_x64(True):
        placement = Placement.of(64, 16, jax.devices()[:4])
        _, target = targets_of(made, np.float32, True, placement)
        tuning = HMCKernel.Tuning(jnp.float32(0.4), jnp.int32(4), Diagonal(jnp.asarray(SCALE, jnp.float32)))
        program = Program(target, HMCKernel(), statistics={"moments": Moments()})
        start = (SCALE * np.random.default_rng(0).normal(size=(64, 3))).astype(np.float32)
        run = enter(program, begin(program, placement, root_key(0), start, tuning), placement, 100)
        run, _ = advance(program, run, jnp.int32(100), placement, 1)
        said = report(program, run, placement, np.arange(64) // 8)["moments"]
    assert said["mean"][-1] == pytest.approx(LARGE - 1.5, abs=0.1)
    # The error of a standard deviation s of excess kurtosis 4, as of a chi-square law of 3: s sqrt((4 + 2) / 4n).
    assert said["sd"][-1] == pytest.approx(1.5**0.5, abs=4 * 1.5**0.5 * (6 / (4 * 3000)) ** 0.5)


@pytest.mark.parametrize(
    ("level", "dtype", "found"), [(-5e5, "float32", 0), (-5e6, "float32", 1), (-5e6, "float64", 0)]
)
def test_when_digits_are_missed(level, dtype, found):
    assert len(coarse(level, np.dtype(dtype).type)) == found
    assert coarse(float("nan"), np.float32) == ()


GOES_ON = ["hmc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nuts", "chees"))]


@pytest.mark.parametrize("sampler", GOES_ON)
def test_goes_on_bit_by_bit(sampler, tmp_path):
    whole = sampled(LARGE, SAMPLERS[sampler], num_samples=30)
    sampled(LARGE, SAMPLERS[sampler], num_samples=10, out=tmp_path / "run")
    longer = shoal.resume(tmp_path / "run", model(LARGE), num_samples=30, progress_bar=False)
    assert longer.settings["precision"] == "mixed"
    np.testing.assert_array_equal(longer.draws["x"], whole.draws["x"])
    np.testing.assert_array_equal(longer.sample_stats["lp"], whole.sample_stats["lp"])


def test_rows_over_devices_in_blocks():
    """In double, too, rows are split and summed: the level of 101 rows to digits that single does not have."""
    rng = np.random.default_rng(0)
    rows = {"x": rng.normal(size=101), "y": rng.normal(size=101)}
    likelihood = lambda params, rows: dist.Normal(rows["x"] * params["w"], 1e-3).log_prob(rows["y"]).sum()
    made = shoal.Model(
        params={"w": shoal.real()},
        log_prior=lambda params: -0.5 * params["w"] ** 2,
        log_likelihood=likelihood,
        data=rows,
    )
    settings = {"num_chains": 16, "tile": 4, "num_warmup": 0, "num_samples": 3, "progress_bar": False}
    sampler = shoal.HMC(step_size=1e-5, num_steps=2)
    drawn = shoal.sample(
        made, precision="mixed", mesh={"chains": 4, "data": 2}, row_block=7, sampler=sampler, **settings
    )
    w = np.asarray(drawn.draws["w"], float)[..., None]
    exact = (-0.5 * np.square((rows["y"] - rows["x"] * w) / 1e-3) - np.log(1e-3) - 0.5 * np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(drawn.sample_stats["lp"], exact - 0.5 * w[..., 0] ** 2, rtol=1e-12)


def test_a_leaf_holds_a_level_in_double():
    phase = tuple(jnp.full((2, 3), value, jnp.float32) for value in (1.0, 2.0, 3.0))
    error = jnp.array([4.0, np.inf], jnp.float32)
    with jax.enable_x64(True):
        for level in (np.array([1e8 + 1 / 3, -2.5]), np.array([1.0, -2.5], np.float32)):
            point = Point.of(phase, jnp.asarray(level), error)
            np.testing.assert_allclose(point.log_density, level, rtol=1e-14)
            assert point.log_density.dtype == level.dtype
            for part, whole in zip((*point.phase, point.energy_error), (*phase, error), strict=True):
                np.testing.assert_array_equal(part, whole)


def test_what_cannot_be_mixed_is_refused():
    blackjax = pytest.importorskip("blackjax")
    with pytest.raises(ValueError, match="BlackJAX evaluates the log density by itself"):
        sampled(
            0.0,
            shoal.from_blackjax(blackjax.hmc, step_size=0.1, inverse_mass_matrix=np.ones(3), num_integration_steps=3),
        )
    with pytest.raises(ValueError, match=r"sampled in .float32. or .float64."):
        shoal.sample_many(model(0.0), [{"scale": SCALE, "constant": 0.0}], precision="mixed")


def test_a_numpyro_model_is_mixed():
    y = np.array([0.3, -0.2, 1.1], np.float32)

    def normal(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    drawn = shoal.sample(
        shoal.from_numpyro(normal, y), precision="mixed", num_chains=16, num_samples=20, sampler="chees",
        num_warmup=50, progress_bar=False,
    )  # fmt: skip
    assert drawn.sample_stats["lp"].dtype == np.float64
