"""The front door: what a call promises, and what it says to bad input."""

import contextlib
import errno
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import shoal
from numpyro_models import documented, names
from shoal import kernels
from shoal.ensemble import Ensemble
from shoal.report import write
from shoal.results.archive import write_archive
from shoal.results.background import BackgroundDraws
from shoal.results.zarr_draws import ZarrDraws
from shoal.samplers.auto import Auto
from shoal.starts import dispersed
from shoal.warmup.stages import Stages

TUNED = {"sampler": "chees", "num_chains": 64, "num_warmup": 200, "progress_bar": False}
FEW = {"sampler": "chees", "num_chains": 8, "num_warmup": 60, "num_samples": 20, "progress_bar": False}
NOISE = np.random.default_rng(0).normal(size=(50, 4))
X = NOISE[:, :3].astype(np.float32)
Y = (X @ [1.0, -2.0, 0.5] + NOISE[:, 3]).astype(np.float32)


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
    return shoal.sample(regression(), **TUNED, num_samples=100)


def test_a_result_has_what_it_promises(result):
    assert result.draws["beta"].shape == (64, 100, 3)
    assert result.draws["sigma"].shape == (64, 100)
    assert (result.draws["sigma"] > 0).all()
    names = {"acceptance_rate", "diverging", "energy", "energy_error", "n_steps", "step_size", "lp"}
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
    arguments = {**TUNED, "num_samples": 100}
    with compile_counter:
        again = shoal.sample(regression(), **arguments)
    assert compile_counter.count == 0
    np.testing.assert_array_equal(again.draws["beta"], result.draws["beta"])
    with compile_counter:
        other = shoal.sample(regression().with_data(x=X[::-1], y=Y), seed=5, **arguments)
    assert compile_counter.count == 0
    assert not np.array_equal(other.draws["beta"], result.draws["beta"])


@pytest.mark.parametrize("num_chains", [128, pytest.param(512, marks=pytest.mark.slow)])
def test_a_run_compiles_a_program_once(num_chains, caplog, request):
    """Burn-in and sampling, whose program settles, too; scouts of few chains go by that of all, of many by theirs."""
    model = shoal.Model(
        params={"x": shoal.real(5)}, log_density=lambda p: -0.5 * ((3 * p["x"].sum()) ** 2 + p["x"] @ p["x"])
    )
    jax.config.update("jax_log_compiles", True)  # of all threads
    request.addfinalizer(lambda: jax.config.update("jax_log_compiles", False))
    with caplog.at_level("WARNING", "jax"):
        shoal.sample(model, num_chains=num_chains, num_samples=20, progress_bar=False)
    compiled = [record for record in caplog.records if "XLA compilation of jit(_advance)" in record.getMessage()]
    assert len(compiled) == {128: 2, 512: 3}[num_chains]


class Clean(kernels.HMC):
    """Its ensembles say nothing of densities that are not finite."""

    def init(self, position, target):
        there = super().init(position, target)
        return Ensemble(position, jnp.nan_to_num(there.log_density), jnp.nan_to_num(there.gradient))


class Cleaned(shoal.HMC):
    """A sampler of a user."""

    def kernel(self):
        return Clean()


@pytest.mark.parametrize("sampler", ["auto", "mams", Cleaned(0.1, 2)], ids=["auto", "mams", "own"])
def test_no_chain_begins_where_the_density_is_not_finite(sampler, monkeypatch):
    """Half of the points are on the wrong side, and are drawn again."""
    half = shoal.Model(
        params={"x": shoal.real(2)},
        log_density=lambda p: jnp.where(p["x"][0] > 0, -0.5 * jnp.sum((p["x"] - 4.0) ** 2), -jnp.inf),
    )
    seen = []
    monkeypatch.setattr("shoal.sampling.dispersed", lambda *given: seen.append(dispersed(*given)) or seen[0])
    asked = {"num_chains": 16, "num_superchains": 5, "num_warmup": 20, "num_samples": 5, "seed": 2}
    shoal.sample(half, sampler=sampler, progress_bar=False, **asked)
    assert (seen[0].position[:, 0] > 0).all()
    assert [finding.kind for finding in seen[0].findings] == ["starts redrawn"]


def test_compiling_counts_as_compiling(monkeypatch):
    """Nothing of note compiles in the seconds that count as warmup: only what converts a number or cuts an array."""
    seconds, counted = [], []

    def listen(event, duration, **_):
        # What compiles in another thread does so beside all that.
        if "backend_compile" in event and threading.current_thread() is threading.main_thread():
            seconds.append(duration)

    compiling = Stages._compiling

    @contextlib.contextmanager
    def watched(stages, key):
        before = len(seconds)
        with compiling(stages, key) as new:
            yield new
        counted.extend(seconds[before:] if new else ())

    monkeypatch.setattr(Stages, "_compiling", watched)
    warm_up = Auto.warm_up

    def warmed(*arguments):
        seconds.clear()
        made = warm_up(*arguments)
        seconds.append(np.nan)  # what follows is sampling
        return made

    monkeypatch.setattr(Auto, "warm_up", warmed)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        # 512 chains: scouts have a program of their own.
        shoal.sample(regression(), num_chains=512, num_samples=20, progress_bar=False)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    of_warmup = seconds[: int(np.flatnonzero(np.isnan(seconds))[0])]
    assert len(counted) >= 5
    assert sum(of_warmup) - sum(counted) < 0.05 * sum(of_warmup)


def test_more_samples_begin_with_the_fewer(result):
    longer = shoal.sample(regression(), **TUNED, num_samples=130)
    np.testing.assert_array_equal(longer.draws["beta"][:, :100], result.draws["beta"])


def test_tuning_of_another_run_skips_warmup(result):
    last = {name: values[:, -1] for name, values in result.draws.items()}
    again = shoal.sample(
        regression(),
        sampler="chees",
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
    sampled = shoal.sample(regression(), **FEW | {"sampler": shoal.HMC(step_size=0.1, num_steps=7)})
    assert (sampled.sample_stats["n_steps"] == 7).all()
    assert (sampled.sample_stats["step_size"] == np.float32(0.1)).all()
    assert sampled.gradients.warmup == 60 * 7 * 8


def test_superchains_share_starts():
    sampled = shoal.sample(
        regression(), num_chains=12, num_superchains=3, num_warmup=1, num_samples=5, progress_bar=False
    )
    np.testing.assert_array_equal(sampled.superchain, np.repeat([0, 1, 2], 4))


def test_initial_positions_that_are_equal_make_a_superchain(rng):
    positions = np.repeat(rng.normal(size=(2, 4)), [3, 5], axis=0)
    sampled = shoal.sample(regression(), initial_positions=positions, **FEW)
    np.testing.assert_array_equal(sampled.superchain, [0, 0, 0, 1, 1, 1, 1, 1])


# ------------------------------------------------------------------------------------------- ended too early

LONG = {"sampler": "chees", "num_chains": 64, "num_warmup": 60, "num_samples": 400}


@pytest.fixture(scope="module")
def whole():
    """The run that the tests below cut short."""
    return shoal.sample(regression(), progress_bar=False, **LONG)


@pytest.fixture
def after_five(monkeypatch):
    """Single draws in a chunk, each written before the next is made, and something that happens after five of them."""
    append = BackgroundDraws.append

    def append_and_wait(self, *chunk):
        append(self, *chunk)
        self.drain()
        self._check()

    def prepare(happens):
        monkeypatch.setattr(BackgroundDraws, "append", append_and_wait)

        @contextlib.contextmanager
        def watched(show):
            yield lambda chunk: happens() if chunk.phase == "sampling" and chunk.done == 5 else None

        monkeypatch.setattr("shoal.sampling.progress", watched)
        monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.0)

    return prepare


def fail_with(error):
    raise error


def failures(result):
    return [note for note in result.notes if note.kind == "failed"]


def same_beginning(result, whole, length=5):
    assert set(result.draws) == set(whole.draws)
    for mine, theirs in ((result.draws, whole.draws), (result.sample_stats, whole.sample_stats)):
        for name, values in mine.items():
            np.testing.assert_array_equal(values, theirs[name][:, :length])


def test_interrupt_keeps_the_draws(whole, after_five):
    """Ctrl-C while sampling: the draws so far come back, and they are those of a run that was let go on."""
    after_five(lambda: fail_with(KeyboardInterrupt()))
    interrupted = shoal.sample(regression(), **LONG)
    assert interrupted.interrupted
    assert interrupted.notes == ()
    same_beginning(interrupted, whole)


@pytest.mark.parametrize(
    ("error", "words", "remedy"),
    [
        (
            RuntimeError("\nINTERNAL: device lost.\nStack:\n..."),
            "with RuntimeError: INTERNAL: device lost. The",
            "Mend",
        ),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "RESOURCE_EXHAUSTED: Out of memory.", "fewer chains"),
        (MemoryError(), "with MemoryError. The draws", "fewer chains"),
        (PermissionError(13, "Permission denied"), "Permission denied.", "can be written"),
    ],
)
def test_a_failure_keeps_the_draws(whole, after_five, error, words, remedy):
    after_five(lambda: fail_with(error))
    failed = shoal.sample(regression(), **LONG)
    assert failed.interrupted
    assert not failed.converged
    (finding,) = failures(failed)
    assert finding.blocking
    assert words in finding.words
    assert finding.words.startswith("Sampling failed after 5 of 400 draws of each chain with ")
    assert "lost." not in finding.words.replace("device lost.", ""), "every draw that was made is there"
    assert remedy in finding.remedy
    same_beginning(failed, whole)
    assert failed.tuning.keys() == whole.tuning.keys()


def test_a_chunk_that_cannot_be_kept_is_said_to_be_lost(whole, monkeypatch, after_five):
    after_five(lambda: monkeypatch.setattr("shoal.drawing.MemoryDraws.append", lambda *_: fail_with(MemoryError())))
    failed = shoal.sample(regression(), **LONG)
    assert "could not be kept, 1 draw of each chain, is lost." in failures(failed)[0].words
    same_beginning(failed, whole)


def test_a_failure_before_the_first_draw_is_an_error(monkeypatch):
    monkeypatch.setattr("shoal.drawing.MemoryDraws.append", lambda *_: fail_with(MemoryError("no room")))
    with pytest.raises(MemoryError, match="no room"):
        shoal.sample(regression(), **FEW)


@pytest.fixture
def disk(monkeypatch):
    """A disk that refuses as many writes as it is told to."""
    zarr = pytest.importorskip("zarr", reason="draws on disk need Zarr")
    write, refusals = zarr.storage.LocalStore.set, []

    async def written_or_refused(store, key, value, *rest):
        if refusals:
            raise refusals.pop()
        return await write(store, key, value, *rest)

    def archived_or_refused(*archive):
        if refusals:
            raise refusals.pop()
        write_archive(*archive)

    monkeypatch.setattr("shoal.results.journal.write_archive", archived_or_refused)
    monkeypatch.setattr(zarr.storage.LocalStore, "set", written_or_refused)
    return lambda times: refusals.extend([OSError(errno.ENOSPC, "No space left on device")] * times)


def test_a_full_disk_keeps_what_was_written(whole, after_five, disk, tmp_path):
    after_five(lambda: disk(1))
    failed = shoal.sample(regression(), out=tmp_path / "run", **LONG)
    assert failed.interrupted
    (finding,) = failures(failed)
    assert "OSError: [Errno 28] No space left on device. The draws so far are kept." in finding.words
    assert "1 draw of each chain, is lost" in finding.words
    assert "Free space" in finding.remedy
    same_beginning(failed, whole)
    back = shoal.load(tmp_path / "run")
    assert back.notes == failed.notes
    assert back.interrupted
    same_beginning(back, whole)


def test_a_disk_that_stays_full_does_not_silence_the_findings(whole, after_five, disk, tmp_path):
    after_five(lambda: disk(1000))
    failed = shoal.sample(regression(), out=tmp_path / "run", **LONG)
    sampling, finishing = failures(failed)
    assert "Sampling failed after 5 of 400 draws" in sampling.words
    assert f"The run in '{tmp_path / 'run'}' could not be finished, with OSError" in finishing.words
    assert {sampling, finishing} <= set(failed.findings)
    same_beginning(failed, whole)
    back = shoal.load(tmp_path / "run")
    assert back.interrupted
    same_beginning(back, whole)


def test_a_count_that_cannot_be_written_loses_nothing(whole, after_five, monkeypatch, tmp_path):
    """The disk fills up between the draws and the attribute that counts them."""
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 0.0)
    zarr = pytest.importorskip("zarr", reason="draws on disk need Zarr")
    write = zarr.Group.update_attributes

    def refused(group, attributes):
        monkeypatch.setattr(zarr.Group, "update_attributes", write)
        raise OSError(errno.ENOSPC, "No space left on device")

    after_five(lambda: monkeypatch.setattr(zarr.Group, "update_attributes", refused))
    failed = shoal.sample(regression(), out=tmp_path / "run", **LONG)
    assert "after 6 of 400" in failures(failed)[0].words, failures(failed)
    assert "lost" not in failures(failed)[0].words
    same_beginning(failed, whole, 6)
    same_beginning(shoal.load(tmp_path / "run"), whole, 6)


def test_a_whole_run_that_cannot_be_finished(monkeypatch, disk, tmp_path):
    finish = ZarrDraws.finish
    monkeypatch.setattr(ZarrDraws, "finish", lambda self, result: (disk(1000), finish(self, result)))
    sampled = shoal.sample(regression(), out=tmp_path / "run", **FEW)
    assert not sampled.interrupted
    assert not sampled.converged
    assert "could not be finished" in failures(sampled)[0].words
    assert sampled.num_draws == shoal.load(tmp_path / "run").num_draws == FEW["num_samples"]


@pytest.mark.parametrize("writes", range(1, 9))
def test_ctrl_c_while_writing_a_chunk(whole, after_five, monkeypatch, tmp_path, writes):
    """Two variables and six statistics: in whichever of them it comes, what is counted is whole."""
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 0.0)
    zarr = pytest.importorskip("zarr", reason="draws on disk need Zarr")
    write, left = zarr.Array.__setitem__, [writes]

    def interrupted(array, place, values):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        write(array, place, values)

    after_five(lambda: monkeypatch.setattr(zarr.Array, "__setitem__", interrupted))
    cut = shoal.sample(regression(), out=tmp_path / "run", **LONG)
    assert cut.interrupted
    assert cut.notes == ()
    for result in (cut, shoal.load(tmp_path / "run")):
        same_beginning(result, whole, 6)


# ---------------------------------------------------------------------------------------------- draws on disk


def test_draws_on_disk_are_those_in_memory(tmp_path):
    pytest.importorskip("zarr", reason="draws on disk need Zarr")
    on_disk = shoal.sample(regression(), out=tmp_path / "run", **FEW)
    in_memory = shoal.sample(regression(), **FEW)
    for name, values in shoal.load(tmp_path / "run").draws.items():
        np.testing.assert_array_equal(values, in_memory.draws[name])
        np.testing.assert_array_equal(values, on_disk.draws[name])


def in_a_scope(y):
    """A site, an axis and a deterministic site that NumPyro calls `school/...`, and a site that is called `school`."""
    with numpyro.handlers.scope(prefix="school"):
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        with numpyro.plate("place", 3):
            theta = numpyro.sample("theta", dist.Normal(0.0, tau))
        slopes = numpyro.sample("slopes", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.deterministic("twice", 2 * theta)
    shift = numpyro.sample("school", dist.Normal(0.0, 1.0))
    numpyro.sample("school.tau", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(theta + slopes.sum() + shift, 1.0), obs=y)


@pytest.mark.parametrize("on_disk", [False, True])
def test_names_with_a_slash(tmp_path, on_disk):
    model = shoal.from_numpyro(in_a_scope, Y[:3], coords={"school/place": ["Ayr", "Bath", "Cork"]})
    if on_disk:
        pytest.importorskip("zarr", reason="draws on disk need Zarr")
    sampled = shoal.sample(model, out=tmp_path / "run" if on_disk else None, **FEW)
    assert {"school", "school/tau", "school.tau", "school/twice"} <= set(sampled.draws)
    assert sampled.labels("school/theta") == ["school/theta[Ayr]", "school/theta[Bath]", "school/theta[Cork]"]
    for package in ("zarr", "pandas", "xarray"):
        pytest.importorskip(package, reason="saves, a summary, and a DataTree")
    results = [sampled, *([shoal.load(tmp_path / "run")] if on_disk else [])]
    sampled.save(tmp_path / "saved")
    results.append(shoal.load(tmp_path / "saved"))
    for result in results:
        assert result.summary().equals(sampled.summary())
        assert result.findings == sampled.findings
        assert result.parameters == sampled.parameters
        posterior = result.to_datatree()["posterior"]
        assert posterior["school.theta"].dims == ("chain", "draw", "school.place")
        assert posterior["school.place"].values.tolist() == ["Ayr", "Bath", "Cork"]
        assert posterior["school.slopes"].dims == ("chain", "draw", "school.slopes_dim_0")
        for name, plain in {"school": "school", "school.tau": "school.tau", "school/tau": "school_tau"}.items():
            np.testing.assert_array_equal(posterior[plain], sampled.draws[name])


def test_report_of_names_with_a_slash(tmp_path):
    pytest.importorskip("matplotlib", reason="a report has figures")
    write(shoal.sample(shoal.from_numpyro(in_a_scope, Y[:3]), **FEW), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "school/tau" in page
    assert "school/theta[2]" in page


# Compiling them is most of it; their gradients are looked at in test_numpyro_bridge.py.
LONG_TO_COMPILE = ("autoregression", "cholesky_correlation", "eight_schools", "gaussian_process")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG_TO_COMPILE)) for name in names()]
)
def test_models_of_numpyro_documentation_sample(name):
    # Of the hierarchical one two runs in 32 end with a chain in the neck, and say so: not with this seed.
    sampled = shoal.sample(documented(name), num_chains=32, num_samples=200, seed=1, progress_bar=False)
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
    raises("sampler='nut'.*'auto', 'chees', 'hmc'", sampler="nut")
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
    raises("holds another run", out=tmp_path / "run", seed=1)


def test_log_density_that_is_finite_nowhere():
    def nowhere(params):
        return -jnp.sum(params["a"] ** 2) + jnp.log(-jnp.exp(params["scale"]))

    model = shoal.Model(params={"a": shoal.real(2), "scale": shoal.real()}, log_density=nowhere)
    message = raises("the log density is nan", model=model)
    assert "all" in message or "8 of 8" in message


@pytest.mark.parametrize("name", ["width", "width[0]"])
def test_parameter_to_blame_is_named(name):
    def narrow(params):
        return -jnp.sum(params["a"] ** 2) + jnp.sqrt(params[name] - 7.0)

    model = shoal.Model(params={"a": shoal.real(2), name: shoal.unit_interval()}, log_density=narrow)
    raises(rf"{re.escape(name)} \(there {re.escape(name)} = ", model=model)


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
