"""A run at a URL: whenever it is stopped, what is there can be loaded, and goes on as one that was never stopped."""

import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.durable import claim, mirror
from shoal.durable.at_url import mirrored
from shoal.durable.claim import Claim, TakenOverError, last_writer, new_nonce
from shoal.objects import Objects, place_of

pytest.importorskip("zarr", reason="a run on disk needs Zarr")
fsspec = pytest.importorskip("fsspec", reason="a run at a URL needs fsspec")

URL = "memory://bucket/run"
DRAWS = 24


class Killed(BaseException):
    """As SIGKILL."""


def log_density(params, data):
    return -0.5 * jnp.sum((params["x"] / data["scale"]) ** 2)


MODEL = shoal.Model(
    params={"x": shoal.real(3)},
    log_density=log_density,
    data={"scale": np.array([0.5, 1.0, 2.0], np.float32)},
    name="small",
)


def sample(out=None, draws=DRAWS, **changes):
    asked = {"num_chains": 8, "num_warmup": 5, "num_samples": draws, "sampler": shoal.HMC(step_size=0.3, num_steps=3)}
    return shoal.sample(MODEL, out=out, **asked | changes, progress_bar=False)


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """Chunks of one sweep, sent at once; an empty store; a local copy that is the test's."""
    for name, seconds in {
        "shoal.run.CHUNK_SECONDS": 0.0,
        "shoal.warming.KEPT_EVERY": 0.0,
        "shoal.results.zarr_draws.STORED_EVERY": 0.0,
        "shoal.durable.mirror.EVERY": 0.1,
        "shoal.durable.mirror.RETRY": 0.01,
        "shoal.durable.mirror.OFTEN": 0.02,
        "shoal.durable.mirror.LOOK": 0.01,
        "shoal.durable.claim.BEAT": 0.1,
        "shoal.durable.claim.DEAD": 0.5,
        "shoal.durable.claim.LOOK": 0.01,
    }.items():
        monkeypatch.setattr(name, seconds)
    machine(tmp_path, monkeypatch, "here")
    memory().store.clear()
    yield
    memory().store.clear()


def memory():
    return fsspec.filesystem("memory")


def machine(tmp_path, monkeypatch, name):
    """Go on as another machine would: without the local copy."""
    monkeypatch.setenv("SHOAL_SPOOL", str(tmp_path / name))


def stored():
    """All objects of the run."""
    start = len("/bucket/run/")
    return {path[start:]: memory().cat_file(path) for path in memory().find("/bucket/run")}


def put(objects):
    memory().store.clear()
    for name, contents in objects.items():
        memory().pipe_file(f"/bucket/run/{name}", contents)


_WHOLE = {}


def whole(draws=DRAWS):
    """The run that nothing happens to."""
    if draws not in _WHOLE:
        _WHOLE[draws] = sample(draws=draws)
    return _WHOLE[draws]


def same(result, expected, told=()):
    for part in ("draws", "sample_stats", "tuning"):
        mine, theirs = getattr(result, part), getattr(expected, part)
        assert set(mine) == set(theirs)
        for name in theirs:
            np.testing.assert_array_equal(np.asarray(mine[name]), np.asarray(theirs[name]), err_msg=f"{part}: {name}")
    assert result.gradients == expected.gradients
    kept = [finding for finding in result.findings if finding.kind not in told]
    assert list(map(str, kept)) == list(map(str, expected.findings))
    assert result.summary().equals(expected.summary())


def beginning_of_whole(result):
    for name, values in result.draws.items():
        np.testing.assert_array_equal(values, whole().draws[name][:, : result.num_draws])


@pytest.fixture
def told(monkeypatch):
    """Something that happens when so many draws have been told of."""

    def prepare(draws, happens, phase="sampling"):
        show = lambda chunk: happens() if chunk.phase == phase and chunk.done == draws else None
        monkeypatch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(show))

    whole()
    return prepare


class Store:
    """The store, as it may be: gone, or written down object by object."""

    def __init__(self, monkeypatch):
        self.gone, self.log = False, []
        self._lock = threading.Lock()
        for name in ("send", "delete", "write", "listed"):
            monkeypatch.setattr(Objects, name, self._wrapped(name, getattr(Objects, name)))

    def _wrapped(self, name, do):
        def wrapped(objects, *arguments, **options):
            if self.gone:
                raise ConnectionError("nobody answers.")
            if name not in ("send", "delete"):
                return do(objects, *arguments, **options)
            with self._lock:
                done = do(objects, *arguments, **options)
                key = arguments[-1]
                self.log.append((key, objects.read(key) if name == "send" else None))
                return done

        return wrapped


@pytest.fixture
def store(monkeypatch):
    return Store(monkeypatch)


@pytest.fixture
def killed(monkeypatch, told, store):
    """A run whose process ends at a moment from which on nothing reaches the store."""

    def begin(draws, phase="sampling", first=lambda: None, **asked):
        def die():
            first()
            store.gone = True
            raise Killed

        told(draws, die, phase)
        with monkeypatch.context() as patch:
            patch.setattr(mirror, "HURRY", 0.0)
            with pytest.raises(Killed):
                sample(URL, **asked)
        told(-1, lambda: None)
        store.gone = False

    return begin


def spools():
    gc.collect()
    return [path for path in Path(os.environ["SHOAL_SPOOL"]).glob("*") if path.is_dir()]


# What is there.


def test_a_run_at_a_url():
    result = sample(URL)
    same(result, whole())
    same(shoal.load(URL), whole())
    assert len(spools()) == 1, "the result reads from it"
    some = result.draws
    del result
    np.testing.assert_array_equal(some["x"], whole().draws["x"])
    del some
    assert not spools()
    same(sample(URL), whole())  # nothing is left to do
    same(shoal.resume(URL, MODEL, add_samples=7, progress_bar=False), whole(DRAWS + 7))
    same(shoal.load(URL), whole(DRAWS + 7))
    assert not [name for name in stored() if name.endswith((".part", ".partial", "/lock"))]
    lines = stored()["metrics.jsonl"].decode().splitlines()
    assert json.loads(lines[-1])["draws"] == DRAWS + 7


def test_xarray_reads_it():
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    sample(URL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xarray.open_datatree(URL, engine="zarr")
        np.testing.assert_array_equal(tree["posterior"]["x"].values, whole().draws["x"])


def test_moments_of_a_run_at_a_url(told):
    def look():
        so_far = shoal.load(URL)
        if not so_far.moments or so_far.num_draws >= DRAWS:
            pytest.fail("nothing to look at")
        looks.append(so_far.moments.chain_means("x"))

    def later():
        while not any(name.startswith("checkpoints/draws") for name in stored()):
            time.sleep(0.01)
        look()

    looks = []
    expected = sample(keep="moments")
    told(9, later)
    result = sample(URL, keep="moments")
    assert looks[0].shape == (8, 3)
    for mine in (result, shoal.load(URL)):
        np.testing.assert_array_equal(mine.moments.chain_means("x"), expected.moments.chain_means("x"))
        assert mine.summary().equals(expected.summary())
    assert memory().exists("/bucket/run/moments.npz")


def plainly(expected):
    """The draws that count, as xarray sees them: none is missing, none is another; how many there are."""
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = xarray.open_datatree(URL, engine="zarr")
    count = tree.attrs["draws_committed"]
    for group, values in (("posterior", expected.draws), ("sample_stats", expected.sample_stats)):
        for name, seen in tree[group].data_vars.items():
            there, right = np.asarray(seen.values, float), np.asarray(values[name], float)
            here = ~np.isnan(there)
            assert here[:, :count].all()
            right = right[:, : there.shape[1]]
            here = here[:, : right.shape[1]]
            np.testing.assert_array_equal(there[:, : right.shape[1]][here], right[here])
    return count


def is_beside(name):
    """Whether an object is none that xarray reads."""
    return name.startswith(("checkpoints/", "metrics"))


@pytest.fixture
def logged(monkeypatch, store):
    """A run that is sent every few draws, object by object, in this thread; what reaches the store, in order."""
    monkeypatch.setattr(mirror, "EVERY", 1e9)
    monkeypatch.setattr(mirror, "AT_ONCE", 1)
    made, begin = [], mirror.Mirror.__init__
    monkeypatch.setattr(mirror.Mirror, "__init__", lambda self, *rest: (made.append(self), begin(self, *rest))[1])

    def show(chunk):
        if chunk.done % 7 == 0:
            made[-1]._send()

    def run(**asked):
        with monkeypatch.context() as patch:
            patch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(show))
            result = sample(URL, **asked)
        log, store.log = store.log, []
        return result, log

    whole()
    return run


def applied(objects, log):
    """What is there after each change."""
    objects = dict(objects)
    for name, contents in log:
        if contents is None:
            objects.pop(name, None)
        else:
            objects[name] = contents
        yield dict(objects)


def test_a_process_that_ends_after_any_upload(tmp_path, monkeypatch, logged):
    # Arrays get draws five at a time: until then checkpoints alone have them.
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 1e9)
    monkeypatch.setattr("shoal.results.zarr_draws.MOST_WAITING", 4.5 * whole().draws["x"][:, :1].nbytes)
    result, log = logged()
    same(result, whole())
    states, counts, plain = list(applied({}, log)), [], [0]
    for (name, _), objects in zip(log, states, strict=True):
        put(objects)
        counts.append(0)
        if "zarr.json" in objects:
            back = shoal.load(URL)
            counts[-1] = back.num_draws
            beginning_of_whole(back)
            assert np.isfinite(back.sample_stats["lp"]).all()
            plain.append(plain[-1] if is_beside(name) else plainly(whole()))
            assert plain[-1] <= counts[-1]
    assert counts == sorted(counts), "a draw that counted is not lost"
    assert set(plain) < set(counts), "checkpoints had some that arrays had not"
    assert len(set(counts)) > 3
    assert counts[-1] == DRAWS
    for number in range(0, len(states), 17):
        put(states[number])
        machine(tmp_path, monkeypatch, f"machine {number}")
        same(sample(URL), whole())
        same(shoal.load(URL), whole())


def test_draws_of_a_warmup_after_any_upload(tmp_path, monkeypatch, logged):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    asked = {"num_warmup": 15, "save_warmup": True, "draws": 8}
    expected = sample(**asked)
    result, log = logged(**asked)
    right = expected.warmup_draws["x"]
    np.testing.assert_array_equal(result.warmup_draws["x"], right)
    states, counts = list(applied({}, log)), [0]
    for number, objects in enumerate(states):
        assert counts[-1] == 0 or "zarr.json" in objects
        if number % 7 or "zarr.json" not in objects:
            continue
        put(objects)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = xarray.open_datatree(URL, engine="zarr")
        counts.append(tree.attrs["warmup_draws_committed"])
        if counts[-1]:
            np.testing.assert_array_equal(tree["warmup_posterior"]["x"][:, : counts[-1]], right[:, : counts[-1]])
    assert counts == sorted(counts), "a draw that counted is not lost"
    assert counts[-1] == 15
    assert len(set(counts)) > 2
    ended = [name for name, _ in log].index("checkpoints/warm.npz")
    for number in (5, ended - 7, ended, len(states) - 1):
        put(states[number])
        machine(tmp_path, monkeypatch, f"machine {number}")
        for back in (sample(URL, **asked), shoal.load(URL)):
            same(back, expected)
            np.testing.assert_array_equal(back.warmup_draws["x"], right)
            np.testing.assert_array_equal(back.warmup_sample_stats["lp"], expected.warmup_sample_stats["lp"])


def rot(file):
    """Change what the disk holds and nothing that it says of it."""
    told, size = file.stat(), len(file.read_bytes())
    with file.open("r+b") as opened:
        opened.write(b"~" * size)
    os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))


@pytest.mark.parametrize(
    ("damaged", "draws"), [("posterior/x/c/0/0/0", DRAWS), ("posterior/zarr.json", DRAWS + 7)], ids=["chunk", "store"]
)
def test_damage_is_mended_without_a_moment_of_wrong_draws(logged, damaged, draws):
    """Fewer draws count, or the store is made anew."""
    first, _ = logged()
    before = stored()
    (spool,) = spools()
    rot(spool / "run" / damaged)
    mended, log = logged(draws=draws)
    same(mended, whole(draws), told=["recovered"])
    assert any(finding.kind == "recovered" for finding in mended.findings)
    assert any(name == damaged for name, _ in log)
    for (name, _), objects in zip(log, applied(before, log), strict=True):
        put(objects)
        if "zarr.json" in objects and not is_beside(name):
            plainly(whole(draws))
    same(shoal.load(URL), whole(draws), told=["recovered"])
    del first


# What goes wrong.


def test_what_is_cleaned_from_the_local_copy_stays_at_the_url(told):
    """Somebody deletes old files of a cache, while the run goes on."""
    name, asked = "warmup_posterior/x/c/0/0/0", {"num_warmup": 15, "save_warmup": True}

    def clean():
        while name not in stored():
            time.sleep(0.01)
        (spool,) = spools()
        (spool / "run" / name).unlink()

    expected = sample(**asked)
    told(9, clean)
    result = sample(URL, **asked)
    assert [finding.where for finding in result.findings if finding.kind == "damaged"] == ["warmup_draws"]
    there = shoal.load(URL)
    np.testing.assert_array_equal(there.warmup_draws["x"], expected.warmup_draws["x"])
    np.testing.assert_array_equal(there.draws["x"], expected.draws["x"])


def test_a_root_that_was_damaged_at_the_url(tmp_path, monkeypatch):
    sample(URL)
    memory().pipe_file("/bucket/run/zarr.json", stored()["zarr.json"][:100])
    machine(tmp_path, monkeypatch, "there")
    result = sample(URL, draws=DRAWS + 7)
    assert not [finding for finding in result.findings if finding.kind == "not_uploaded"]
    same(shoal.load(URL), whole(DRAWS + 7), told=["recovered"])


def test_a_store_that_is_gone_for_a_while(told, store):
    there = []

    def come_back():
        there.append(stored())
        store.gone = False

    told(3, lambda: (setattr(store, "gone", True), threading.Timer(0.5, come_back).start()))
    same(sample(URL), whole())
    assert there[0] != stored(), "it was waited for"
    same(shoal.load(URL), whole())


def test_a_store_that_is_gone_at_the_end(told, store, monkeypatch):
    monkeypatch.setattr(mirror, "PATIENCE", 0.05)
    told(3, lambda: setattr(store, "gone", True))
    result = sample(URL)
    (finding,) = [finding for finding in result.findings if finding.kind == "not_uploaded"]
    assert finding in result.notes
    assert finding.blocking
    assert not result.converged
    assert "the store could not be written, with ConnectionError: nobody answers" in finding.words
    (spool,) = spools()
    assert f"'{spool / 'run'}'" in finding.words
    same(shoal.load(spool / "run"), whole())
    same(result, whole(), told=["not_uploaded"])
    del result
    assert spools() == [spool], "it is not deleted"
    store.gone = False
    monkeypatch.setattr(mirror, "PATIENCE", 60.0)
    with monkeypatch.context() as patch:
        patch.setattr("shoal.drawing.drive", lambda *rest: pytest.fail("sampled"))
        same(sample(URL), whole())
    same(shoal.load(URL), whole())
    assert not spools()


@pytest.mark.parametrize(("phase", "draws"), [("warmup", 3), ("sampling", 9)])
def test_killed_before_all_was_sent(killed, store, monkeypatch, phase, draws):
    """What was written here only is not lost."""
    killed(draws, phase, first=lambda: (setattr(store, "gone", True), time.sleep(0.05)))
    from shoal.session import Session

    begun, gone_on = [], Session.gone_on
    monkeypatch.setattr(
        Session, "gone_on", lambda self, run, kept: (begun.append(kept.facts["done"]), gone_on(self, run, kept))[1]
    )
    same(sample(URL), whole())
    assert begun[0] >= draws - 2, "it went on from the local copy"
    same(shoal.load(URL), whole())


@pytest.mark.parametrize(("phase", "draws"), [("warmup", 3), ("sampling", 9)])
def test_on_another_machine(tmp_path, killed, monkeypatch, phase, draws):
    killed(draws, phase, first=lambda: time.sleep(0.2))
    assert not last_writer(Objects(URL)).released
    machine(tmp_path, monkeypatch, "there")
    same(sample(URL), whole())
    same(shoal.load(URL), whole())
    # The first one comes back: its copy is not the latest any more.
    machine(tmp_path, monkeypatch, "here")
    same(shoal.resume(URL, MODEL, add_samples=3, progress_bar=False), whole(DRAWS + 3))


def test_another_run_that_was_not_sent_is_set_aside(tmp_path, killed, store, monkeypatch):
    killed(9, seed=1)
    put({})
    machine(tmp_path, monkeypatch, "there")
    same(sample(URL), whole())
    machine(tmp_path, monkeypatch, "here")
    result = sample(URL)
    (finding,) = [finding for finding in result.findings if finding.kind == "recovered"]
    (aside,) = [path for path in spools() if "-aside-" in path.name]
    assert f"'{aside}'" in finding.words
    assert shoal.load(aside).settings["seed"] == 1


def test_a_run_that_was_deleted_begins_anew():
    result = sample(URL, seed=1)
    put({})
    same(sample(URL), whole())
    del result


def test_another_run_is_refused():
    sample(URL)
    before = stored()
    with pytest.raises(ValueError, match=r"'memory://bucket/run' holds another run.*seed was 0 and is 1"):
        sample(URL, seed=1)
    after = stored()
    assert {name: contents for name, contents in after.items() if "writer-" not in name} == {
        name: contents for name, contents in before.items() if "writer-" not in name
    }


def test_a_refused_model_leaves_nothing():
    nowhere = shoal.Model(params={"x": shoal.real()}, log_density=lambda params: params["x"] * jnp.nan, name="nowhere")
    with pytest.raises(ValueError, match="cannot be sampled"):
        shoal.sample(nowhere, num_chains=8, out=URL, progress_bar=False)
    assert not stored()
    assert not spools()


def test_what_else_is_there_is_left_alone():
    first = sample(URL, draws=DRAWS - 4)
    memory().pipe_file("/bucket/run/notes.txt", b"mine")
    memory().pipe_file("/bucket/run2/posterior/x", b"mine")
    same(sample(URL), whole())
    del first
    assert not spools()
    same(sample(URL, draws=DRAWS + 7), whole(DRAWS + 7))
    assert stored()["notes.txt"] == b"mine"
    assert memory().cat_file("/bucket/run2/posterior/x") == b"mine"


def test_sigterm_takes_its_course_when_everything_is_sent(told):
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(shoal.load(URL).num_draws))
    try:
        told(5, lambda: signal.raise_signal(signal.SIGTERM))
        result = sample(URL)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [result.num_draws] == [5]
    beginning_of_whole(result)


def test_a_look_while_it_goes_on(told):
    held = threading.Event()
    told(-1, lambda: None)
    run = shoal.start(
        MODEL, num_chains=8, num_warmup=5, num_samples=10**6, sampler=shoal.HMC(step_size=0.3, num_steps=3), out=URL
    )
    while run.progress().phase != "sampling" or run.progress().done < 3:
        held.wait(0.01)
    run.pause()
    so_far = run.inspect()
    run.stop()
    result = run.wait()
    del result, run
    assert np.isfinite(so_far.draws["x"]).all(), "it may be read as long as it is there"
    del so_far
    assert not spools()


# Two processes.


def test_a_second_process_is_refused(tmp_path, monkeypatch):
    with mirrored(Objects(URL)):
        words = rf"'memory://bucket/run' is being written by another process \(process {os.getpid()} on .*another URL"
        for name in ("here", "there"):
            machine(tmp_path, monkeypatch, name)
            words = words if name == "there" else rf"being written by another process \(process {os.getpid()} on"
            with pytest.raises(ValueError, match=words):
                sample(URL)
    machine(tmp_path, monkeypatch, "there")
    same(sample(URL), whole())


def test_a_process_that_was_taken_for_dead(tmp_path, monkeypatch, told):
    """It stood still, sends nothing more, and says so."""
    monkeypatch.setattr(Claim, "_beat", lambda self: None)
    monkeypatch.setattr(Claim, "_is_fresh", lambda self: True)
    others = []

    def take_over():
        with monkeypatch.context() as patch:
            patch.setenv("SHOAL_SPOOL", str(tmp_path / "there"))
            patch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(lambda chunk: None))
            others.append(sample(URL))

    told(9, take_over)
    result = sample(URL)
    (other,) = others
    same(other, whole())
    (finding,) = [finding for finding in result.findings if finding.kind == "not_uploaded"]
    assert f"Another process (process {os.getpid()} on" in finding.words
    same(result, whole(), told=["not_uploaded"])
    same(shoal.load(URL), whole())


def test_one_of_two_follows():
    objects = Objects(URL)
    before = last_writer(objects)
    one = Claim(objects, before, new_nonce(), dead=True)
    with pytest.raises(ValueError, match="being written by another process"):
        Claim(objects, before, new_nonce(), dead=True)
    one.check()
    objects.write(one._own._replace(number=7).key, one._own._replace(number=7, nonce="other").contents)
    with pytest.raises(TakenOverError):
        one.check()
    one.release(keep=True)
    assert not last_writer(objects).released, "it is not its own"


def test_a_dead_process_holds_no_run(monkeypatch):
    """Times are those of the store: one that has been silent for long is followed at once."""
    objects = Objects(URL)
    monkeypatch.setattr(Claim, "_beat", lambda self: None)
    Claim(objects, last_writer(objects), new_nonce(), dead=False)
    with monkeypatch.context() as patch:
        patch.setattr(claim.time, "sleep", lambda seconds: pytest.fail("waited"))
        patch.setattr(claim, "DEAD", 1e-9)
        Claim(objects, last_writer(objects), new_nonce(), dead=False)
    began = time.monotonic()
    Claim(objects, last_writer(objects), new_nonce(), dead=False)
    assert time.monotonic() - began > 0.2
    assert last_writer(objects).number == 3


def test_what_is_under_way_when_the_wait_ends_keeps_the_claim(monkeypatch):
    """It may still arrive: so nobody follows before the process counts as dead."""
    monkeypatch.setattr(mirror, "PATIENCE", 0.05)
    under_way, answered, send = threading.Event(), threading.Event(), Objects.send

    def hang(objects, file, name):
        if name.startswith("posterior/x/c/"):
            under_way.set()
            answered.wait(30)
        send(objects, file, name)

    monkeypatch.setattr(Objects, "send", hang)
    try:
        result = sample(URL)
        assert under_way.is_set()
        assert any(finding.kind == "not_uploaded" for finding in result.findings)
        assert not last_writer(Objects(URL)).released
        (spool,) = spools()
        assert json.loads((spool / "lingering.json").read_text()) == last_writer(Objects(URL)).nonce
    finally:
        answered.set()


def test_nothing_is_sent_by_who_may_be_taken_for_dead(monkeypatch):
    objects = Objects(URL)
    monkeypatch.setattr(claim, "BEAT", 30.0)
    one = Claim(objects, last_writer(objects), new_nonce(), dead=True)
    one._told -= 10.0
    with monkeypatch.context() as patch:
        patch.setattr(Objects, "write", lambda *rest, **options: (_ for _ in ()).throw(ConnectionError()))
        with pytest.raises(ConnectionError):
            one.go_on()
    one.go_on()
    objects.write(one._own._replace(number=7).key, one._own._replace(number=7, nonce="other").contents)
    one._told -= 10.0
    for _ in range(2):  # of the second the store is not asked
        with pytest.raises(TakenOverError):
            one.go_on()
        one._told = claim._now()
    one.release(keep=True)


# The doors.


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("ftp://host/run", r"no place for a run: .*Known are s3://"),
        ("s3:///", r"no place for a run"),
        (Path("s3://bucket/run"), r"no URL any more: give it as a string"),
        ("s3:/bucket/run", r"'s3:/bucket/run' is no URL: give it as a string, such as 's3://bucket/run'"),
    ],
)
def test_a_url_that_is_none(out, words):
    for door in (sample, shoal.load, shoal.resume):
        with pytest.raises(ValueError, match=words):
            door(out)


def test_nothing_is_there():
    with pytest.raises(ValueError, match=r"'memory://bucket/run' does not hold a run"):
        shoal.load(URL)
    with pytest.raises(ValueError, match=r"'memory://bucket/run' has no run that can go on"):
        shoal.resume(URL)


def test_something_else_is_there():
    memory().pipe_file("/bucket/run/notes.txt", b"mine")
    with pytest.raises(ValueError, match="is not empty and does not hold a run"):
        sample(URL)
    memory().pipe_file("/bucket/run/zarr.json", b"{}")
    with pytest.raises(ValueError, match="already holds a run that cannot go on"):
        sample(URL)
    assert len(stored()) == 2


def test_who_may_not_write_is_told(monkeypatch):
    def refuse(*rest, **options):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(Objects, "write", refuse)
    with pytest.raises(ValueError, match=r"cannot be used: PermissionError: Access Denied.*credentials"):
        sample(URL)


def test_no_room_for_the_local_copy(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    machine(tmp_path, monkeypatch, "file")
    with pytest.raises(ValueError, match=r"cannot be written.*Set SHOAL_SPOOL"):
        sample(URL)


def test_a_missing_package_is_named(monkeypatch):
    def gone(*rest, **options):
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "url_to_fs", gone)
    with pytest.raises(ModuleNotFoundError, match=r'needs the package \'gcsfs\'.*pip install "shoal\[cloud\]"'):
        place_of("gs://bucket/run")


def test_copies_of_processes_that_are_gone_are_swept():
    result = sample(URL)
    (spool,) = spools()
    shutil.copytree(spool, spool.with_name("left"))
    sample("memory://bucket/other")
    assert spools() == [spool], "the other one is in use"
    del result


# Amazon's protocol, on a server of this machine.


@pytest.fixture(scope="module")
def bucket():
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="the server of moto is not installed")
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
        fsspec.filesystem("s3").clear_instance_cache()
    running.stop()


CODE = """
import sys, jax.numpy as jnp, numpy as np, shoal
from shoal import run
from shoal.durable import mirror
mirror.EVERY, run.CHUNK_SECONDS = 0.3, 0.0
model = shoal.Model(
    params={"x": shoal.real(3)},
    log_density=lambda params, data: -0.5 * jnp.sum((params["x"] / data["scale"]) ** 2),
    data={"scale": np.array([0.5, 1.0, 2.0], np.float32)},
    name="small",
)
sampler = shoal.HMC(step_size=0.3, num_steps=3)
shoal.sample(model, num_chains=8, num_warmup=5, num_samples=10**6, sampler=sampler, out=sys.argv[1])
"""


@pytest.mark.slow
def test_a_real_kill(bucket, tmp_path, monkeypatch):
    """SIGKILL of a process that writes to S3; another machine goes on with it."""
    url = f"{bucket}/killed"
    objects, other = Objects(url), {**os.environ, "SHOAL_SPOOL": str(tmp_path / "lost")}
    process = subprocess.Popen([sys.executable, "-c", CODE, url], env=other, stderr=subprocess.DEVNULL)
    try:
        for _ in range(400):
            if objects.has("zarr.json") and shoal.load(url).num_draws:
                break
            assert process.poll() is None
            time.sleep(0.3)
    finally:
        process.kill()
        process.wait()
    kept = shoal.load(url)
    draws = kept.num_draws + 5
    monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.5)
    monkeypatch.setattr(mirror, "EVERY", 10.0)
    monkeypatch.setattr(claim, "BEAT", 10.0)
    np.testing.assert_array_equal(kept.draws["x"], whole(draws).draws["x"][:, :-5])
    same(shoal.resume(url, MODEL, num_samples=draws, progress_bar=False), whole(draws))
    same(shoal.load(url), whole(draws))


def test_a_bucket_that_is_not_there(bucket):
    with pytest.raises(ValueError, match=r"'s3://nobody/run' cannot be used: .*bucket does not exist.*Make the bucket"):
        sample("s3://nobody/run")


def test_the_command_line(bucket, capsys, tmp_path, monkeypatch):
    from shoal.cli import main, targets

    monkeypatch.setattr(targets, "resolve", lambda target: MODEL)
    monkeypatch.setattr(mirror, "EVERY", 10.0)
    monkeypatch.setattr(claim, "BEAT", 10.0)
    monkeypatch.chdir(tmp_path)
    url = f"{bucket}/line"
    settings = ["--sampler", "hmc", "--set", "step_size=0.3", "--set", "num_steps=3"]
    counts = ["--num-chains", "8", "--num-warmup", "5", "--num-samples", "12"]
    assert main(["sample", "eight_schools", *settings, *counts, "--out", url, "--json", "--no-progress"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["directory"], said["num_draws"]) == (url, 12)
    assert main(["resume", url, "eight_schools", "--add-samples", "3", "--quiet"]) == 3
    assert main(["status", url, "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["state"], seen["draws_committed"], seen["metrics"]["draws"]) == ("finished", 15, 15)
    assert main(["summary", url, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["num_draws"] == 15
    assert main(["status", f"{bucket}/nothing"]) == 2
    assert "does not hold a run" in capsys.readouterr().err
    pytest.importorskip("pyarrow", reason="an optional format")
    assert main(["export", url, "--to", "arrow"]) == 0
    assert (tmp_path / "draws.arrow").is_file()


def test_what_was_not_uploaded_fails_the_command(store, told, monkeypatch, capsys):
    from shoal.cli import main, targets

    monkeypatch.setattr(targets, "resolve", lambda target: MODEL)
    monkeypatch.setattr(mirror, "PATIENCE", 0.05)
    told(3, lambda: setattr(store, "gone", True))
    settings = ["--sampler", "hmc", "--set", "step_size=0.3", "--set", "num_steps=3"]
    counts = ["--num-chains", "8", "--num-warmup", "5", "--num-samples", "12"]
    assert main(["sample", "eight_schools", *settings, *counts, "--out", URL]) == 1
    assert "Not all of the run is in 'memory://bucket/run'" in " ".join(capsys.readouterr().out.split())
