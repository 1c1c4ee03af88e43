"""The front door: what a call promises, and what it says to bad input."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from numpyro_models import documented, names

FEW = {"num_chains": 8, "num_warmup": 60, "num_samples": 20, "progress_bar": False}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)).astype(np.float32)
Y = (X @ [1.0, -2.0, 0.5] + RNG.normal(size=50)).astype(np.float32)


def log_prior(params):
    return -0.5 * jnp.sum(params["beta"] ** 2) - params["sigma"]


def log_likelihood(params, rows):
    error = (rows["y"] - rows["x"] @ params["beta"]) / params["sigma"]
    return jnp.sum(-0.5 * error**2 - jnp.log(params["sigma"]))


def regression(**changes):
    contract = {
        "params": {"beta": shoal.real(3), "sigma": shoal.positive()},
        "log_prior": log_prior,
        "log_likelihood": log_likelihood,
        "data": {"x": X, "y": Y},
    }
    return shoal.Model(**{**contract, **changes})


@pytest.fixture(scope="module")
def result():
    return shoal.sample(regression(), num_chains=64, num_warmup=200, num_samples=100, progress_bar=False)


def test_a_result_has_what_it_promises(result):
    assert result.draws["beta"].shape == (64, 100, 3)
    assert result.draws["sigma"].shape == (64, 100)
    assert (result.draws["sigma"] > 0).all()
    names = {"acceptance_rate", "diverging", "energy_error", "n_steps", "step_size", "lp"}
    assert set(result.sample_stats) == names
    assert all(values.shape == (64, 100) for values in result.sample_stats.values())
    assert result.converged, result.findings
    assert result.gradients.sampling == result.sample_stats["n_steps"].sum()
    assert result.settings["seed"] == 0
    assert result.settings["tile"] == 32
    np.testing.assert_array_equal(np.bincount(result.superchain), np.full(8, 8))


def test_summary_has_the_usual_columns(result):
    pytest.importorskip("pandas", reason="a summary is a pandas table")
    assert list(result.summary().columns) == ["mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"]


def test_posterior_of_a_regression(result):
    """Against the exact posterior mean of beta given each drawn sigma, averaged (Rao and Blackwell)."""
    sigmas = result.draws["sigma"].reshape(-1)[::50].astype(np.float64)
    gram, cross = X.T.astype(np.float64) @ X, X.T.astype(np.float64) @ Y
    exact = np.mean([np.linalg.solve(gram + s**2 * np.eye(3), cross) for s in sigmas], axis=0)
    chain_means = result.draws["beta"].mean(1, dtype=np.float64)
    error = chain_means.std(0, ddof=1) / 8
    assert np.abs((chain_means.mean(0) - exact) / error).max() < 5


def test_same_seed_same_draws_and_the_second_call_compiles_nothing(result, compile_counter):
    arguments = {"num_chains": 64, "num_warmup": 200, "num_samples": 100, "progress_bar": False}
    with compile_counter:
        again = shoal.sample(regression(), **arguments)
    assert compile_counter.count == 0
    np.testing.assert_array_equal(again.draws["beta"], result.draws["beta"])
    with compile_counter:
        other = shoal.sample(regression().with_data(x=X[::-1], y=Y), seed=5, **arguments)
    assert compile_counter.count == 0
    assert not np.array_equal(other.draws["beta"], result.draws["beta"])


def test_more_samples_begin_with_the_fewer(result):
    longer = shoal.sample(regression(), num_chains=64, num_warmup=200, num_samples=130, progress_bar=False)
    np.testing.assert_array_equal(longer.draws["beta"][:, :100], result.draws["beta"])


def test_tuning_of_another_run_skips_warmup(result):
    last = {name: values[:, -1] for name, values in result.draws.items()}
    again = shoal.sample(
        regression(),
        num_chains=64,
        num_samples=50,
        tuning=result.tuning,
        initial_positions=last,
        progress_bar=False,
    )
    assert again.gradients.warmup == 0
    assert again.settings["num_warmup"] == 0
    for name, values in result.tuning.items():
        np.testing.assert_array_equal(again.tuning[name], values)


def test_double_precision(result):
    double = shoal.sample(regression(), precision="float64", **FEW)
    assert double.draws["beta"].dtype == np.float64
    assert double.sample_stats["lp"].dtype == np.float64
    assert jnp.ones(()).dtype == np.float32, "double precision is left when the call returns"
    assert result.draws["beta"].dtype == np.float32


def test_hmc_set_by_hand():
    sampled = shoal.sample(regression(), sampler=shoal.HMC(step_size=0.1, num_steps=7), **FEW)
    assert (sampled.sample_stats["n_steps"] == 7).all()
    assert (sampled.sample_stats["step_size"] == np.float32(0.1)).all()
    assert sampled.gradients.warmup == 60 * 7 * 8


def test_superchains_share_starts():
    sampled = shoal.sample(
        regression(), num_chains=12, num_superchains=3, num_warmup=1, num_samples=5, progress_bar=False
    )
    np.testing.assert_array_equal(sampled.superchain, np.repeat([0, 1, 2], 4))


def test_initial_positions_that_are_equal_make_a_superchain():
    positions = np.repeat(RNG.normal(size=(2, 4)), [3, 5], axis=0)
    sampled = shoal.sample(regression(), initial_positions=positions, **FEW)
    np.testing.assert_array_equal(sampled.superchain, [0, 0, 0, 1, 1, 1, 1, 1])


def test_interrupt_keeps_the_draws(monkeypatch):
    """Ctrl-C while sampling: the draws so far come back, and they are those of a run that was let go on."""

    @contextlib.contextmanager
    def impatient(show):
        def report(chunk):
            if chunk.phase == "sampling" and chunk.done >= 5:
                raise KeyboardInterrupt

        yield report

    whole = shoal.sample(regression(), num_chains=64, num_warmup=60, num_samples=400, progress_bar=False)
    monkeypatch.setattr("shoal.sampling.progress", impatient)
    monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.0)  # single draws
    interrupted = shoal.sample(regression(), num_chains=64, num_warmup=60, num_samples=400)
    assert interrupted.interrupted
    draws = interrupted.draws["beta"]
    assert draws.shape[1] == 5
    np.testing.assert_array_equal(draws, whole.draws["beta"][:, :5])


def test_draws_on_disk_are_those_in_memory(tmp_path):
    pytest.importorskip("zarr", reason="draws on disk need Zarr")
    on_disk = shoal.sample(regression(), out=tmp_path / "run", **FEW)
    in_memory = shoal.sample(regression(), **FEW)
    for name, values in shoal.load(tmp_path / "run").draws.items():
        np.testing.assert_array_equal(values, in_memory.draws[name])
        np.testing.assert_array_equal(values, on_disk.draws[name])


@pytest.mark.parametrize("name", names())
def test_models_of_numpyro_documentation_sample(name):
    sampled = shoal.sample(documented(name), num_chains=32, num_warmup=300, num_samples=200, progress_bar=False)
    for name, values in sampled.draws.items():
        assert np.isfinite(values).all(), name
    assert sampled.converged, sampled.findings


# ------------------------------------------------------------------------------------------------ bad input


def raises(words: str, **arguments):
    model = arguments.pop("model", None)
    with pytest.raises(ValueError, match=words) as caught:
        shoal.sample(regression() if model is None else model, **{**FEW, **arguments})
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_number_of_chains(value):
    raises("num_chains=.*whole number", num_chains=value)


def test_numbers_of_draws():
    raises("num_samples=0", num_samples=0)
    raises("num_warmup=-1", num_warmup=-1)
    raises("num_warmup=0.*tuned in warmup", num_warmup=0)


def test_unknown_sampler():
    raises("sampler='nut'.*'chees', 'hmc'", sampler="nut")
    raises("sampler 'hmc' needs", sampler="hmc")


def test_settings_out_of_range():
    for make in (
        lambda: shoal.HMC(step_size=-0.1, num_steps=3),
        lambda: shoal.HMC(step_size=0.1, num_steps=0),
        lambda: shoal.ChEES(target_accept=1.0),
        lambda: shoal.ChEES(max_steps=2.5),
    ):
        with pytest.raises(ValueError, match="expected a"):
            make()


def test_other_arguments():
    raises("precision='float16'", precision="float16")
    raises("seed=-1", seed=-1)
    raises("tile=0", tile=0)
    raises("num_superchains=9 is more than num_chains=8", num_superchains=9)
    raises("expected a shoal.Model", model=log_prior)


def test_directory_that_holds_a_run(tmp_path):
    pytest.importorskip("zarr", reason="draws on disk need Zarr")
    shoal.sample(regression(), out=tmp_path / "run", **FEW)
    raises("already holds a run", out=tmp_path / "run")


def test_log_density_that_is_finite_nowhere():
    def nowhere(params):
        return -jnp.sum(params["a"] ** 2) + jnp.log(-jnp.exp(params["scale"]))

    model = shoal.Model(params={"a": shoal.real(2), "scale": shoal.real()}, log_density=nowhere)
    message = raises("the log density is nan", model=model)
    assert "all" in message or "8 of 8" in message


def test_parameter_to_blame_is_named():
    def narrow(params):
        return -jnp.sum(params["a"] ** 2) + jnp.log(params["width"] - 7.0)

    model = shoal.Model(params={"a": shoal.real(2), "width": shoal.unit_interval()}, log_density=narrow)
    raises("width", model=model)


def test_starts_that_are_drawn_again_are_a_finding():
    def half_line(params):  # declared real, but only the right half has a density
        return jnp.where(params["a"] > -1.0, -0.5 * params["a"] ** 2, jnp.nan)

    sampled = shoal.sample(shoal.Model(params={"a": shoal.real()}, log_density=half_line), **FEW)
    found = [finding for finding in sampled.findings if finding.kind == "starts redrawn"]
    assert len(found) == 1
    assert found[0].number >= 1


def test_initial_positions_of_wrong_shape_or_value():
    raises(r"shape \(8, 3\)", initial_positions=np.zeros((8, 3)))
    raises("initial_positions", initial_positions={"beta": np.zeros((8, 3)), "sigma": -np.ones(8)})


def test_tuning_of_another_sampler_or_model(result):
    raises("tuning has the fields", tuning={"step_size": np.float32(0.1)})
    wrong = {**result.tuning, "metric.scale": np.ones(7, np.float32)}
    raises("metric.scale", tuning=wrong)


def test_devices_are_all_used():
    sampled = shoal.sample(regression(), num_chains=128, num_warmup=1, num_samples=2, progress_bar=False)
    assert sampled.versions["devices"].startswith(f"{jax.local_device_count()} x")
