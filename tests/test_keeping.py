"""What is kept of the draws, by a thread that holds sampling up where disks are slow, and looked at part by part."""

import contextlib
import signal
import threading
import time
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("zarr")

import shoal
from shoal.diagnostics.mixing import mixing
from shoal.diagnostics.rows import blocks, variable
from shoal.diagnostics.unkept import unkept
from shoal.diagnostics.verdict import judge
from shoal.results import stored_draws
from shoal.results.background import MOST_WAITING, BackgroundDraws
from shoal.results.draws import Header, MemoryDraws
from shoal.results.zarr_draws import ZarrDraws
from shoal.session import Session
from shoal.watching.status import status_of

BY_HAND = shoal.HMC(step_size=0.4, num_steps=3)


@pytest.fixture(scope="module")
def model():
    def log_density(p):
        return -0.5 * jnp.sum(p["x"] ** 2) - 0.5 * jnp.sum(p["y"] ** 2)

    return shoal.Model(params={"x": shoal.real(3), "y": shoal.positive()}, log_density=log_density)


@pytest.fixture
def short_chunks(monkeypatch):
    """Of one draw each, written at once to the arrays."""
    monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.0)
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 0.0)


def sample(model, **changes):
    asked = {"num_chains": 16, "num_samples": 30, "sampler": BY_HAND, "progress_bar": False, **changes}
    return shoal.sample(model, **asked)


@pytest.fixture(scope="module")
def every(model):
    """The run that keeps all."""
    return sample(model)


def same_every(thin, every, k, names=("x", "y")):
    assert list(thin.draws) == list(names)
    for part in ("draws", "sample_stats"):
        for name, values in getattr(thin, part).items():
            np.testing.assert_array_equal(values, getattr(every, part)[name][:, k - 1 :: k], err_msg=name)
    assert thin.gradients == every.gradients


@pytest.mark.parametrize("k", [2, 5, 30])
def test_of_every_k_draws_the_last_is_kept(model, every, k):
    thin = sample(model, thinning=k)
    assert thin.num_draws == 30 // k
    assert not thin.interrupted
    same_every(thin, every, k)


def test_chunks_shorter_than_the_thinning(model, every, short_chunks, tmp_path):
    thin = sample(model, thinning=5, out=tmp_path / "run")
    same_every(thin, every, 5)
    same_every(shoal.load(tmp_path / "run"), every, 5)
    assert shoal.load(tmp_path / "run").settings["thinning"] == 5


def test_a_thinned_run_is_made_longer(model, every, short_chunks, tmp_path):
    sample(model, thinning=5, num_samples=10, out=tmp_path / "run")
    longer = shoal.resume(tmp_path / "run", model, add_samples=20, progress_bar=False)
    same_every(longer, every, 5)
    again = sample(model, thinning=5, out=tmp_path / "run")
    same_every(again, every, 5)
    with pytest.raises(ValueError, match=r"num_samples=10.* has 30 draws"):
        sample(model, thinning=5, num_samples=10, out=tmp_path / "run")
    with pytest.raises(ValueError, match="thinning was 5 and is 2"):
        sample(model, thinning=2, out=tmp_path / "run")


def test_a_thinned_run_that_was_cut_goes_on(model, every, short_chunks, monkeypatch, tmp_path):
    append = ZarrDraws.append

    def fail(self, values, *rest):
        if self.committed == 3 and values["x"].shape[1]:
            raise OSError("the disk is gone")
        append(self, values, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ZarrDraws, "append", fail)
        cut = sample(model, thinning=5, out=tmp_path / "run")
    assert cut.num_draws == 3
    assert cut.interrupted
    assert [note.kind for note in cut.notes] == ["failed"]
    # Of the draws that are there, not of those that were made and lost.
    assert cut.gradients.sampling == 16 * 15 * 3
    same_every(sample(model, thinning=5, out=tmp_path / "run"), every, 5)


def test_to_keep_all_is_the_default(model, tmp_path):
    sample(model, keep=["y", "x"], out=tmp_path / "run")
    assert "keep" not in shoal.load(tmp_path / "run").settings
    assert sample(model, out=tmp_path / "run").num_draws == 30


def test_some_variables(model, every, tmp_path):
    for out in (None, tmp_path / "run"):
        some = sample(model, keep=["y"], out=out)
        same_every(some, every, 1, names=("y",))
        assert some.parameters == ("y",)
        assert list(some.summary().index) == ["y"]
    assert shoal.load(tmp_path / "run").settings["keep"] == ["y"]
    longer = shoal.resume(tmp_path / "run", model, add_samples=2, progress_bar=False)
    assert list(longer.draws) == ["y"]
    assert longer.num_draws == 32


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"thinning": 0}, "thinning=0: expected a whole number, at least 1"),
        ({"thinning": 4}, "num_samples=30 with thinning=4: .* such as 32"),
        ({"keep": ["z"]}, "keep: got 'z', expected names of what .* has: 'x', 'y'"),
        ({"keep": []}, "keep: got nothing"),
    ],
)
def test_what_cannot_be_kept_is_said_at_the_door(model, asked, words):
    with pytest.raises(ValueError, match=words):
        sample(model, **asked)


# The thread that writes


def header(chains):
    return Header(superchain=np.arange(chains))


def chunk(number, chains=4, draws=3):
    return {"x": np.full((chains, draws), float(number))}, {"lp": np.full((chains, draws), -float(number))}


def test_chunks_come_in_their_order_and_slow_disks_hold_sampling_up(monkeypatch):
    draws, append = MemoryDraws(60, header(4)), MemoryDraws.append
    released = threading.Event()

    def slowly(self, *chunk):
        assert released.wait(10)
        append(self, *chunk)

    monkeypatch.setattr(MemoryDraws, "append", slowly)
    sink, put = BackgroundDraws(draws), []

    def produce():
        for number in range(20):
            sink.append(*chunk(number), None)
            put.append(number)

    producer = threading.Thread(target=produce)
    producer.start()
    time.sleep(0.3)
    # One is being written, and so many wait.
    assert len(put) <= MOST_WAITING + 1
    assert sink.committed == 0
    released.set()
    producer.join(10)
    sink.settle()
    np.testing.assert_array_equal(draws.draws["x"], np.repeat(np.arange(20.0), 3)[None].repeat(4, 0))


def test_nothing_is_written_after_what_failed(monkeypatch):
    draws, append = MemoryDraws(60, header(4)), MemoryDraws.append

    def fail_once(self, values, *rest):
        if values["x"][0, 0] == 2:
            raise OSError("no space")
        append(self, values, *rest)

    monkeypatch.setattr(MemoryDraws, "append", fail_once)
    sink = BackgroundDraws(draws)

    def produce():
        for number in range(50):
            sink.append(*chunk(number), None)
            time.sleep(0.001)

    with pytest.raises(OSError, match="no space"):
        produce()
    with pytest.raises(OSError, match="no space"):
        sink.settle()
    assert draws.committed == 6
    assert not sink._thread.is_alive()


def test_a_chunk_is_free_when_it_is_written():
    sink, made = BackgroundDraws(MemoryDraws(60, header(4))), np.zeros((4, 3))
    chunk = weakref.ref(made)
    sink.append({"x": made}, {"lp": made}, None)
    del made
    sink.drain()
    assert sink.is_writing
    assert chunk() is None
    sink.settle()


@pytest.mark.parametrize("may_wait", [True, False])
def test_where_none_may_wait_a_chunk_comes_when_the_last_is_written(monkeypatch, may_wait):
    draws, let_go, came = MemoryDraws(60, header(4)), threading.Event(), []
    monkeypatch.setattr(MemoryDraws, "append", lambda *chunk: let_go.wait(10))
    sink = BackgroundDraws(draws, may_wait=may_wait)

    def produce():
        for _ in range(2):
            sink.append({"x": np.zeros((4, 1))}, {"lp": np.zeros((4, 1))}, None)
            came.append(None)

    producer = threading.Thread(target=produce)
    producer.start()
    deadline = time.monotonic() + 10
    while len(came) < 1 + may_wait and time.monotonic() < deadline:
        time.sleep(0.01)
    producer.join(0.3)  # for one that should not come
    assert len(came) == 1 + may_wait
    let_go.set()
    producer.join(10)
    assert len(came) == 2
    sink.settle()


# Variables that are larger than memory


def test_a_variable_is_judged_part_by_part(tmp_path, monkeypatch, rng):
    values = {"a": rng.normal(size=(8, 40, 5, 3)), "b": rng.normal(size=(8, 40)), "lp": rng.normal(size=(8, 40))}
    values["a"][3, :, 2, 1] += 5.0
    draws = ZarrDraws(tmp_path / "run", 40, header(8))
    draws.append({name: values[name] for name in "ab"}, {"lp": values["lp"]})
    monkeypatch.setattr(stored_draws, "PART_BYTES", 8 * 40 * 3 * 8 * 2)
    stored, read = draws.draws, []
    between = stored_draws.StoredDraws.between

    def told(self, name, begin, end, place=slice(None)):
        read.append((name, place))
        return between(self, name, begin, end, place)

    monkeypatch.setattr(stored_draws.StoredDraws, "between", told)
    ids = np.arange(8)
    for name in "ab":
        mine, theirs = mixing(variable(stored, name), ids), mixing(values[name], ids)
        for column, expected in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(column, expected)
    assert [place for name, place in read if name == "a"] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    places = [place for place, _ in blocks(variable(stored, "a"))]
    assert [number for place in places for number in range(place.start, place.stop)] == list(range(15))
    read.clear()
    found = judge(stored, {"lp": values["lp"]}, ids)
    assert str(found) == str(judge({name: values[name] for name in "ab"}, {"lp": values["lp"]}, ids))
    assert "lp" not in {name for name, _ in read}
    assert max(place.stop - place.start for name, place in read if name == "a" and place.stop) == 2


def test_whether_a_variable_is_there_reads_nothing(tmp_path, monkeypatch):
    draws = ZarrDraws(tmp_path / "run", 3, header(4))
    draws.append(*chunk(1))
    monkeypatch.setattr(stored_draws.StoredDraws, "between", lambda *_: pytest.fail("was read"))
    assert "x" in draws.draws
    assert "z" not in draws.draws
    with pytest.raises(KeyError):
        draws.draws.shape("z")


# What is not kept


def test_a_run_has_not_converged_where_what_is_not_kept_has_not(tmp_path):
    def log_density(p):
        return -0.5 * jnp.sum(p["x"] ** 2) - 0.5 * p["slow"] ** 2 / 100.0**2

    model = shoal.Model(params={"x": shoal.real(2), "slow": shoal.real()}, log_density=log_density)
    asked = {"num_samples": 100, "num_chains": 64, "keep": "x", "sampler": shoal.HMC(step_size=1.0, num_steps=2)}
    for out in (None, tmp_path / "run"):
        result = sample(model, out=out, **asked)
        said = [finding for finding in result.findings if finding.blocking]
        assert [finding.kind for finding in said] == ["unkept"]
        assert said[0].where == "slow"
        assert not result.converged
    assert not shoal.load(tmp_path / "run").converged
    assert sample(model, **{**asked, "keep": ["x", "slow"]}).findings != ()


def test_a_healthy_run_that_keeps_some_converges(model):
    result = sample(model, num_samples=200, num_chains=64, keep="y", sampler=shoal.HMC(step_size=0.8, num_steps=3))
    assert result.converged, result.findings


def test_few_effective_draws_of_what_is_not_kept():
    names, sd = ["a", "b", "c"], np.array([1.0, 0.0, 1.0])
    r_hat, ess = np.array([1.0, np.nan, 1.009]), np.array([1e4, np.nan, 399.0])
    assert not list(unkept(names, sd, r_hat, np.array([1e4, np.nan, 400.0])))
    (found,) = unkept(names, sd, r_hat, ess)
    assert (found.where, found.number, found.blocking) == ("c", 399.0, True)
    (found,) = unkept(names, sd, np.array([1.0, np.inf, 1.2]), ess)
    assert found.where == "b"
    (found,) = unkept(names, np.array([1.0, np.nan, 1.0]), r_hat, ess)
    assert (found.where, found.blocking) == ("b", True)
    assert not list(unkept([], np.empty(0), np.empty(0), np.empty(0)))


def test_a_run_that_was_cut_does_not_say_that_what_is_not_kept_has_converged(
    model, short_chunks, tmp_path, monkeypatch
):
    flush = ZarrDraws.flush
    monkeypatch.setattr(ZarrDraws, "finish", lambda self, result: flush(self))
    sample(model, keep=["y"], num_samples=60, out=tmp_path / "run")
    assert [finding.kind for finding in shoal.load(tmp_path / "run").notes] == ["unkept"]
    assert not shoal.load(tmp_path / "run").converged


def test_a_run_that_is_looked_at_does_not_say_so(model):
    run = shoal.start(model, num_chains=16, num_samples=10**8, sampler=BY_HAND, keep=["y"])
    while run.progress().phase != "sampling":
        time.sleep(0.01)
    run.pause()
    assert [finding.kind for finding in run.inspect().notes] == ["unkept"]
    # What has been made is there when the run stands still.
    assert run.inspect().num_draws == run.progress().done
    run.stop()
    assert run.wait().num_draws


# Little that is kept


def test_a_run_goes_on_from_between_two_draws_that_are_kept(model, short_chunks, tmp_path, monkeypatch):
    begun, gone_on = [], Session.gone_on
    monkeypatch.setattr(
        Session, "gone_on", lambda self, run, kept: (begun.append(kept.facts["done"]), gone_on(self, run, kept))[1]
    )

    def show(chunk):
        if chunk.phase == "sampling" and chunk.done == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(show))
        with pytest.raises(KeyboardInterrupt):
            sample(model, thinning=30, out=tmp_path / "run")
    assert not begun
    whole = sample(model, thinning=30, out=tmp_path / "run")
    assert begun == [7]
    same_every(whole, sample(model), 30)


def test_time_that_is_up_before_the_first_draw_that_is_kept(model, tmp_path):
    asked = {"num_samples": 10**8, "thinning": 10**8, "max_seconds": 1.5}
    for out in (None, tmp_path / "run"):
        with pytest.raises(TimeoutError, match="before the first draw"):
            sample(model, out=out, **asked)


def test_a_second_ctrl_c_while_the_last_chunks_are_written(monkeypatch):
    """One that waits is not written; the one that is, is, and then nobody writes."""
    draws, append, begun = MemoryDraws(60, header(4)), MemoryDraws.append, threading.Event()

    def slowly(self, *chunk):
        begun.set()
        time.sleep(0.3)
        append(self, *chunk)

    monkeypatch.setattr(MemoryDraws, "append", slowly)
    sink = BackgroundDraws(draws)
    sink.append(*chunk(1), None)
    assert begun.wait(10)
    sink.append(*chunk(2), None)
    main = threading.get_ident()
    threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        sink.settle()
    assert draws.committed == 3
    assert not sink.is_writing


def test_status_counts_the_draws_that_are_made(model, tmp_path):
    sample(model, thinning=5, out=tmp_path / "run")
    seen = status_of(tmp_path / "run")
    assert (seen.draws, seen.asked) == (30, 30)
