"""A run beside the program: the same draws, looked at, paused and stopped at any time, and never lost in silence."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal

pytest.importorskip("zarr", reason="a run on disk needs Zarr")

DRAWS, WARMUP, PATIENCE = 24, 30, 120.0


def log_density(params, data):
    return -0.5 * jnp.sum((params["x"] / data["scale"]) ** 2) - 0.5 * params["y"] ** 2 * jnp.exp(-params["x"][0])


MODEL = shoal.Model(
    params={"x": shoal.real(3), "y": shoal.real()},
    log_density=log_density,
    data={"scale": np.array([0.5, 1.0, 2.0], np.float32)},
    name="small",
)


def asked(**changes):
    return {"num_chains": 16, "num_warmup": WARMUP, "num_samples": DRAWS, "sampler": "chees", **changes}


# One program to compile, not two.
BY_HAND = {"sampler": shoal.HMC(step_size=0.3, num_steps=3), "num_warmup": 0}


def start(**changes):
    return shoal.start(MODEL, **asked(**changes))


def sample(**changes):
    return shoal.sample(MODEL, progress_bar=False, **asked(**changes))


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Of one sweep each."""
    monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.0)


@pytest.fixture(scope="module")
def whole():
    """The run that nothing happens to."""
    return sample()


class Gate:
    """Holds a run at the end of a chunk, until it is opened."""

    def __init__(self, phase, done):
        self.at, self.reached, self.opened = (phase, done), threading.Event(), threading.Event()

    def show(self, chunk):
        if (chunk.phase, chunk.done) == self.at:
            self.reached.set()
            assert self.opened.wait(PATIENCE)

    def wait(self):
        assert self.reached.wait(PATIENCE)


@pytest.fixture
def gate(monkeypatch):
    """A gate in the next run; what is still held when the test ends is let go."""
    gates = []

    def make(phase, done):
        gates.append(Gate(phase, done))
        monkeypatch.setattr("shoal.handle.progress", lambda wanted: contextlib.nullcontext(gates[-1].show))
        return gates[-1]

    yield make
    for left in gates:
        left.opened.set()


@pytest.fixture(autouse=True)
def no_run_is_left():
    yield
    from shoal import handle

    for run in tuple(handle._GOING_ON):
        run.stop()
        run._thread.join(PATIENCE)
    assert not handle._GOING_ON


def same(result, expected, count=None):
    for part in ("draws", "sample_stats"):
        mine, theirs = getattr(result, part), getattr(expected, part)
        assert list(mine) == list(theirs)
        for name in theirs:
            np.testing.assert_array_equal(mine[name], theirs[name][:, :count], err_msg=name)
    if count is None:
        assert result.gradients == expected.gradients
        assert str(result.findings) == str(expected.findings)
        assert result.warmup == expected.warmup
        assert not result.interrupted


def soon(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_draws_are_those_of_sample(whole):
    run = start()
    assert not run.done
    assert run.state == "running"
    result = run.wait()
    same(result, whole)
    assert run.wait() is result, "the same one each time"
    assert run.inspect() is result
    assert run.done
    assert run.state == "finished"
    seen = run.progress()
    assert seen[:3] == ("sampling", DRAWS, DRAWS)
    assert 0.3 < seen.acceptance < 1
    assert seen.gradients_per_second == pytest.approx(result.gradients.sampling / seen.seconds)
    assert seen.seconds <= result.timing.sampling
    assert "finished, sampling, 24 of 24" in repr(run)


def test_double_precision_stays_in_its_thread(gate):
    before = sample(precision="float64", **BY_HAND)
    there = gate("sampling", 5)
    run = start(precision="float64", **BY_HAND)
    there.wait()
    assert jnp.asarray(1.0).dtype == jnp.float32
    assert not jax.config.jax_enable_x64
    same(sample(), sample())
    there.opened.set()
    result = run.wait()
    assert result.draws["x"].dtype == np.float64
    same(result, before)


def test_what_the_program_has_set_for_its_thread_holds(monkeypatch):
    seen = []

    def stand_in(*rest):
        seen.append((jax.config.jax_numpy_rank_promotion, jax.config.jax_debug_nans, jax.config.jax_enable_x64))
        raise ValueError("enough")

    monkeypatch.setattr("shoal.handle.carried_out", stand_in)
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        run = start()
    with pytest.raises(ValueError, match="enough"):
        run.wait()
    assert seen == [("raise", True, False)]


def test_errors_at_the_door(tmp_path, gate):
    (tmp_path / "file").write_text("")
    for changes, words in [
        ({"num_chains": 0}, "num_chains=0"),
        ({"seed": -1}, "seed=-1"),
        ({"tile": 0}, "tile=0"),
        ({"max_seconds": 0}, "max_seconds=0"),
        ({"num_superchains": 17}, "num_superchains=17"),
        ({"sampler": "nothing"}, "nothing"),
        ({"out": tmp_path / "file"}, "is a file"),
    ]:
        with pytest.raises(ValueError, match=words):
            start(**changes)
    with pytest.raises(ValueError, match=r"expected a shoal.Model"):
        shoal.start(log_density)
    there = gate("sampling", 3)
    run = start(out=tmp_path / "run")
    there.wait()
    with pytest.raises(ValueError, match=rf"is being written by another process \(process {os.getpid()} on"):
        start(out=tmp_path / "run")
    there.opened.set()
    assert run.wait().num_draws == DRAWS


def fails(params):
    raise TypeError("no such thing")


@pytest.mark.parametrize("waits", [True, False])
def test_what_goes_wrong_is_told(capsys, waits):
    broken = shoal.Model(params={"x": shoal.real()}, log_density=lambda p: -0.5 * p["x"] ** 2, name="broken")
    object.__setattr__(broken, "target", fails)
    run = shoal.start(broken, **asked())
    if not waits:
        soon(lambda: run.done)
        assert (
            "Shoal: A run has failed with TypeError: no such thing (run.wait() raises it.)" in capsys.readouterr().err
        )
    for _ in range(2):
        with pytest.raises(TypeError, match="no such thing"):
            run.wait()
    with pytest.raises(TypeError, match="no such thing"):
        run.inspect()
    assert run.state == "failed"
    run.pause()
    run.go_on()
    run.stop()
    assert run.state == "failed"


def test_a_failure_after_some_draws_keeps_them(monkeypatch, whole):
    def show(chunk):
        if (chunk.phase, chunk.done) == ("sampling", 7):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("shoal.handle.progress", lambda wanted: contextlib.nullcontext(show))
    run = start()
    result = run.wait()
    assert [note.kind for note in result.notes] == ["failed"]
    same(result, whole, 7)
    assert run.state == "failed"


def test_what_has_been_drawn_so_far(gate, whole):
    first, there = gate("warmup", 4), None
    run = start()
    first.wait()
    with pytest.raises(RuntimeError, match=r"no draws yet: its phase is 'warmup'"):
        run.inspect()
    assert run.progress()[:2] == ("warmup", 4)
    first.opened.set()
    run.wait()
    there = gate("sampling", 9)
    run = start()
    there.wait()
    # The last chunk may not be written yet.
    soon(lambda: run.inspect().num_draws == 9)
    seen = run.inspect()
    same(seen, whole, 9)
    assert seen.interrupted
    assert seen.num_draws == 9
    assert set(seen.tuning) == set(whole.tuning)
    assert seen.gradients.warmup == whole.gradients.warmup
    assert 0 < seen.gradients.sampling < whole.gradients.sampling
    assert seen.timing.sampling > 0
    assert not seen.converged
    findings, table = str(seen.findings), seen.summary()
    with pytest.raises(ValueError, match="read-only"):
        seen.draws["x"][0] = 0
    there.opened.set()
    same(run.wait(), whole)
    same(seen, whole, 9)
    assert seen.num_draws == 9
    assert str(seen.findings) == findings
    assert seen.summary().equals(table)


@pytest.mark.parametrize("every", [0.0, 1e9], ids=["in the arrays", "in the journal"])
def test_what_has_been_drawn_so_far_on_disk(tmp_path, gate, whole, monkeypatch, every):
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", every)
    there = gate("sampling", 9)
    run = start(out=tmp_path / "run")
    there.wait()
    seen = run.inspect()
    assert 7 <= seen.num_draws <= 9, "what is committed"
    same(seen, whole, seen.num_draws)
    assert set(seen.tuning) == set(whole.tuning)
    assert seen.timing.sampling > 0
    count = seen.num_draws
    there.opened.set()
    same(run.wait(), whole)
    same(seen, whole, count)


@pytest.mark.parametrize("phase", ["warmup", "sampling"])
@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "on disk"])
def test_a_pause_changes_nothing(tmp_path, gate, whole, phase, kept):
    there = gate(phase, 6)
    run = start(out=tmp_path / "run" if kept else None)
    there.wait()
    with pytest.raises(TimeoutError, match=r"did not get to the end of a chunk within 0.01 s"):
        run.pause(timeout=0.01)
    assert run.state == "running"
    there.opened.set()
    run.pause()
    assert run.state == "paused"
    before = run.progress()
    assert before[:2] == (phase, 6)
    with pytest.raises(RuntimeError, match=r"The run is paused, so there is no end to wait for: run.go_on\(\) first"):
        run.wait()
    with pytest.raises(TimeoutError, match=r"has not ended within 0.3 s; it goes on"):
        run.wait(timeout=0.3)
    assert run.progress() == before
    if kept:
        # As if the process had been killed now: nothing that it has done is done again.
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
        told = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(told.append))
            same(sample(out=tmp_path / "killed"), whole)
        assert (told[0].phase, told[0].done) == (phase, 7)
    run.go_on()
    same(run.wait(), whole)
    run.pause()
    assert run.state == "finished"


def test_time_in_a_pause_does_not_count(gate):
    there = gate("sampling", 3)
    run = start(max_seconds=PATIENCE)
    there.wait()
    clock = run._stop.clock() - time.perf_counter()
    run._stop._max_seconds = time.monotonic() - run._stop._began + 1.0  # one second from now
    there.opened.set()
    run.pause()
    time.sleep(1.2)
    run.go_on()
    result = run.wait()
    assert run._stop.pause.seconds > 1.1
    assert run._stop.clock() - time.perf_counter() < clock - 1.1
    assert result.num_draws == DRAWS, "its second was not up"
    assert result.timing.sampling < 1.0


@pytest.mark.parametrize("paused", [False, True])
def test_a_stop_keeps_what_there_is(tmp_path, gate, whole, paused):
    for out in (None, tmp_path / "run"):
        there = gate("sampling", 8)
        run = start(out=out)
        there.wait()
        if paused:
            there.opened.set()
            run.pause()
        run.stop()
        there.opened.set()
        result = run.wait()
        same(result, whole, 8)
        assert result.interrupted
        assert not result.notes
        assert run.state == "stopped"
    gate("", 0)
    same(start(out=tmp_path / "run").wait(), whole)


def test_a_stop_in_the_warmup(tmp_path, gate, whole, capsys):
    for paused in (False, True):
        there = gate("warmup", 5)
        run = start(out=tmp_path / f"run-{paused}")
        there.wait()
        if paused:
            there.opened.set()
            run.pause()
        run.stop()
        there.opened.set()
        with pytest.raises(RuntimeError, match=r"stopped before its first draw, so it has no result. With out="):
            run.wait()
        with pytest.raises(RuntimeError, match="stopped before its first draw"):
            run.inspect()
        assert run.state == "stopped"
        assert capsys.readouterr().err == "", "it was asked for"
        gate("", 0)
        same(start(out=tmp_path / f"run-{paused}").wait(), whole)


def test_the_time_is_up(tmp_path):
    run = start(out=tmp_path / "run", max_seconds=1e-6)
    with pytest.raises(TimeoutError, match="max_seconds=1e-06 passed before the first draw"):
        run.wait()
    assert run.state == "failed"


@pytest.mark.parametrize("timeout", [-1, "long", True])
def test_a_timeout_that_is_none(whole, timeout):
    run = start()
    with pytest.raises(ValueError, match=r"timeout=.*expected a number of seconds"):
        run.wait(timeout)
    with pytest.raises(ValueError, match=r"timeout=.*expected a number of seconds"):
        run.pause(timeout)
    same(run.wait(np.float32(PATIENCE)), whole)


# Ctrl-C and SIGTERM reach the main thread, which is waiting.


def to_main(number):
    signal.pthread_kill(threading.main_thread().ident, number)


@pytest.fixture
def happens(monkeypatch):
    """Something that happens, in the run's thread, when so many draws have been told of."""

    def prepare(phase, done, what):
        show = lambda chunk: what() if (chunk.phase, chunk.done) == (phase, done) else None
        monkeypatch.setattr("shoal.handle.progress", lambda wanted: contextlib.nullcontext(show))

    return prepare


def interrupt(run, number=signal.SIGINT):
    """Send a signal while the main thread waits for the run, the only one of a list, and see that it is taken."""
    soon(lambda: run and run[0]._waiting)
    to_main(number)
    soon(lambda: run[0]._stop.signal is not None)


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_ctrl_c_while_waiting_ends_at_the_end_of_a_chunk(happens, whole, timeout):
    run = []

    happens("sampling", 5, lambda: interrupt(run))
    run.append(start())
    result = run[0].wait(timeout)
    assert result.interrupted
    same(result, whole, 5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run[0].state == "stopped"


def test_ctrl_c_waits_for_the_chunk_though_the_time_to_wait_is_up(happens, whole):
    run = []

    happens("sampling", 5, lambda: (interrupt(run), time.sleep(0.6)))
    run.append(start())
    soon(lambda: run[0].progress().phase == "sampling")
    same(run[0].wait(0.5), whole, 5)


def test_ctrl_c_ends_a_run_that_is_paused(gate, whole):
    there = gate("sampling", 5)
    run = start()
    there.wait()
    there.opened.set()
    run.pause()
    other = threading.Thread(target=lambda: (soon(lambda: run._waiting), to_main(signal.SIGINT)))
    other.start()
    same(run.wait(PATIENCE), whole, 5)
    other.join()


def test_a_second_ctrl_c_leaves_at_once(gate, whole):
    there = gate("sampling", 5)
    run = start()
    there.wait()

    def twice():
        soon(lambda: run._waiting)
        to_main(signal.SIGINT)
        soon(lambda: run._stop.signal is not None)
        to_main(signal.SIGINT)

    other = threading.Thread(target=twice)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        run.wait()
    other.join()
    assert not run.done
    there.opened.set()
    same(run.wait(), whole, 5)


@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "on disk"])
def test_ctrl_c_in_warmup(tmp_path, gate, happens, whole, kept):
    out = tmp_path / "run" if kept else None
    run = []

    happens("warmup", 5, lambda: interrupt(run))
    run.append(start(out=out))
    with pytest.raises(KeyboardInterrupt):
        run[0].wait()
    soon(lambda: run[0].done)
    assert run[0].state == "stopped"
    if kept:
        gate("", 0)
        same(start(out=out).wait(), whole)


def test_sigterm_takes_its_course_when_everything_is_kept(tmp_path, happens, whole):
    came, run = [], []

    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(shoal.load(tmp_path / "run").num_draws))
    try:
        happens("sampling", 5, lambda: interrupt(run, signal.SIGTERM))
        run.append(start(out=tmp_path / "run"))
        result = run[0].wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [5]
    same(result, whole, 5)


def test_signals_are_left_alone_where_nobody_waits(gate):
    there = gate("sampling", 5)
    run = start()
    there.wait()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    there.opened.set()
    assert run.wait().num_draws == DRAWS


# Several at once.


def test_several_at_once(tmp_path, whole):
    numpyro = pytest.importorskip("numpyro", reason="NumPyro is not installed")

    def program(scale):
        def two():
            with numpyro.plate("row", 3):
                x = numpyro.sample("x", numpyro.distributions.Normal(0.0, scale))
            numpyro.deterministic("twice", 2 * x)

        return shoal.from_numpyro(two)

    first, second = program(1.0), program(2.0)
    runs = [
        start(out=tmp_path / "one"),
        shoal.start(first, **asked(seed=1, **BY_HAND)),
        shoal.start(second, **asked(seed=2, precision="float64", **BY_HAND), out=tmp_path / "two"),
    ]
    here = sample()
    results = [run.wait() for run in runs]
    same(here, whole)
    same(results[0], whole)
    same(results[1], shoal.sample(first, progress_bar=False, **asked(seed=1, **BY_HAND)))
    same(results[2], shoal.sample(second, progress_bar=False, **asked(seed=2, precision="float64", **BY_HAND)))


def test_one_program_is_launched_at_a_time():
    """Two for several devices, in several orders, could wait for each other."""
    from shoal.compiling import compiled

    inside, order = threading.Event(), []

    def first(x):
        order.append("begin")
        inside.set()
        time.sleep(0.2)
        order.append("end")
        return x

    def second(x):
        order.append("second")
        return x

    other = threading.Thread(target=lambda: compiled(first)(jnp.zeros(2)))
    other.start()
    assert inside.wait(PATIENCE)
    compiled(second)(jnp.zeros(2))
    other.join()
    assert order == ["begin", "end", "second"]


def test_a_thread_that_does_not_start(tmp_path, monkeypatch, whole):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            start(out=tmp_path / "run")
    same(start(out=tmp_path / "run").wait(), whole)


def test_one_numpyro_model_is_traced_at_a_time():
    """Their handlers stand on one stack for all threads."""
    numpyro = pytest.importorskip("numpyro", reason="NumPyro is not installed")
    inside, hold = threading.Event(), []

    def program(scale):
        def one():
            numpyro.sample("x", numpyro.distributions.Normal(0.0, scale))
            if hold == [scale]:
                inside.set()
                time.sleep(0.3)
            numpyro.sample("y", numpyro.distributions.HalfNormal(scale))

        return shoal.from_numpyro(one)

    slow, quick = program(1.0), program(2.0)
    point = np.array([[0.5, 0.0]], np.float32)
    expected = program(1.0).constrain(point)
    hold.append(1.0)
    found = []
    other = threading.Thread(target=lambda: found.append(slow.constrain(point)))
    other.start()
    assert inside.wait(PATIENCE)
    found.append(quick.constrain(point))
    other.join()
    assert len(found) == 2
    for values in found:
        assert {name: float(value[0]) for name, value in values.items()} == {
            name: float(value[0]) for name, value in expected.items()
        }


def test_auto_is_paused_within_a_stage(tmp_path):
    changes = {"num_chains": 32, "num_warmup": None, "sampler": "auto"}
    expected = sample(**changes)
    run = start(**changes, out=tmp_path / "run")
    soon(lambda: run.progress().phase == "warmup")
    for _ in range(3):
        run.pause()
        before = run.progress()
        time.sleep(0.05)
        assert run.progress() == before
        run.go_on()
        soon(lambda before=before: run.progress() != before)
    same(run.wait(), expected)


ENDS = """
import sys, time
import jax.numpy as jnp
import shoal

model = shoal.Model(params={"x": shoal.real(3)}, log_density=lambda p: -0.5 * jnp.sum(p["x"] ** 2), name="small")
asked = dict(num_chains=16, num_warmup=60, num_samples=10_000_000, sampler="chees", num_superchains=4)
kept = shoal.start(model, out=sys.argv[1], **asked)
while kept.progress().phase != "sampling":
    time.sleep(0.01)
lost = shoal.start(model, **{**asked, "num_samples": 1_000_000})
while lost.progress().phase != "sampling":
    time.sleep(0.01)
print("leaving", flush=True)
"""


def test_the_end_of_the_program(tmp_path):
    out = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", ENDS, str(out)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "leaving\n"
    kept = re.search(r"was stopped after ([\d,]+) draws of each chain. It is kept in '(.*)': the same", done.stderr)
    assert kept is not None, done.stderr
    assert kept[2] == str(out)
    assert re.search(r"stopped after [\d,]+ draws of each chain. What it has drawn is lost: run.wait\(\)", done.stderr)
    assert "Traceback" not in done.stderr
    back = shoal.load(out)
    assert back.num_draws == int(kept[1].replace(",", "")) > 0
    assert back.interrupted
    assert back.tuning, "the run was ended properly"
