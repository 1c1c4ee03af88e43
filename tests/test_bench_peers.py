"""Shoal beside its peers: the same law by all, gradients counted, ratios and times reckoned, what is missing said."""

import json
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

import shoal
from shoal.bench.peers import gradients, judging, measuring, posteriors, recipes, rounds, starting
from shoal.bench.peers.cell import joined
from shoal.bench.peers.hmc import Problem
from shoal.cli.bench_peers import peers as command

MEAN, SD = np.array([1.0, -2.0, 0.5]), np.array([0.7, 1.0, 1.4])
CHAINS, DRAWS = 64, 40
# |z| of a normal number beyond 5 once in 1.7 million: with the twelve checks of each test, once in 140,000 seeds.
BOUND = 5.0
PEERS = [name for name in gradients.CONTENDERS if name != "shoal"]


def gaussian(log_density=None):
    def usual(z):
        return -0.5 * jnp.sum(((z - MEAN) / SD) ** 2)

    density = log_density or usual
    return shoal.Model(params={"z": shoal.real(3)}, log_density=lambda params: density(params["z"]))


def problem(model, chains=CHAINS, draws=DRAWS, steps=8, seed=0, step_size=0.25):
    start = MEAN + SD * np.random.default_rng(1).standard_normal((chains, 3))
    return Problem(model.target(np.dtype(np.float32)), start.astype(np.float32), step_size, steps, draws, seed)


def position(block):
    """`[draws, chains, dim]` of whoever made it, on one device or on several."""
    made = np.asarray(block["z"] if isinstance(block, dict) else block)
    return made if made.ndim == 3 else np.concatenate(made, axis=1)


def z_scores(draws):
    """Of means and variances by chain, which are independent: chains start from exact draws."""
    x = draws.astype(np.float64)
    scores = []
    for values, truth in (((x - MEAN) / SD, 0.0), (((x - MEAN) / SD) ** 2, 1.0)):
        by_chain = values.mean(axis=0)
        scores.append((by_chain.mean(axis=0) - truth) / (by_chain.std(axis=0, ddof=1) / np.sqrt(by_chain.shape[0])))
    return np.concatenate(scores)


def blocks_of(name, task):
    contender = gradients.CONTENDERS[name]
    if name.startswith("blackjax"):
        pytest.importorskip("blackjax", reason="the peer BlackJAX: pip install 'shoal[peers]'")
    return contender.blocks(task, jax.local_device_count() if contender.everywhere else 1)


@pytest.mark.parametrize("name", gradients.CONTENDERS)
def test_everybody_draws_from_the_same_law(name):
    blocks = blocks_of(name, problem(gaussian()))
    draws = np.concatenate([position(next(blocks)) for _ in range(2)])
    assert draws.shape == (2 * DRAWS, CHAINS, 3)
    assert np.abs(z_scores(draws)).max() < BOUND
    assert len(np.unique(draws[:, :, 0])) > DRAWS * CHAINS  # chains differ, and move on from block to block


@pytest.mark.parametrize("name", gradients.CONTENDERS)
def test_a_wrong_law_would_show(name):
    wrong = gaussian(lambda z: -0.5 * jnp.sum(((z - MEAN) / (1.25 * SD)) ** 2))
    blocks = blocks_of(name, problem(wrong))
    draws = np.concatenate([position(next(blocks)) for _ in range(2)])
    assert np.abs(z_scores(draws)).max() > BOUND


@pytest.mark.parametrize("name", gradients.CONTENDERS)
def test_gradients_are_as_many_as_are_counted(name):
    calls = []

    @jax.custom_vjp
    def density(z):
        return -0.5 * jnp.sum(z**2)

    def backward(z, cotangent):
        jax.debug.callback(calls.append, z[0])
        return (-cotangent * z,)

    density.defvjp(lambda z: (density(z), z), backward)
    task = problem(gaussian(density), chains=8, draws=3, steps=5)
    blocks = blocks_of(name, task)
    next(blocks)
    jax.effects_barrier()
    before = len(calls)
    next(blocks)
    jax.effects_barrier()
    # Shoal's tile of 8 chains leaves no row to fill up.
    assert task.gradients == 5 * 3 * 8
    assert len(calls) - before == task.gradients


def test_ratios_are_taken_within_a_repeat_against_the_peer_of_the_best_median():
    rates = {"shoal": [10.0, 20.0, 40.0], "blackjax": [5.0, 5.0, 5.0], "numpyro_pmap": [2.0, 8.0, 10.0]}
    found = gradients.compared(rates)
    assert found["best"] == {"peer": "numpyro_pmap", "ratio": 4.0, "smallest": 2.5, "largest": 5.0}
    assert found["best_usual"] == {"peer": "blackjax", "ratio": 4.0, "smallest": 2.0, "largest": 8.0}
    assert gradients.compared({"shoal": [1.0]}) == {"best": None, "best_usual": None}


def test_rates_count_whole_blocks_in_turns(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(gradients.time, "perf_counter", lambda: now[0])

    def blocks(name, seconds):
        while True:
            now[0] += seconds
            order.append(name)
            yield None

    rates = gradients.interleaved({"a": blocks("a", 0.5), "b": blocks("b", 2.0)}, 100, 2, 1.0)
    assert rates == {"a": [200.0, 200.0], "b": [50.0, 50.0]}
    assert order == ["a", "a", "b"] * 2


def test_a_missing_package_leaves_its_rows_out_and_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "blackjax", None)
    some = {name: gradients.CONTENDERS[name] for name in ("blackjax", "numpyro")}
    works, missing = gradients.ready(problem(gaussian(), chains=4, draws=1, steps=1), some)
    assert list(works) == ["numpyro"]
    assert "package 'blackjax'" in missing["blackjax"]
    assert "shoal[peers]" in missing["blackjax"]


def test_chains_that_devices_cannot_share_are_left_out_in_words():
    if jax.local_device_count() == 1:
        pytest.skip("one device")
    some = {name: gradients.CONTENDERS[name] for name in ("numpyro_pmap",)}
    works, missing = gradients.ready(problem(gaussian(), chains=jax.local_device_count() + 1, draws=1, steps=1), some)
    assert not works
    assert "cannot be shared" in missing["numpyro_pmap"]


def task_of(seed=0):
    density = lambda z: -0.5 * jnp.sum(((z - MEAN) / SD) ** 2)
    return rounds.Task(density, 3, seed, rounds.Clock(time.monotonic()))


RECIPES = {
    "chees": lambda density: recipes.chees(density, chains=16, draws=150),
    "window_nuts": lambda density: recipes.window_nuts(density, chains=4, warmup_draws=300, draws=500),
    "numpyro_nuts": lambda density: recipes.numpyro_nuts(density, chains=4, warmup_draws=300, draws=500),
}


SLOW = {"window_nuts", "numpyro_nuts"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in RECIPES])
def test_peers_that_tune_themselves_go_on_where_they_were(name):
    arviz = pytest.importorskip("arviz_stats.base", reason="pip install 'shoal[diagnostics]'").array_stats
    if name != "numpyro_nuts":
        pytest.importorskip("blackjax", reason="the peer BlackJAX: pip install 'shoal[peers]'")
    task = task_of()
    made = rounds.one_device(task, RECIPES[name])
    first, second = next(made), next(made)
    assert "warmed" in task.clock.stages
    assert first.position.shape == second.position.shape
    assert not np.array_equal(first.position, second.position)
    x = (np.concatenate([first.position, second.position], axis=1).astype(np.float64) - MEAN) / SD
    for column in np.moveaxis(x, -1, 0):
        for values, truth in ((column, 0.0), (column**2, 1.0)):
            error = values.std() / np.sqrt(arviz.ess(values, chain_axis=0, draw_axis=1, method="mean"))
            assert abs(values.mean() - truth) < BOUND * error


@pytest.mark.slow
def test_a_device_for_every_chain_draws_the_same_law():
    made = rounds.device_per_chain(
        task_of(), lambda density, chains: recipes.numpyro_nuts(density, chains, warmup_draws=200, draws=800)
    )
    draws = next(made).position
    assert draws.shape == (jax.local_device_count(), 800, 3)
    assert np.abs(draws.mean((0, 1)) - MEAN).max() < 0.3
    assert len(np.unique(draws[:, 0, 0])) == len(draws)


def test_what_a_shell_says_of_programs_and_devices_is_left_out(monkeypatch, tmp_path):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "XLA_FLAGS"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "7")
    for sampler in ("shoal", "numpyro_nuts"):
        assert "7" not in starting.environment(sampler, tmp_path / "cell", "empty").values()


def test_a_clock_leaves_out_what_is_not_the_peers(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(rounds.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(rounds.time, "process_time", lambda: 2.0 * (now[0] - 100.0))
    clock = rounds.Clock(100.0)
    now[0] += 3.0
    with clock.paused():
        now[0] += 50.0
    now[0] += 2.0
    assert clock.seconds == 5.0
    assert clock.cpu_seconds == 10.0
    clock.forget(since=(4.0, 8.0))
    clock.mark("drawn")
    assert clock.stages == {"drawn": 4.0}
    assert clock.cpu_seconds == 8.0


@pytest.mark.parametrize(("shift", "enough"), [(0.0, True), (1.0, False)], ids=["one law", "a chain elsewhere"])
def test_draws_are_enough_when_they_are_many_and_agree(shift, enough):
    pytest.importorskip("arviz_stats", reason="pip install 'shoal[diagnostics]'")
    x = np.random.default_rng(0).standard_normal((8, 400, 2))
    x[0] += shift
    judge = judging.Judge()
    assert judge.judged({"x": x}).enough is enough
    assert judge.judged({"x": x}, whole=True).enough is enough
    few = judge.judged({"x": x[:, :50]}, whole=True)
    assert few.ess < judging.ESS
    assert not few.enough
    assert not judge.judged({"x": np.full((8, 400, 2), np.nan)}).enough


def test_groups_hold_whole_chains_draw_by_draw():
    column = np.arange(32.0).reshape(16, 2)  # chain 0 holds 0, 1
    assert judging.grouped(column).tolist()[0] == [0.0, 2.0, 1.0, 3.0]
    assert judging.grouped(column[:8]).shape == (8, 2)


def test_blocks_of_draws_are_joined():
    block = {"z": np.zeros((4, 2, 3)), "tau": np.ones((4, 2))}
    assert {name: value.shape for name, value in joined([block, block]).items()} == {"z": (4, 4, 3), "tau": (4, 4)}


def test_everybodys_programs_are_kept(tmp_path):
    ours = starting.environment("shoal", tmp_path, "p")
    assert ours["SHOAL_COMPILE_CACHE"] == str(tmp_path / "p")
    theirs = starting.environment("numpyro_nuts_pmap", tmp_path, "p")
    assert theirs["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "p")
    assert theirs["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    assert theirs["JAX_NUM_CPU_DEVICES"] == str(rounds.FEW)
    assert "PYTHONDONTWRITEBYTECODE" not in theirs


def ended(text="", code=0, stderr=""):
    return lambda *_, **__: SimpleNamespace(returncode=code, stdout=text, stderr=stderr)


def test_a_run_is_reached_in_time_or_says_why_not(monkeypatch, tmp_path):
    row = {"status": "reached", "why": "", "seconds": 9.0, "ess": 1200.0, "r_hat": 1.0, "chains": 8, "draws": 100}
    monkeypatch.setattr(starting.subprocess, "run", ended("a line\n" + json.dumps(row)))
    assert starting.cell("nutpie", "p", 0, 20.0, {})["status"] == "reached"
    late = starting.cell("nutpie", "p", 0, 5.0, {})
    assert (late["status"], late["why"]) == ("not reached", "not in 5 s")
    monkeypatch.setattr(starting.subprocess, "run", ended(code=1, stderr="Traceback\nMemoryError"))
    failed = starting.cell("nutpie", "p", 0, 5.0, {})
    assert (failed["status"], failed["why"], failed["seconds"]) == ("failed", "MemoryError", None)


def rows_of(seconds, cache="empty", status="reached"):
    return [
        {"posterior": "p", "cache": cache, "sampler": name, "seed": seed, "status": status, "seconds": taken, "why": ""}
        for name, each in seconds.items()
        for seed, taken in enumerate(each)
    ]


def test_times_are_compared_with_the_best_peer_that_reached_the_goal():
    rows = rows_of({"shoal": [1.0, 2.0, 3.0], "nutpie": [4.0, 4.0, 4.0]})
    rows += rows_of({"blackjax_chees": [0.5, 0.5, 0.5]}, status="not reached")
    rows += rows_of({"numpyro_nuts": [None]}, status="missing")
    (row,) = starting.compared(rows)
    assert (row["peer"], row["ratio"]) == ("nutpie", 0.5)
    assert row["seconds"] == {"shoal": 2.0, "nutpie": 4.0, "blackjax_chees": None}
    (alone,) = starting.compared(rows_of({"shoal": [1.0]}))
    assert (alone["peer"], alone["ratio"]) == (None, None)


@pytest.fixture
def small(monkeypatch):
    """Both parts in a moment: HMC of a Gaussian, and starts that are made up."""
    monkeypatch.setattr(posteriors, "POSTERIORS", {"gaussian": gaussian, "german_credit": gaussian})
    monkeypatch.setenv(posteriors.VARIABLE, "/nowhere")
    monkeypatch.setattr(gradients, "BLOCK", 100)
    measured = gradients.measured
    monkeypatch.setattr(gradients, "measured", lambda plan, say: measured(plan._replace(seconds=1e-3), say))
    for name in ("blackjax", "blackjax_pmap", "numpyro_pmap"):
        monkeypatch.delitem(gradients.CONTENDERS, name)

    def run(sampler, *_):
        taken = {"shoal": 2.0, "blackjax_chees": 8.0}.get(sampler)
        status = "reached" if taken else "missing"
        found = {"ess": 1200.0, "r_hat": 1.0, "chains": 8, "draws": 100, "stages": {}}
        return {"status": status, "why": "" if taken else "needs the package", "seconds": taken, **found}

    monkeypatch.setattr(starting, "cell", run)
    monkeypatch.setattr(starting, "SAMPLERS", ("shoal", "blackjax_chees", "nutpie"))


def test_the_record_has_rows_ratios_and_what_is_absent(small):
    hmc = gradients.Plan(("gaussian", "german_credit"), (8,), repeats=2, seconds=1e-3)
    made = measuring.measure(hmc, starting.Plan(("gaussian",), starting.SAMPLERS, 2))
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert {"benchmark", "machine", "versions", "seed", "commit", "date", "settings", "rows", "ratios"} <= set(made)
    assert {"what", "chains", "rate", "unit"} == {key for row in made["rows"] for key in row}
    assert "nutpie" in made["absent"]
    assert "german.data-numeric is missing" in made["absent"]["german_credit"]
    assert [row["posterior"] for row in made["gradients"]] == ["gaussian"]
    assert made["gradients"][0]["rates"].keys() >= {"shoal", "numpyro"}
    goals = {(row["part"], row.get("cache"), row["among"]): row for row in made["ratios"]}
    assert goals["start", "empty", "best"]["ratio"] == 0.25
    assert goals["start", "empty", "best"]["met"]
    assert not goals["start", "filled", "best"]["met"]
    assert goals["gradients", None, "best"]["peer"] in PEERS


def test_the_command_prints_tables_and_writes_file_and_figure(small, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'shoal[report]'")
    options = ["--chains", "8", "--repeats", "1", "--posterior", "gaussian", "--out", str(tmp_path)]
    done = CliRunner().invoke(command, options, catch_exceptions=False, env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    for words in ("thousand gradients per second", "Shoal to the best peer", "8 chains", "1/6", "nutpie is left out"):
        assert words in done.output.replace("nutpie, 8 chains", "nutpie")
    assert json.loads((tmp_path / "peers.json").read_text())["benchmark"] == "peers"
    assert (tmp_path / "peers.png").stat().st_size > 10_000
    told = CliRunner().invoke(command, [*options[:-2], "--json", "--part", "start"], catch_exceptions=False)
    assert json.loads(told.stdout)["gradients"] == []


def test_the_command_refuses_a_posterior_that_it_does_not_have():
    refused = CliRunner().invoke(command, ["--posterior", "nobody"])
    assert refused.exit_code == 2
    assert "expected one of breast_cancer" in refused.output


def test_german_credit_is_the_logistic_regression_of_the_inference_gym():
    if reason := posteriors.absent("german_credit"):
        pytest.skip(reason)
    target = posteriors.load("german_credit").target(np.dtype(np.float32))
    z = np.random.default_rng(0).normal(0.0, 0.2, 25).astype(np.float32)
    table = np.loadtxt(posteriors.german_file())
    x = np.concatenate([(table[:, :24] - table[:, :24].mean(0)) / table[:, :24].std(0), np.ones((1000, 1))], axis=1)
    logits, y = x @ z.astype(np.float64), table[:, 24] == 2
    expected = np.sum(y * logits - np.logaddexp(0.0, logits)) - 0.5 * np.sum(z.astype(np.float64) ** 2)
    np.testing.assert_allclose(target.log_density(z, target.data), expected, rtol=1e-5)
