"""Watching a run: what is written down of it is true, is never in the way, and can be read at any moment."""

import contextlib
import errno
import fcntl
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.cli import main
from shoal.durable.folder import RunFolder
from shoal.durable.lock import holder_of
from shoal.progress import ChunkReport
from shoal.statistics import Moments
from shoal.watching import board, metrics
from shoal.watching.metrics import last_metrics
from shoal.watching.record import Quantity, Told, memory, quantities, record
from shoal.watching.status import status_of

pytest.importorskip("zarr", reason="a run on disk needs Zarr")
pytest.importorskip("rich")

CHAINS, WARMUP, DRAWS = 32, 30, 40
COLUMNS = ["beta[age]", "beta[weight]", "beta[height]", "tau", "lp"]
FIELDS = [
    "time", "phase", "draws", "draws_asked", "num_chains", "seconds", "acceptance", "step_size", "trajectory_length",
    "divergences", "gradients", "gradients_paid", "gradients_per_draw", "gradients_per_second",
    "r_hat_nested", "r_hat_nested_parameter", "r_hat", "r_hat_parameter", "ess", "ess_parameter", "ess_per_second",
    "device_bytes", "device_peak_bytes", "host_peak_bytes",
]  # fmt: skip
SCALE = jnp.array([0.5, 1.0, 2.0])


def log_density(params):
    return -0.5 * jnp.sum((params["beta"] / SCALE) ** 2) - params["tau"] * (1 + 0.1 * params["beta"][0] ** 2)


MODEL = shoal.Model(
    params={"beta": shoal.real(3), "tau": shoal.positive()},
    log_density=log_density,
    dims={"beta": ["predictor"]},
    coords={"predictor": ["age", "weight", "height"]},
    name="small",
)


def sample(out=None, draws=DRAWS, **changes):
    asked = {"num_chains": CHAINS, "num_warmup": WARMUP, "num_samples": draws, "sampler": "chees", "seed": 2}
    return shoal.sample(MODEL, out=out, progress_bar=False, **{**asked, **changes})


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Of one sweep each, all of them told to everybody."""
    monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.0)
    monkeypatch.setattr("shoal.watching.board.EVERY", 0.0)


@pytest.fixture(scope="module")
def quiet():
    """The run that nobody watches."""
    return sample()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has ended, watched by everybody."""
    out, shown = tmp_path_factory.mktemp("runs") / "run", importable("tensorboardX")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shoal.run.CHUNK_SECONDS", 0.0)
        patch.setattr("shoal.watching.board.EVERY", 0.0)
        result = sample(out, tensorboard=shown)
    return SimpleNamespace(out=out, result=result, lines=lines(out))


def importable(name):
    with contextlib.suppress(ModuleNotFoundError):
        return bool(__import__(name))
    return False


def strict(word):
    raise ValueError(f"{word} is not JSON")


def lines(out):
    """The lines of a file of metrics, all of them whole."""
    return [json.loads(line, parse_constant=strict) for line in (out / "metrics.jsonl").read_text().splitlines()]


def same_draws(result, expected):
    for part in ("draws", "sample_stats"):
        for name, array in getattr(expected, part).items():
            np.testing.assert_array_equal(np.asarray(getattr(result, part)[name]), array, err_msg=name)


def killed(out, phase, chunks, **changes):
    """Begin a run, and kill it before so many chunks of a phase are written down."""

    class Killed(BaseException):
        pass

    told = []

    def show(chunk):
        told.append(chunk.phase)
        if told.count(phase) > chunks:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(show))
        with pytest.raises(Killed):
            sample(out, **changes)


# --- metrics.jsonl ---


def test_there_is_a_line_for_every_chunk_in_both_phases(run):
    told = [(line["phase"], line["draws"], line["draws_asked"]) for line in run.lines]
    assert told == [("warmup", n + 1, WARMUP) for n in range(WARMUP)] + [
        ("sampling", n + 1, DRAWS) for n in range(DRAWS)
    ]
    for line in run.lines:
        assert list(line) == FIELDS
        assert line["num_chains"] == CHAINS
    times = [line["time"] for line in run.lines]
    assert times == sorted(times)
    assert all(time.endswith("+00:00") for time in times)
    sampling = [line["seconds"] for line in run.lines if line["phase"] == "sampling"]
    assert sampling == sorted(sampling)
    assert 0 < sampling[-1] <= run.result.timing.sampling


def test_the_last_line_says_what_the_result_says(run):
    last, result = run.lines[-1], run.result
    stats = {name: np.asarray(array, float) for name, array in result.sample_stats.items()}
    assert last["acceptance"] == pytest.approx(stats["acceptance_rate"].mean(), rel=1e-5)
    assert last["divergences"] == stats["diverging"].sum()
    assert last["gradients"] == result.gradients.sampling
    assert last["gradients_paid"] == result.gradients[2]
    assert last["gradients_per_draw"] == pytest.approx(result.gradients.sampling / (CHAINS * DRAWS))
    assert last["gradients_per_second"] == pytest.approx(last["gradients"] / last["seconds"])
    assert last["step_size"] == pytest.approx(float(result.tuning["step_size"]))
    assert last["trajectory_length"] == pytest.approx(float(result.tuning["trajectory"]))
    assert last["host_peak_bytes"] > 50e6
    assert last["device_bytes"] is None  # a CPU does not tell
    warm = next(line for line in reversed(run.lines) if line["phase"] == "warmup")
    assert warm["gradients"] == result.gradients.warmup
    assert warm["ess"] is warm["r_hat_nested"] is warm["r_hat_nested_parameter"] is None


def test_a_sampler_set_too_coarse_is_seen_in_its_line(tmp_path):
    coarse = shoal.HMC(step_size=1.7, num_steps=3)
    result = sample(tmp_path / "run", 30, sampler=coarse, num_warmup=0)
    (*_, last) = lines(tmp_path / "run")
    stats = {name: np.asarray(array, float) for name, array in result.sample_stats.items()}
    assert last["divergences"] == stats["diverging"].sum() > 0
    assert last["acceptance"] == pytest.approx(stats["acceptance_rate"].mean(), rel=1e-5)
    assert last["acceptance"] < 0.9
    assert last["step_size"] == pytest.approx(1.7)
    assert last["trajectory_length"] == pytest.approx(3 * 1.7)
    assert last["gradients_per_draw"] == pytest.approx(stats["n_steps"].mean())


def told_by(*devices):
    return lambda: [SimpleNamespace(memory_stats=stats) for stats in devices]


def test_memory_is_that_of_all_devices_or_of_none(monkeypatch):
    full = lambda: {"bytes_in_use": 3, "peak_bytes_in_use": 5}
    for devices, now, peak in [
        ((full, full), 6, 10),
        ((full, lambda: None), None, None),
        ((full, lambda: {"bytes_in_use": 4}), 7, None),
        ((full, lambda: 1 / 0), None, None),
    ]:
        monkeypatch.setattr("shoal.watching.record.jax.local_devices", told_by(*devices))
        found = memory()
        assert (found["device_bytes"], found["device_peak_bytes"]) == (now, peak)
        assert found["host_peak_bytes"] > 50e6


def columns(result):
    """What `Moments` folds, from the draws: `[chain, draw]` by label."""
    beta, tau = (np.asarray(result.draws[name], float) for name in ("beta", "tau"))
    values = (*np.moveaxis(beta, 2, 0), np.log(tau), np.asarray(result.sample_stats["lp"], float))
    return dict(zip(COLUMNS, values, strict=True))


def test_r_hat_and_effective_draws_are_those_of_the_draws(run):
    stats = pytest.importorskip("arviz_stats.base", reason="ArviZ, the oracle, is not installed").array_stats
    last, found = run.lines[-1], columns(run.result)
    plain = {name: float(stats.rhat(x, method="identity", chain_axis=0, draw_axis=1)) for name, x in found.items()}
    superchain = np.asarray(run.result.superchain)
    nested = {
        name: float(stats.rhat_nested(x, superchain, method="identity", chain_axis=0, draw_axis=1))
        for name, x in found.items()
    }
    means = {name: x.mean(axis=1) for name, x in found.items()}
    pooled = {name: means[name].var(ddof=1) + x.var(axis=1).mean() for name, x in found.items()}
    ess = {name: pooled[name] / (means[name].var(ddof=1) / CHAINS) for name in found}
    for name, values, worst in (("r_hat", plain, max), ("r_hat_nested", nested, max), ("ess", ess, min)):
        which = worst(values, key=values.get)
        assert last[f"{name}_parameter"] == which
        assert last[name] == pytest.approx(values[which], rel=1e-4)
    assert last["ess_per_second"] == pytest.approx(last["ess"] / last["seconds"])


@pytest.mark.parametrize(("chains", "told"), [(15, False), (16, True)])
def test_few_chains_tell_no_effective_sample_size(rng, chains, told):
    memory = Moments.Memory(
        jnp.full(chains, 9.0), jnp.asarray(rng.normal(size=(chains, 2))), jnp.full((chains, 2), 8.0)
    )
    said = Moments().compute(memory, np.arange(chains) % 3)
    assert np.isfinite(said["r_hat"]).all()
    assert np.isfinite(said["ess"]).all() == told


def test_coordinates_have_the_labels_of_what_they_become():
    assert [quantity.label for quantity in quantities(MODEL)] == COLUMNS
    odd = shoal.Model(
        params={"w": shoal.simplex(3), "c": shoal.real((2, 2))}, log_density=lambda p: jnp.sum(p["w"]) + p["c"].sum()
    )
    found = {quantity.label: quantity.place for quantity in quantities(odd)}
    assert found == {
        "w coordinate 0": None, "w coordinate 1": None,
        "c[0, 0]": (0, 0), "c[0, 1]": (0, 1), "c[1, 0]": (1, 0), "c[1, 1]": (1, 1), "lp": None,
    }  # fmt: skip


def heard(acceptance=0.8, phase="sampling", done=5, draws=None, tuning=None, **spread):
    chunk = ChunkReport(phase, done, 10, 4, acceptance, 0, 100, 2.0)
    names = tuple(Quantity(name, "x", (n,)) for n, name in enumerate("abc"))
    return record(Told(chunk, 130, 1.0, tuning, spread or None), names, draws or {})


def test_what_is_not_finite_is_null_and_still_has_its_name():
    some = heard(math.nan, r_hat_nested=np.array([1.0, np.inf, np.nan]), r_hat=np.full(3, np.nan), ess=np.arange(3.0))
    told = some.metrics
    json.dumps(told, allow_nan=False)
    assert told["acceptance"] is None
    assert (told["gradients"], told["gradients_paid"], told["gradients_per_second"]) == (100, 130, 50.0)
    assert (told["r_hat_nested"], told["r_hat_nested_parameter"]) == (None, "b")
    assert (told["r_hat"], told["r_hat_parameter"]) == (None, None)
    assert (told["ess"], told["ess_parameter"], told["ess_per_second"]) == (0.0, "a", 0.0)


def test_a_tuning_by_name_has_a_step_size_too():
    tuning = {"step_size": jnp.array([0.2, 0.4]), "inverse_mass_matrix": jnp.ones(4)}
    assert heard(tuning=tuning).metrics["step_size"] == pytest.approx(0.3)
    assert heard(tuning=tuning).metrics["trajectory_length"] is None


def test_the_warmup_of_auto_tells_what_it_knows(tmp_path):
    killed(tmp_path / "run", "warmup", 3, sampler="auto", num_warmup=None, num_chains=4)
    told = lines(tmp_path / "run")
    assert [line["phase"] for line in told] == ["warmup"] * 3
    assert [line["draws"] for line in told] == sorted(line["draws"] for line in told)
    assert all(line["step_size"] > 0 and line["gradients"] > 0 for line in told)
    for unknown in ("draws_asked", "divergences", "gradients_paid", "gradients_per_draw"):
        assert {line[unknown] for line in told} == {None}


def test_half_a_line_of_a_killed_process_harms_no_other(tmp_path, quiet):
    out = tmp_path / "run"
    killed(out, "sampling", 7)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"time": "2020-01-01T00:00:00+00:00", "phase": "samp')
    assert last_metrics(out)["draws"] == 7
    assert status_of(out).metrics["draws"] == 7
    same_draws(sample(out), quiet)
    whole = []
    for line in (out / "metrics.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError):
            whole.append(json.loads(line))
    told = [line["draws"] for line in whole if line["phase"] == "sampling"]
    assert told == [*range(1, 8), *range(9, DRAWS + 1)]  # the eighth was kept, and the kill came before its line
    assert len((out / "metrics.jsonl").read_text().splitlines()) == len(whole) + 1
    assert whole[-1]["gradients"] == quiet.gradients.sampling


def test_a_disk_that_is_full_for_a_while_stops_nothing(tmp_path, monkeypatch, quiet):
    calls, write = [], os.write

    def full(descriptor, data):
        calls.append(data)
        if 5 <= len(calls) < 12:
            write(descriptor, data[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(metrics, "os", SimpleNamespace(**{**vars(os), "write": full}))
    result = sample(tmp_path / "run")
    same_draws(result, quiet)
    notes = [note for note in result.notes if note.kind == "watching"]
    assert len(notes) == 1
    assert "metrics.jsonl could not be written: OSError: [Errno 28] No space left" in notes[0].words
    assert not notes[0].blocking
    whole = []
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError):
            whole.append(json.loads(line))
    assert len(whole) == WARMUP + DRAWS - 7
    assert whole[-1]["draws"] == DRAWS


# --- TensorBoard ---


def test_a_board_that_fails_stops_nothing(tmp_path, monkeypatch, quiet):
    pytest.importorskip("tensorboardX")
    written = []

    def fails(self, event):
        written.append(event)
        if len(written) > 10:
            raise RuntimeError("nothing works")

    monkeypatch.setattr("tensorboardX.event_file_writer.EventsWriter.write_event", fails)
    result = sample(tmp_path / "run", tensorboard=True)
    same_draws(result, quiet)
    assert len(written) == 11  # it is not tried again: half an event ends a file
    notes = [note.words for note in result.notes if note.kind == "watching"]
    assert notes == ["events of TensorBoard could not be written: RuntimeError: nothing works."]
    assert len(lines(tmp_path / "run")) == WARMUP + DRAWS


def test_who_is_watched_draws_the_same(run, quiet):
    same_draws(run.result, quiet)


def test_tensorboard_needs_a_directory_and_its_package(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="tensorboard=True was given without out"):
        sample(tensorboard=True)
    with pytest.raises(ValueError, match="tensorboard='yes': expected True or False"):
        sample(tmp_path / "run", tensorboard="yes")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.delitem(sys.modules, "tensorboardX.event_file_writer", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package 'tensorboardX'.*shoal\[tensorboard\]"):
        sample(tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


class Events:
    """Instead of tensorboardX's writer: keeps what it is given."""

    def __init__(self):
        self.written, self.flushed = [], 0

    def write_event(self, event):
        self.written.append(event)

    def flush(self):
        self.flushed += 1

    close = flush


@pytest.fixture
def events(monkeypatch):
    pytest.importorskip("tensorboardX")
    written = Events()
    monkeypatch.setattr("tensorboardX.event_file_writer.EventsWriter", lambda prefix: written)
    return written


def test_only_the_worst_have_curves_and_histograms(tmp_path, monkeypatch, events, rng):
    monkeypatch.setattr(board, "CURVES", 2)
    monkeypatch.setattr(board, "HISTOGRAMS", 1)
    names = tuple(Quantity(name, "x", (n,)) for n, name in enumerate("abc"))
    shown = board.Board(tmp_path, names, {"seed": 3, "given": None})
    draws = {"x": rng.normal(np.arange(3) * 100.0, size=(4, 5, 3))}
    shown.hear(heard(draws=draws, r_hat_nested=np.array([1.2, np.nan, 1.5]), ess=np.array([30.0, 10.0, 20.0])))
    values = {value.tag: value for value in events.written[-1].summary.value}
    by_parameter = {tag: value.simple_value for tag, value in values.items() if tag[:4] in ("r_ha", "ess_")}
    assert by_parameter == pytest.approx(
        {"r_hat_nested/c": 1.5, "r_hat_nested/a": 1.2, "ess_per_second/b": 5.0, "ess_per_second/c": 10.0}
    )
    assert [tag for tag in values if tag.startswith("draws/")] == ["draws/c"]
    histogram = values["draws/c"].histo
    assert (histogram.num, sum(histogram.bucket)) == (20, 20)
    assert events.flushed == 1  # who looks now sees it
    assert histogram.sum == pytest.approx(draws["x"][:, :, 2].sum())


def test_events_come_once_in_a_while_and_the_last_of_a_phase_always(tmp_path, monkeypatch, events):
    monkeypatch.setattr(board, "EVERY", 3600.0)
    shown = board.Board(tmp_path, (), {})
    for phase in ("warmup", "sampling"):
        for done in range(1, 6):
            shown.hear(heard(phase=phase, done=done))
    shown.close()
    told = {(value.tag.split("/")[0], event.step) for event in events.written for value in event.summary.value}
    assert {one for one in told if one[0] in ("warmup", "sampling")} == {("warmup", 1), ("warmup", 5), ("sampling", 5)}


def test_draws_that_stand_still_or_are_not_finite_are_no_trouble(tmp_path, events):
    names = tuple(Quantity(name, "x", (n,)) for n, name in enumerate("abc"))
    shown = board.Board(tmp_path, names, {})
    some = np.array([[np.nan], [1.0], [2.0], [np.inf]])
    draws = {"x": np.stack([np.full((4, 1), 1e17), some, np.full((4, 1), np.nan)], axis=2)}
    shown.hear(heard(draws=draws, r_hat=np.array([3.0, 2.0, 1.0])))
    found = {value.tag: value.histo for value in events.written[-1].summary.value if value.tag.startswith("draws")}
    assert list(found) == ["draws/b"]
    assert (found["draws/b"].num, found["draws/b"].sum) == (2, 3.0)


def test_every_process_has_a_folder_of_its_own(tmp_path):
    some = heard().time
    assert len({board.new_folder(tmp_path / "tensorboard", some) for _ in range(3)}) == 3


def answer(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/plugin/{path}", timeout=5) as response:
        return json.load(response)


def test_tensorboard_shows_the_run(run):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = run.out / "tensorboard"
    command = ["tensorboard.main", "--logdir", folder, "--host", "127.0.0.1", "--port", port, "--load_fast", "false"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    server = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        found, until = {}, time.monotonic() + 60
        while not found and time.monotonic() < until:
            assert server.poll() is None, "the server has ended"
            time.sleep(0.2)
            with contextlib.suppress(OSError):
                found = answer(port, "histograms/tags")
        (name,) = [path.name for path in folder.iterdir()]
        assert {f"draws/{label}" for label in COLUMNS[:4]} == set(found[name])
        tags = set(answer(port, "scalars/tags")[name])
        by_parameter = {f"{kind}/{label}" for kind in ("r_hat_nested", "ess_per_second") for label in COLUMNS}
        assert {"sampling/acceptance", "sampling/ess", "warmup/step_size", *by_parameter} <= tags
        curve = answer(port, f"scalars/scalars?run={name}&tag=sampling/ess")
        expected = {line["draws"]: line["ess"] for line in run.lines if line["phase"] == "sampling"}
        assert {int(step): value for _, step, value in curve} == pytest.approx(expected, rel=1e-6)
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/data/plugin/hparams/experiment", b"{}", {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=5) as response:
            settings = {one["name"] for one in json.load(response)["hparamInfos"]}
        assert {"sampler", "seed", "num_chains"} <= settings
    finally:
        server.terminate()
        server.wait(20)


# --- shoal status ---


@pytest.fixture
def status(capsys, monkeypatch):
    """Run `shoal status`: its exit code and what it prints."""
    monkeypatch.setenv("COLUMNS", "80")

    def ask(*arguments):
        code = main(["status", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out if code == 0 else said.err

    return ask


def test_status_of_a_finished_run(run, status):
    code, said = status(run.out)
    assert code == 0
    last = run.lines[-1]
    for words in ("finished", "small", f"{DRAWS} of {DRAWS} (100%) of each chain, {CHAINS} chains", " ago"):
        assert words in said
    assert f"{last['r_hat_nested']:.3f} nested: {last['r_hat_nested_parameter']}" in said
    assert f"{last['ess']:,.0f} of the mean of {last['ess_parameter']}" in said
    assert f"{last['acceptance']:.2f}, step size {last['step_size']:.3g}" in said
    assert "left" not in said
    assert said.splitlines()[-1].split() == ["next", "shoal", "report", str(run.out)]
    found = json.loads(status(run.out, "--json")[1])
    assert (found["state"], found["writing"], found["phase"]) == ("finished", False, "sampling")
    assert (found["draws_committed"], found["num_samples"]) == (DRAWS, DRAWS)
    assert found["metrics"] == last
    assert found["seconds_left"] is None


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_status_fits_the_terminal(run, status, monkeypatch, columns):
    said = {}
    for width in (columns, 500):
        monkeypatch.setenv("COLUMNS", str(width))
        *shown, last = status(run.out)[1].splitlines()
        assert max(len(line) for line in shown) <= width
        assert last.split() == ["next", "shoal", "report", str(run.out)]  # to be copied: never broken
        rows = [line for line in shown if "updated" not in line and "━" not in line]
        said[width] = "".join("".join(rows).split())
    assert said[columns] == said[500]


def test_status_of_a_killed_run(tmp_path, status):
    out = tmp_path / "run"
    killed(out, "sampling", 12)
    found = json.loads(status(out, "--json")[1])
    assert (found["state"], found["writing"], found["phase"]) == ("stopped", False, "sampling")
    assert (found["draws_committed"], found["metrics"]["draws"]) == (13, 12)
    assert found["draws_per_second"] == pytest.approx(12 / found["metrics"]["seconds"])
    code, said = status(out)
    assert code == 0
    assert "no process writes it" in said
    assert "shoal resume" in said
    assert f"13 of {DRAWS} (32%)" in said


def test_status_in_warmup_and_while_it_is_written(tmp_path, status):
    out = tmp_path / "run"
    killed(out, "warmup", 6)
    found = json.loads(status(out, "--json")[1])
    assert (found["state"], found["phase"], found["draws_committed"]) == ("stopped", "warmup", 0)
    assert found["metrics"]["draws"] == 6
    with RunFolder(out):
        found = json.loads(status(out, "--json")[1])
        assert (found["state"], found["writing"]) == ("running", True)
        assert found["process"] == f"process {os.getpid()} on {socket.gethostname()}"
        left = found["metrics"]["seconds"] / 6 * (WARMUP - 6)
        assert found["seconds_left"] == pytest.approx(left)
        code, said = status(out)
        assert code == 0
        assert f"being written by process {os.getpid()} on" in said
        assert f"6 of {WARMUP} (20%)" in said
        assert "left" in said


def test_numbers_of_the_warmup_are_not_shown_for_sampling(tmp_path, status):
    killed(tmp_path / "run", "sampling", 0)
    found = json.loads(status(tmp_path / "run", "--json")[1])
    assert (found["phase"], found["metrics"]) == ("sampling", {})


def test_a_run_that_has_only_begun(tmp_path, status):
    with RunFolder(tmp_path / "run"):
        code, said = status(tmp_path / "run")
        assert code == 0
        assert "starting" in said
    assert status(tmp_path / "run")[0] == 2


def test_status_without_metrics(tmp_path, status):
    out = tmp_path / "run"
    killed(out, "sampling", 12)
    (out / "metrics.jsonl").unlink()
    code, said = status(out)
    assert code == 0
    assert f"13 of {DRAWS} (32%)" in said
    assert "metrics.jsonl has no line of it" in said
    found = json.loads(status(out, "--json")[1])
    assert found["metrics"] == {}
    assert 0 <= found["seconds_since_update"] < 600


def test_status_of_a_run_that_was_saved(tmp_path, status, quiet):
    quiet.save(tmp_path / "saved")
    found = json.loads(status(tmp_path / "saved", "--json")[1])
    assert (found["state"], found["draws_committed"]) == ("finished", DRAWS)


def test_status_of_what_is_no_run(tmp_path, status):
    code, said = status(tmp_path)
    assert code == 2
    assert "does not hold a run" in " ".join(said.split())
    assert status(tmp_path / "nowhere")[0] == 2


def test_status_takes_the_lock_from_nobody(tmp_path):
    out = tmp_path / "run"
    with RunFolder(out):
        pass
    lock = out / "checkpoints" / "lock"
    assert not holder_of(lock).writing
    with RunFolder(out):
        assert holder_of(lock).writing
        with pytest.raises(ValueError, match="is being written by another process"):
            RunFolder(out)
    # One who looks has it for a moment: a run that begins just then waits.
    looking = os.open(lock, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not holder_of(lock).writing
    later = threading.Timer(0.1, lambda: os.close(looking))
    later.start()
    with RunFolder(out):
        assert holder_of(lock).writing
    later.join()


def test_a_file_system_without_locks_does_not_tell(tmp_path, monkeypatch, status):
    out = tmp_path / "run"
    killed(out, "warmup", 2)

    def without(descriptor, operation):
        raise OSError(errno.ENOSYS, "no locks")

    monkeypatch.setattr("shoal.durable.lock.fcntl.flock", without)
    code, said = status(out, "--json")
    assert code == 0
    assert (json.loads(said)["state"], json.loads(said)["writing"]) == ("unknown", None)


def test_watching_ends_with_the_run(tmp_path, status, monkeypatch):
    out = tmp_path / "run"
    killed(out, "sampling", 3)
    folder, naps = RunFolder(out), []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 2:
            folder.__exit__(None, None, None)

    monkeypatch.setattr("shoal.cli.status.time.sleep", nap)
    code, said = status(out, "--watch", "--json")
    assert code == 0
    assert [json.loads(line)["state"] for line in said.splitlines()] == ["running", "running", "stopped"]


def test_ctrl_c_ends_watching_only(tmp_path):
    out = tmp_path / "run"
    killed(out, "sampling", 3)
    with RunFolder(out):
        watching = subprocess.Popen(
            [sys.executable, "-m", "shoal", "status", str(out), "--watch"], stdout=subprocess.PIPE, text=True
        )
        assert "being written" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 0
        watching.stdout.close()
        assert holder_of(out / "checkpoints" / "lock").writing


def test_the_flag_arrives(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("shoal.sampling.sample", lambda model, **options: asked.append(options["tensorboard"]) or 1 / 0)
    for flags in ([], ["--tensorboard"]):
        assert main(["sample", "eight_schools", "--out", str(tmp_path / f"run{len(flags)}"), *flags]) == 1
    assert asked == [False, True]
