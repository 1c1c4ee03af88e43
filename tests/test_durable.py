"""A run outlives its process: whenever it is killed, it goes on, and ends as the run that was never killed."""

import datetime
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.keeping import constrained, of_all
from shoal.results.archive import DamagedFileError, read_archive, write_archive
from shoal.results.course import Course
from shoal.results.journal import Journal
from shoal.warmup.playing import OwnProgram, SamplingProgram
from shoal.warmup.stages import Stages
from shoal.watching.status import status_of

pytest.importorskip("zarr", reason="a run on disk needs Zarr")

SCALE = np.array([0.5, 1.0, 2.0], np.float32)


class Killed(BaseException):
    """As SIGKILL: nothing that Shoal does on the way out of an error is done."""


def log_density(params, data):
    return -0.5 * jnp.sum((params["x"] / data["scale"]) ** 2) - 0.5 * params["y"] ** 2 * jnp.exp(-params["x"][0])


def narrower(params, data):
    return log_density(params, data) - 0.5 * params["y"] ** 2 * 0.2


def model(scale=SCALE, log_density=log_density, size=3):
    return shoal.Model(
        params={"x": shoal.real(size), "y": shoal.real()}, log_density=log_density, data={"scale": scale}, name="small"
    )


SAMPLERS = {
    "auto": {"num_chains": 32, "sampler": "auto"},
    "auto, few chains": {"num_chains": 4, "sampler": "auto"},
    "chees": {"num_chains": 16, "num_warmup": 60, "sampler": "chees"},
    "nuts": {"num_chains": 16, "num_warmup": 60, "sampler": "nuts"},
    "meads": {"num_chains": 32, "num_warmup": 60, "sampler": "meads"},
    "mams": {"num_chains": 16, "num_warmup": 60, "sampler": "mams"},
    "brief": {"num_chains": 16, "num_warmup": 5, "sampler": "chees"},
    "hmc": {"num_chains": 16, "num_warmup": 20, "sampler": shoal.HMC(step_size=0.3, num_steps=3)},
}
DRAWS = 24
BRIEF = {"name": "brief", "draws": 3}
# Of the writes of a run one in so many is its last; `make validate` takes each of them.
STRIDE = int(os.environ.get("SHOAL_KILL_STRIDE", "15"))


def sample(out=None, draws=DRAWS, name="chees", target=None, **changes):
    asked = {"num_samples": draws, "progress_bar": False, **SAMPLERS[name], **changes}
    return shoal.sample(model() if target is None else target, out=out, **asked)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Of one sweep each, written at once to the arrays and to the checkpoints."""
    monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.0)
    monkeypatch.setattr("shoal.warming.KEPT_EVERY", 0.0)
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 0.0)


@pytest.fixture
def killed(monkeypatch):
    """Begin a run, and kill it when so many chunks of a phase have been told of."""

    def begin(phase, chunks, **asked):
        import contextlib

        told = []

        def show(chunk):
            told.append(chunk.phase)
            if told.count(phase) == chunks:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(show))
            with pytest.raises(Killed):
                sample(**asked)

    return begin


_WHOLE = {}


def whole(name="chees", draws=DRAWS):
    """The run that nothing happens to."""
    if (name, draws) not in _WHOLE:
        _WHOLE[name, draws] = sample(name=name, draws=draws)
    return _WHOLE[name, draws]


def same(result, expected):
    for part in ("draws", "sample_stats", "tuning"):
        mine, theirs = getattr(result, part), getattr(expected, part)
        assert list(mine) == list(theirs) if part != "tuning" else set(mine) == set(theirs)
        for name in theirs:
            np.testing.assert_array_equal(np.asarray(mine[name]), np.asarray(theirs[name]), err_msg=f"{part}: {name}")
    assert result.gradients == expected.gradients
    assert result.warmup == expected.warmup
    assert result.interrupted == expected.interrupted
    kept = [finding for finding in result.findings if finding.kind != "recovered"]
    assert str(kept) == str(list(expected.findings))
    assert result.summary().equals(expected.summary())


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "brief"])
@pytest.mark.parametrize(("phase", "chunks"), [("warmup", 1), ("warmup", 4), ("sampling", 1), ("sampling", 2)])
def test_a_killed_run_ends_as_one_that_was_let_alone(tmp_path, killed, name, phase, chunks):
    killed(phase, chunks, out=tmp_path / "run", name=name)
    same(sample(tmp_path / "run", name=name), whole(name))
    same(shoal.load(tmp_path / "run"), whole(name))


def test_the_warmup_of_auto_plays_no_stage_twice(tmp_path, killed, monkeypatch):
    expected = whole("auto")
    killed("warmup", 12, out=tmp_path / "run", name="auto")
    stages = sorted((tmp_path / "run" / "checkpoints").glob("stage-*"))
    assert len(stages) > 2
    made = read_archive(stages[-1]).facts["step"]
    played = []
    for kind in (OwnProgram, SamplingProgram):
        counted = lambda self, run, *rest, play=kind.play: (played.append(int(run.step)), play(self, run, *rest))[1]
        monkeypatch.setattr(kind, "play", counted)
    same(sample(tmp_path / "run", name="auto"), expected)
    assert min(played) >= made > 0
    assert not list((tmp_path / "run" / "checkpoints").glob("stage-*")), "not needed any more"


def test_a_kill_before_anything_is_kept(tmp_path, monkeypatch):
    def die(*rest):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("shoal.sampling.sampled", die)
        with pytest.raises(Killed):
            sample(tmp_path / "run")
    same(sample(tmp_path / "run"), whole())


@pytest.fixture
def dying(monkeypatch):
    """The process dies at the n-th thing that it does to the disk."""
    import zarr

    left = [0]
    store, replace, delete = zarr.storage.LocalStore.set, Path.replace, Path.unlink

    def count():
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    async def stored(self, key, value, *rest):
        count()
        return await store(self, key, value, *rest)

    def replaced(self, target):
        count()
        return replace(self, target)

    def deleted(self, missing_ok=False):
        count()
        return delete(self, missing_ok=missing_ok)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", stored)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", deleted)

    def after(times):
        left[0] = times

    return after


def test_a_kill_at_any_write(tmp_path, dying):
    """Writes of a short run in turn are the last one of its process, and then some write of the resumed one."""
    sample(tmp_path / "first", **BRIEF)  # compiles
    expected, died = whole(**BRIEF), 0
    for number in range(1, 400, STRIDE):
        out = tmp_path / "run"
        dying(number)
        try:
            sample(out, **BRIEF)
        except Killed:
            died += 1
            dying(1 + number // STRIDE % 7)  # again, soon after it goes on
            try:
                sample(out, **BRIEF)
            except Killed:
                opened_plainly(out)
            dying(0)
            same(sample(out, **BRIEF), expected)
            shutil.rmtree(out)
            continue
        break
    assert died == number // STRIDE
    assert 60 < number < 350 + STRIDE, "of about this many writes"


def opened_plainly(out):
    """What xarray sees without Shoal: draws that count, or nothing."""
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    if not (out / "zarr.json").exists():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = xarray.open_datatree(out, engine="zarr")
    expected = whole(**BRIEF)
    for group, values in (("posterior", expected.draws), ("sample_stats", expected.sample_stats)):
        for name, seen in tree.get(group, {}).items() if group in tree else ():
            there, right = np.asarray(seen.values, float), np.asarray(values[name], float)
            right = right[:, : there.shape[1]]
            here = ~np.isnan(there)
            np.testing.assert_array_equal(there[here], right[here])


def test_plain_xarray_while_it_runs(tmp_path, killed):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    killed("sampling", 3, out=tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xarray.open_datatree(tmp_path / "run", engine="zarr")
    count = tree.attrs["draws_committed"]
    assert 0 < count < DRAWS
    for group in ("posterior", "sample_stats"):
        for seen in tree[group].data_vars.values():
            assert np.isfinite(seen.values[:, :count]).all()
            assert np.isnan(seen.values[:, count:]).all()


def test_draws_that_only_the_journal_has(tmp_path, killed, monkeypatch):
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 1e9)
    killed("sampling", 3, out=tmp_path / "run")
    back = shoal.load(tmp_path / "run")
    assert 0 < back.num_draws < DRAWS
    for name, values in whole().draws.items():
        np.testing.assert_array_equal(back.draws[name], values[:, : back.num_draws])
    assert back.shape("x") == (3,)
    assert f"x (16, {back.num_draws}, 3)" in repr(back.draws)
    same(sample(tmp_path / "run"), whole())


# Damage.


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 4
    path.write_bytes(contents)


def cut(path):
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])


DAMAGE = {"flipped": flip, "cut": cut, "gone": Path.unlink}


SLOW = [("flipped", "warmup"), ("cut", "warmup"), ("gone", "sampling")]


@pytest.mark.parametrize(
    ("damage", "phase"),
    [
        pytest.param(damage, phase, marks=[pytest.mark.slow] * ((damage, phase) in SLOW))
        for damage in DAMAGE
        for phase in ("warmup", "sampling")
    ],
)
def test_damaged_checkpoints(tmp_path, killed, damage, phase):
    """The last one, and all but the first: what is lost is made again."""
    for name in ("chees", "auto"):
        for some in (slice(-1, None), slice(None)):
            out = tmp_path / f"{name}{some.start}"
            killed(phase, 12 if (phase, name) == ("warmup", "auto") else 3, out=out, name=name)
            files = [path for path in sorted((out / "checkpoints").glob("*.npz")) if path.name != "beginning.npz"]
            assert files
            for path in files[some]:
                DAMAGE[damage](path)
            result = sample(out, name=name)
            same(result, whole(name))
            told = [finding for finding in result.findings if finding.kind == "recovered"]
            if damage != "gone":
                assert told
                assert not any(finding.blocking for finding in told)
                assert any(files[-1].name in finding.words for finding in told)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_draws(tmp_path, killed, damage):
    killed("sampling", 3, out=tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    for out in (tmp_path / "run", tmp_path / "copy"):
        file = out / "posterior" / "x" / "c" / "0" / "0" / "0"
        assert file.is_file()
        DAMAGE[damage](file)
    if damage != "gone":
        with pytest.raises(ValueError, match=r"draws of 'x' in '.*x' are damaged .*shoal.resume"):
            shoal.load(tmp_path / "copy").draws["x"]
    result = sample(tmp_path / "run")
    same(result, whole())
    (told,) = [finding for finding in result.findings if finding.kind == "recovered"]
    assert "'x'" in told.words
    assert "made again, the same" in told.remedy
    assert not told.blocking


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_finished_run_is_mended(tmp_path, damage):
    sample(tmp_path / "run")
    DAMAGE[damage](tmp_path / "run" / "sample_stats" / "lp" / "c" / "0" / "0")
    if damage != "gone":
        with pytest.raises(ValueError, match="damaged"):
            shoal.load(tmp_path / "run").sample_stats["lp"]
    result = sample(tmp_path / "run")
    same(result, whole())
    same(shoal.load(tmp_path / "run"), whole())


@pytest.mark.parametrize("file", ["zarr.json", "posterior/zarr.json", "posterior/x/zarr.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_metadata(tmp_path, killed, file, damage):
    killed("sampling", 3, out=tmp_path / "run")
    DAMAGE[damage](tmp_path / "run" / file)
    result = sample(tmp_path / "run")
    same(result, whole())
    (told,) = [finding for finding in result.findings if finding.kind == "recovered"]
    assert "Draws on disk are damaged: what describes them" in told.words
    aside = list((tmp_path / "run" / "checkpoints").glob("damaged-*/posterior/y/c/0/0"))
    assert len(aside) == 1, "the draws that were there are not deleted"


def test_no_other_error_sets_draws_aside(tmp_path, killed, monkeypatch):
    killed("sampling", 3, out=tmp_path / "run")

    def exhausted(*rest):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("shoal.results.zarr_draws.declare_incomplete", exhausted)
        with pytest.raises(MemoryError):
            sample(tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("damaged-*"))
    same(sample(tmp_path / "run"), whole())


def test_a_kill_while_damage_is_made_good(tmp_path, killed, monkeypatch):
    """It goes on from there, and draws that could be read are not lost on the way."""
    monkeypatch.setattr("shoal.results.zarr_draws.FILE_BYTES", 16 * 4 * 4)
    monkeypatch.setattr("shoal.results.zarr_draws.ROOM", 1)
    killed("sampling", 20, out=tmp_path / "run")
    count = shoal.load(tmp_path / "run").num_draws
    flip(tmp_path / "run" / "posterior" / "y" / "c" / "0" / "3")  # draws 12 to 15
    from shoal.session import Session

    begun = []
    gone_on = Session.gone_on
    monkeypatch.setattr(
        Session, "gone_on", lambda self, run, kept: (begun.append(kept.facts["done"]), gone_on(self, run, kept))[1]
    )
    made = []
    for _ in range(2):
        killed("sampling", 3, out=tmp_path / "run")
        made.append(shoal.load(tmp_path / "run").num_draws)
    assert count > 15
    assert made[0] >= 12
    assert begun, "it did not begin at 0 again"
    same(sample(tmp_path / "run"), whole())


def test_an_error_of_the_system_is_no_damage(tmp_path, killed, monkeypatch):
    import zarr

    killed("sampling", 3, out=tmp_path / "run")
    file = tmp_path / "run" / "posterior" / "x" / "c" / "0" / "0" / "0"

    def stale(*rest):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__getitem__", stale)
        with pytest.raises(OSError, match="Stale"):
            sample(tmp_path / "run")
    assert file.is_file()
    same(sample(tmp_path / "run"), whole())


def test_folders_of_the_user_are_not_touched(tmp_path):
    for name in ("checkpoints/model.ckpt.part", "tuning/study.csv", "posterior/a.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="is not empty and does not hold a run"):
        sample(tmp_path)
    assert len(list(tmp_path.rglob("*.*"))) == 3


def test_a_run_without_its_beginning_is_refused(tmp_path, killed):
    killed("sampling", 3, out=tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "beginning.npz").unlink()
    with pytest.raises(ValueError, match="already holds a run"):
        sample(tmp_path / "run", seed=5)


def test_a_refused_model_leaves_nothing(tmp_path):
    nowhere = model(log_density=lambda params, data: log_density(params, data) + jnp.nan)
    with pytest.raises(ValueError, match="cannot be sampled"):
        sample(tmp_path / "run", target=nowhere)
    assert not (tmp_path / "run").exists()


def test_a_damaged_beginning(tmp_path, killed):
    killed("sampling", 3, out=tmp_path / "run")
    cut(tmp_path / "run" / "checkpoints" / "beginning.npz")
    with pytest.raises(ValueError, match=r"beginning.npz' is damaged.*cannot go on. shoal.load reads its draws"):
        sample(tmp_path / "run")
    assert shoal.load(tmp_path / "run").num_draws > 0


def test_a_checkpoint_of_a_newer_format(tmp_path, killed):
    killed("sampling", 3, out=tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "beginning.npz"
    arrays, facts = read_archive(path)
    write_archive(path, arrays, {**facts, "format_version": 99})
    with pytest.raises(ValueError, match=r"checkpoints of format 99.*install a newer Shoal"):
        sample(tmp_path / "run")


def test_an_archive_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "file.npz"
    arrays = {"a:b/c": np.arange(6.0).reshape(2, 3), "empty": np.zeros((0, 2), np.int8), "flag": np.array(True)}
    write_archive(path, arrays, {"x": float("inf"), "y": [1, "ä"]})
    back = read_archive(path)
    assert back.facts == {"x": float("inf"), "y": [1, "ä"]}
    for name, array in arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
        assert back.arrays[name].dtype == array.dtype
    contents = path.read_bytes()
    for place in range(len(contents)):
        changed = bytearray(contents)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError):
            read_archive(path)
    path.write_bytes(contents)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_archive(path, {}, {})
    assert path.read_bytes() == contents
    assert [file.name for file in tmp_path.iterdir()] == ["file.npz"]


# What goes on with what.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"num_chains": 32}, "num_chains was 16 and is 32"),
        ({"name": "nuts"}, "sampler was 'chees' and is 'nuts'"),
        ({"sampler": shoal.ChEES(target_accept=0.7)}, "sampler.target_accept was 0.8 and is 0.7"),
        ({"num_warmup": 61}, "num_warmup was 60 and is 61"),
        ({"tile": 8}, "tile was 16 and is 8"),
        ({"target": model(scale=SCALE + 1e-6)}, "data['scale'] has other values"),
        ({"target": model(size=2, scale=SCALE[:2])}, "the shape of parameter x was [3] and is [2]"),
        ({"target": model(log_density=narrower)}, "the log density: where chain"),
        ({"initial_positions": np.zeros((16, 4))}, "what was given as initial_positions has other values"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("chunks", [("warmup", 2), ("sampling", 3)], ids=["warmup", "sampling"])
def test_another_run_is_refused(tmp_path, killed, changes, words, chunks):
    killed(*chunks, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds another run.*Give a new directory") as refused:
        sample(tmp_path / "run", **changes)
    assert words in str(refused.value)
    same(sample(tmp_path / "run"), whole())


@pytest.mark.parametrize(
    "other",
    [
        lambda params, data: log_density(params, data) - 0.5 * jnp.sum((params["x"] - 30.0) ** 2),
        lambda params, data: jnp.where(params["y"] > 1.0, -jnp.inf, log_density(params, data)),
        lambda params, data: log_density(params, data) - jnp.where(params["y"] > 0.5, 3.0, 0.0),
    ],
    ids=["elsewhere", "nowhere", "a few"],
)
@pytest.mark.parametrize("chunks", [("warmup", 12), ("sampling", 3)], ids=["warmup", "sampling"])
def test_another_log_density_is_refused_of_auto(tmp_path, killed, other, chunks):
    killed(*chunks, out=tmp_path / "run", name="auto")
    with pytest.raises(ValueError, match=r"What differs: the log density: where chain \d+ was left"):
        sample(tmp_path / "run", name="auto", target=model(log_density=other))
    same(sample(tmp_path / "run", name="auto"), whole("auto"))
    with pytest.raises(ValueError, match=r"What differs: the log density"):
        sample(tmp_path / "run", name="auto", target=model(log_density=other))


def test_the_number_of_superchains_decides(tmp_path, killed):
    killed("sampling", 3, out=tmp_path / "run", num_superchains=8)
    with pytest.raises(ValueError, match="num_superchains was 8 and is 2"):
        sample(tmp_path / "run", num_superchains=2)


def test_a_name_decides_nothing(tmp_path, killed):
    killed("sampling", 3, out=tmp_path / "run")
    other = model()
    other.name = "renamed"
    same(sample(tmp_path / "run", target=other), whole())


def test_settings_may_be_numbers_of_numpy(tmp_path):
    asked = {"seed": np.int64(3), "num_chains": np.int64(16), "num_warmup": 20}
    asked["sampler"] = shoal.HMC(step_size=np.float32(0.3), num_steps=3)
    sample(tmp_path / "run", **asked)
    assert shoal.load(tmp_path / "run").settings["seed"] == 3


def test_a_log_density_that_rounds_otherwise_is_the_same(tmp_path, killed):
    killed("sampling", 3, out=tmp_path / "run")
    other = lambda params, data: log_density(params, data) * np.float32(1 + 1e-6)
    assert sample(tmp_path / "run", target=model(log_density=other)).num_draws == DRAWS


@pytest.mark.parametrize("name", ["auto", "nuts", "chees"])
@pytest.mark.parametrize("draws", [24, 25])
def test_a_finished_run_is_prolonged(tmp_path, name, draws):
    """Also where its last sweep made more draws than were asked for."""
    out = tmp_path / "run"
    same(sample(out, name=name, draws=draws), whole(name, draws))
    same(sample(out, name=name, draws=draws), whole(name, draws))  # nothing is left to do
    same(shoal.resume(out, model(), add_samples=7, progress_bar=False), whole(name, draws + 7))
    same(shoal.resume(out, model(), num_samples=draws + 20, progress_bar=False), whole(name, draws + 20))
    same(shoal.load(out), whole(name, draws + 20))
    with pytest.raises(ValueError, match=rf"num_samples=10: the run in .* has {draws + 20} draws"):
        sample(out, name=name, draws=10)


def test_prolonging_goes_on_from_the_last_whole_sweep(tmp_path, monkeypatch):
    """By less than a bundle of draws, again and again."""
    from shoal.session import Session

    begun = []
    gone_on = Session.gone_on
    monkeypatch.setattr(
        Session, "gone_on", lambda self, run, kept: (begun.append(kept.facts["done"]), gone_on(self, run, kept))[1]
    )
    for draws in (31, 32, 33, 34, 41, 42):
        same(sample(tmp_path / "run", name="nuts", draws=draws), whole("nuts", draws))
    assert begun == [30, 30, 30, 30, 40]


def test_a_prolonged_run_that_was_killed_tells_nothing_of_the_shorter_one(tmp_path, killed):
    sample(tmp_path / "run")
    killed("sampling", 3, out=tmp_path / "run", draws=60)
    back = shoal.load(tmp_path / "run")
    assert DRAWS < back.num_draws < 60
    assert back.interrupted
    assert back.judged is None
    assert np.isnan(back.timing.sampling)
    assert back.gradients.sampling == 0
    same(sample(tmp_path / "run", draws=60), whole(draws=60))


def test_draws_in_the_journal_count_at_the_door(tmp_path, killed, monkeypatch):
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 1e9)
    monkeypatch.setattr("shoal.results.zarr_draws.PATIENCE", 1e9)
    killed("sampling", 5, out=tmp_path / "run")
    count = shoal.load(tmp_path / "run").num_draws
    with pytest.raises(ValueError, match=rf"num_samples=2: the run in .* has {count} draws"):
        sample(tmp_path / "run", draws=2)
    same(sample(tmp_path / "run"), whole())


def test_axes_with_names_and_no_labels(tmp_path, killed, monkeypatch):
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 1e9)
    named = shoal.Model(
        params={"x": shoal.real(3), "y": shoal.real()},
        log_density=log_density,
        data={"scale": SCALE},
        dims={"x": ["k"]},
        name="small",
    )
    killed("sampling", 2, out=tmp_path / "run", target=named)
    same(sample(tmp_path / "run", target=named), whole())


def test_a_finished_run_is_not_sampled_again(tmp_path, monkeypatch):
    sample(tmp_path / "run")
    monkeypatch.setattr("shoal.run.drive", lambda *rest: pytest.fail("sampled"))
    monkeypatch.setattr("shoal.drawing.drive", lambda *rest: pytest.fail("sampled"))
    same(sample(tmp_path / "run"), whole())


def test_other_versions_are_told(tmp_path, killed, monkeypatch):
    killed("sampling", 2, out=tmp_path / "run")
    monkeypatch.setattr(jax, "__version__", "99.0")
    told = [note for note in sample(tmp_path / "run").findings if note.kind == "versions"]
    assert "jax" in told[0].words
    assert "now 99.0" in told[0].words
    assert not told[0].blocking


def test_resume_needs_no_other_arguments(tmp_path, killed):
    own = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    expected = sample(initial_positions=own)
    killed("sampling", 2, out=tmp_path / "own", initial_positions=own)
    same(shoal.resume(tmp_path / "own", model(), progress_bar=False), expected)
    given = {"tuning": whole().tuning, "num_warmup": 10}
    expected = sample(**given)
    killed("sampling", 2, out=tmp_path / "given", **given)
    same(shoal.resume(tmp_path / "given", model(), progress_bar=False), expected)
    killed("warmup", 2, out=tmp_path / "example", target=shoal.examples.load("eight_schools"))
    expected = sample(target=shoal.examples.load("eight_schools"))
    same(shoal.resume(tmp_path / "example", progress_bar=False), expected)


def test_resume_says_what_is_missing(tmp_path, killed):
    with pytest.raises(ValueError, match=r"does not exist: give the directory"):
        shoal.resume(tmp_path / "nothing")
    whole().save(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"has no run that can go on"):
        shoal.resume(tmp_path / "saved", model())
    with pytest.raises(ValueError, match=r"already holds a run"):
        sample(tmp_path / "saved")
    killed("warmup", 2, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"samples 'small', which is none of Shoal's examples: give it as"):
        shoal.resume(tmp_path / "run")
    with pytest.raises(ValueError, match="give one of them"):
        shoal.resume(tmp_path / "run", model(), num_samples=5, add_samples=5)
    with pytest.raises(ValueError, match="add_samples=0"):
        shoal.resume(tmp_path / "run", model(), add_samples=0)


def test_blackjax_goes_on_with_its_sampler(tmp_path, killed):
    pytest.importorskip("blackjax", reason="an optional bridge")
    sampler = shoal.from_blackjax("hmc", step_size=0.3, inverse_mass_matrix=np.ones(4), num_integration_steps=3)
    asked = {"sampler": sampler, "num_warmup": 5}
    expected = sample(**asked)
    killed("sampling", 2, out=tmp_path / "run", **asked)
    other = shoal.from_blackjax("hmc", step_size=0.2, inverse_mass_matrix=np.ones(4), num_integration_steps=3)
    with pytest.raises(ValueError, match="what was given as sampler has other values"):
        sample(tmp_path / "run", **{**asked, "sampler": other})
    with pytest.raises(ValueError, match=r"made by shoal.from_blackjax: give that sampler as sampler="):
        shoal.resume(tmp_path / "run", model())
    same(shoal.resume(tmp_path / "run", model(), sampler=sampler, progress_bar=False), expected)


@pytest.mark.parametrize(
    ("phase", "first", "then"),
    [
        pytest.param("warmup", 8, 1, marks=pytest.mark.slow),
        ("sampling", 1, 8),
        pytest.param("sampling", 4, 2, marks=pytest.mark.slow),
    ],
)
def test_on_another_number_of_devices(tmp_path, killed, monkeypatch, first, then, phase):
    devices = jax.local_devices()
    asked = {"name": "auto", "num_chains": 40, "tile": 4}
    expected = sample(**asked)
    monkeypatch.setattr(jax, "local_devices", lambda: devices[:first])
    killed(phase, 3, out=tmp_path / "run", **asked)
    monkeypatch.setattr(jax, "local_devices", lambda: devices[:then])
    same(sample(tmp_path / "run", **asked), expected)


# Two processes.


def test_a_second_process_is_refused(tmp_path):
    from shoal.durable.folder import RunFolder

    words = rf"written by another process \(process {os.getpid()} on .*Wait for it"
    with RunFolder(tmp_path / "run"), pytest.raises(ValueError, match=words):
        sample(tmp_path / "run")
    same(sample(tmp_path / "run"), whole())


def test_a_dead_process_holds_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from shoal.durable.folder import RunFolder; "
        "held = RunFolder(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"process {process.pid} on"):
            sample(tmp_path / "run")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    same(sample(tmp_path / "run"), whole())


# Stopping by hand, and by the clock.


@pytest.fixture
def told(monkeypatch):
    """Something that happens when so many draws have been told of."""
    import contextlib

    def prepare(draws, happens, phase="sampling"):
        whole()  # nothing is to happen to this one
        show = lambda chunk: happens() if chunk.phase == phase and chunk.done == draws else None
        monkeypatch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(show))

    return prepare


def same_beginning(result, expected, count):
    assert result.num_draws == count
    for name, values in expected.draws.items():
        np.testing.assert_array_equal(result.draws[name], values[:, :count])


def test_ctrl_c_ends_at_the_end_of_a_chunk(tmp_path, told):
    told(5, lambda: signal.raise_signal(signal.SIGINT))
    for out in (None, tmp_path / "run"):
        result = sample(out)
        assert result.interrupted
        same_beginning(result, whole(), 5)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    told(-1, lambda: None)
    same(sample(tmp_path / "run"), whole())


def test_a_second_ctrl_c_ends_at_once(tmp_path, told):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")

    told(5, twice)
    result = sample(tmp_path / "run")
    assert result.interrupted
    same_beginning(result, whole(), 5)


def test_ctrl_c_in_warmup(tmp_path, told):
    told(20, lambda: signal.raise_signal(signal.SIGINT), phase="warmup")
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").glob("warmup-*20.npz"))
    with pytest.raises(ValueError, match=r"no draws to load: it has not come to the end of its warmup"):
        shoal.load(tmp_path / "run")
    told(-1, lambda: None)
    same(sample(tmp_path / "run"), whole())


def test_sigterm_takes_its_course_when_everything_is_kept(tmp_path, told):
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(shoal.load(tmp_path / "run").num_draws))
    try:
        told(5, lambda: signal.raise_signal(signal.SIGTERM))
        result = sample(tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [5]
    same_beginning(result, whole(), 5)


def test_without_a_directory_sigterm_is_not_caught(told):
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        told(5, lambda: signal.raise_signal(signal.SIGTERM))
        result = sample()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]
    same(result, whole())


def test_both_signals(tmp_path, told):
    """SIGTERM is not lost after Ctrl-C."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))

    def both():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    try:
        told(5, both)
        same_beginning(sample(tmp_path / "run"), whole(), 5)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]


def test_an_ignored_signal_is_left_alone(told):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        told(5, lambda: signal.raise_signal(signal.SIGINT))
        same(sample(), whole())
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_at_once_where_nothing_is_kept(told):
    def stop():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")

    told(20, stop, phase="warmup")
    with pytest.raises(KeyboardInterrupt):
        sample()


def test_the_time_is_up(tmp_path, told, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("shoal.stopping.time.monotonic", lambda: clock[0])
    told(5, lambda: clock.append(clock.pop() + 100))
    result = sample(tmp_path / "run", max_seconds=60)
    assert result.interrupted
    same_beginning(result, whole(), 5)
    (said,) = [finding for finding in result.findings if finding.kind == "ended"]
    assert "max_seconds ended sampling after 5 of 24 draws" in said.words
    assert not said.blocking
    told(8, lambda: clock.append(clock.pop() + 100))
    same_beginning(shoal.resume(tmp_path / "run", model(), max_seconds=60), whole(), 8)
    told(-1, lambda: None)
    same(shoal.resume(tmp_path / "run", model()), whole())


def test_a_wall_clock_that_jumps(tmp_path, killed, monkeypatch):
    run, day, now = tmp_path / "run", 86_400.0, time.time
    jumps = itertools.cycle([0.0, 3 * day, -2 * day])

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(seconds=next(jumps))

    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: now() + next(jumps))
        patch.setattr("shoal.watching.record.datetime", SimpleNamespace(datetime=Jumping, UTC=datetime.UTC))
        killed("sampling", 7, out=run, max_seconds=3600)
        for file in run.rglob("*"):
            then = time.time()
            os.utime(file, (then, then))
        assert status_of(run).age >= 0
        result = sample(run, max_seconds=3600)
    same(result, whole())
    assert 0 < result.timing.sampling < 3600
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times, seconds = zip(
        *[(line["time"], line["seconds"]) for line in lines if line["phase"] == "sampling"], strict=True
    )
    assert list(times) != sorted(times)
    assert list(seconds) == sorted(seconds)


def test_the_time_is_up_before_the_first_draw(tmp_path):
    with pytest.raises(TimeoutError, match=r"passed before the first draw.*With out= the same call goes on"):
        sample(tmp_path / "run", max_seconds=1e-6)
    same(sample(tmp_path / "run"), whole())


@pytest.mark.parametrize("seconds", [0, -1, "60", True, float("nan")])
def test_a_time_that_is_none(seconds):
    with pytest.raises(ValueError, match=r"max_seconds=.*expected a positive number of seconds"):
        sample(max_seconds=seconds)


def test_a_real_kill(tmp_path):
    """SIGKILL of a process in sampling; the same command then goes on, and the summary is that of a whole run."""
    code = (
        "import sys, shoal; shoal.sample(shoal.examples.load('eight_schools'), sampler='nuts', num_chains=16, "
        "num_warmup=50, num_samples=int(sys.argv[2]), out=sys.argv[1], progress_bar=False)"
    )
    out = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", code, str(out), "1000000"])
    try:
        for _ in range(1200):
            if list((out / "checkpoints").glob("draws-*.npz")):
                break
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    kept = shoal.load(out)
    assert kept.interrupted
    count = kept.num_draws
    assert count > 0
    facts = json.loads((out / "zarr.json").read_text())["attributes"]
    assert facts["draws_committed"] <= count
    eight = shoal.examples.load("eight_schools")
    longer = count + 10
    result = shoal.resume(out, eight, num_samples=longer, progress_bar=False)
    expected = shoal.sample(eight, sampler="nuts", num_chains=16, num_warmup=50, num_samples=longer, progress_bar=False)
    same(result, expected)


def test_the_journal_keeps_two(tmp_path):
    sample(tmp_path / "run")
    journal = Journal(tmp_path / "run")
    assert len(journal.files()) == 2
    part, state = journal.read(journal.files()[-1])
    assert part.end == DRAWS
    assert state.facts["done"] == DRAWS


# Draws of the warmup.

RUNS = {
    "hmc": {"name": "hmc", "num_warmup": 5},
    "nuts": {"name": "nuts"},
    "few": {"name": "auto, few chains"},
    "auto": {"name": "auto", "num_superchains": 4},
}
PARTS = ("warmup_draws", "warmup_sample_stats", "warmup_coords")
_KEPT = {}


@pytest.fixture
def half_scouts(monkeypatch):
    """Half of the 32 chains of `auto` go ahead."""
    monkeypatch.setattr("shoal.samplers.auto.SCOUTS", 16)
    monkeypatch.setattr("shoal.samplers.auto.MOST_SCOUTS", 16)


def kept(name):
    """The run in memory that keeps the draws of its warmup, to which nothing happens."""
    if name not in _KEPT:
        _KEPT[name] = sample(**RUNS[name], save_warmup=True)
    return _KEPT[name]


def same_kept(result, expected):
    same(result, expected)
    for part in PARTS:
        mine, theirs = getattr(result, part), getattr(expected, part)
        assert list(mine) == list(theirs)
        for name in theirs:
            seen = np.asarray(mine[name])
            np.testing.assert_array_equal(seen, theirs[name], err_msg=f"{part}: {name}")
            assert seen.dtype == theirs[name].dtype


@pytest.mark.parametrize("name", RUNS)
def test_no_other_draw_changes(half_scouts, name):
    """Nor a finding, the summary, the record of the warmup, or what it cost."""
    without = sample(**RUNS[name])
    same(kept(name), without)
    assert all(not getattr(without, part) for part in PARTS)


# What they are


def test_those_of_a_sampler_set_by_hand_are_its_first_draws(tmp_path):
    straight = sample(name="hmc", num_warmup=0, draws=30)
    for thinning, out in ((1, None), (4, tmp_path / "run")):
        result = sample(out, name="hmc", num_warmup=18, draws=12, save_warmup=True, thinning=thinning)
        for mine, later, expected in (
            (result.warmup_draws, result.draws, straight.draws),
            (result.warmup_sample_stats, result.sample_stats, straight.sample_stats),
        ):
            assert list(mine) == list(later) == list(expected)
            for name, values in expected.items():
                np.testing.assert_array_equal(mine[name], values[:, :18][:, thinning - 1 :: thinning], err_msg=name)
                np.testing.assert_array_equal(later[name], values[:, 18:][:, thinning - 1 :: thinning], err_msg=name)
        assert set(result.warmup_coords["warmup_kernel"]) == {"HMC"}


def test_those_of_stages_are_where_every_chain_was(monkeypatch, half_scouts):
    trails, play = [], Stages.play

    def recorded(self, *args, **kwargs):
        trail, tuning = play(self, *args, **kwargs)
        trails.append(trail)
        return trail, tuning

    monkeypatch.setattr(Stages, "play", recorded)
    corners = np.array(np.meshgrid(*[[-1.5, 1.5]] * 3)).reshape(3, 8).T
    starts = np.concatenate([np.repeat(corners, 4, 0), np.zeros((32, 1))], 1).astype(np.float32)
    asked = {"name": "auto", "initial_positions": starts}
    result = sample(**asked, save_warmup=True)
    stage = result.warmup_coords["warmup_stage"]
    assert list(stage) == list(np.repeat(np.arange(len(trails)) + 1, [len(trail.log_density) for trail in trails]))
    for number, trail in enumerate(trails, start=1):
        there = {name: values[:, stage == number] for name, values in result.warmup_draws.items()}
        moved = ~np.isnan(there["y"]).any(1)
        assert moved.sum() == trail.log_density.shape[1]
        np.testing.assert_array_equal(there["x"][moved], trail.position[:, :, :3].swapaxes(0, 1))
        np.testing.assert_array_equal(there["y"][moved], trail.position[:, :, 3].T)
        stats = {name: values[:, stage == number] for name, values in result.warmup_sample_stats.items()}
        for name, part in (("lp", "log_density"), ("acceptance_rate", "acceptance"), ("gradients", "gradients")):
            np.testing.assert_array_equal(stats[name][moved], getattr(trail, part).T)
        for values in (*there.values(), *stats.values()):
            assert np.isnan(values[~moved]).all()
    # Scouts are the first of every start, and begin there.
    first = result.warmup_draws["x"][:, 0]
    scouts = np.flatnonzero(~np.isnan(first[:, 0]))
    np.testing.assert_array_equal(scouts, np.flatnonzero(np.arange(32) % 4 < 2))
    nearest = np.linalg.norm(first[scouts][:, None] - corners, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, scouts // 4)
    assert not np.isnan(result.warmup_draws["y"][:, result.warmup_coords["warmup_phase"] == "settling"]).any()


def test_phases_and_kernels(half_scouts):
    coords = kept("auto").warmup_coords
    phases = list(dict.fromkeys(coords["warmup_phase"]))
    assert phases[:3] == ["burn-in", "scouting", "settling"]
    assert set(phases[3:]) <= {"race"}
    kernels = {phase: set(coords["warmup_kernel"][coords["warmup_phase"] == phase]) for phase in phases}
    assert kernels["burn-in"] == {"Microcanonical"}
    assert kernels["settling"] == {"JitteredHMC"}
    counts = {one["phase"]: one["draws"] for one in kept("auto").warmup["phases"]}
    assert {phase: int((coords["warmup_phase"] == phase).sum()) for phase in phases} == {
        phase: count for phase, count in counts.items() if count
    }
    assert set(kept("few").warmup_coords["warmup_kernel"]) == {"NUTS"}
    assert set(kept("nuts").warmup_coords["warmup_phase"]) == {"warmup"}


@pytest.mark.parametrize(("name", "keep"), [("hmc", ["y"]), ("auto", ["x", "y"])])
def test_what_is_kept_of_the_draws_is_kept_of_these(tmp_path, half_scouts, name, keep):
    result = sample(tmp_path / "run", **RUNS[name], save_warmup=True, thinning=3, keep=keep)
    assert list(result.warmup_draws) == keep
    whole = kept(name)
    np.testing.assert_array_equal(result.warmup_draws["y"], whole.warmup_draws["y"][:, 2::3])
    np.testing.assert_array_equal(result.warmup_sample_stats["lp"], whole.warmup_sample_stats["lp"][:, 2::3])
    np.testing.assert_array_equal(result.warmup_coords["warmup_stage"], whole.warmup_coords["warmup_stage"][2::3])


@pytest.mark.parametrize("out", [None, "run"])
def test_fewer_than_are_thinned_to_one(tmp_path, out):
    out = out and tmp_path / out
    result = sample(out, name="hmc", num_warmup=5, save_warmup=True, thinning=6)
    assert all(not getattr(result, part) for part in PARTS)
    assert list(result.to_datatree()) == ["posterior", "sample_stats"]
    assert not sample(out and tmp_path / "none", name="hmc", num_warmup=0, save_warmup=True).warmup_draws


def test_some_quantities_of_positions():
    position = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    target = model().target(np.float32)
    assert list(constrained(target, position, ("y",))) == ["y"]
    np.testing.assert_array_equal(constrained(target, position, None)["x"], position[..., :3])


def test_numbers_that_are_no_floats():
    """In stages a chain may be missing, which integers and truth values cannot say."""
    part = np.array([[[True, False]], [[True, True]]])
    every = of_all(part, np.array([2]), 3)
    assert every.shape == (3, 2, 2)
    assert np.isnan(every[:2]).all()
    np.testing.assert_array_equal(every[2], [[1.0, 0.0], [1.0, 1.0]])
    big = 2**53 - 1
    assert of_all(np.array([[big]]), np.array([0]), 1)[0, 0] == big
    assert of_all(np.float32([[0.1]]), np.array([0]), 1).dtype == np.float32


# Where they are


@pytest.mark.parametrize("name", ["hmc", "auto"])
def test_they_are_read_from_disk_and_from_files(tmp_path, half_scouts, name):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    pytest.importorskip("h5netcdf", reason="an optional export")
    expected = kept(name)
    same_kept(sample(tmp_path / "run", **RUNS[name], save_warmup=True), expected)
    same_kept(shoal.load(tmp_path / "run"), expected)
    shoal.load(tmp_path / "run").save(tmp_path / "saved")
    same_kept(shoal.load(tmp_path / "saved"), expected)
    shoal.load(tmp_path / "saved").export(tmp_path / "draws.nc")
    whole = expected.to_datatree()
    assert list(whole["warmup_posterior"].coords) == ["chain", "draw", *expected.warmup_coords, "superchain", "x_dim_0"]
    for place, engine in (("run", "zarr"), ("saved", "zarr"), ("draws.nc", "h5netcdf")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            opened = xarray.open_datatree(tmp_path / place, engine=engine)
        for group in ("posterior", "sample_stats", "warmup_posterior", "warmup_sample_stats"):
            left, right = (tree[group].to_dataset().drop_vars("x_dim_0", errors="ignore") for tree in (opened, whole))
            xarray.testing.assert_equal(left, right)
        opened.close()


def test_labels():
    course = Course()
    for number, (phase, draws) in enumerate([("a", 2), ("a", 0), ("b", 3)], start=1):
        course.add(phase, number, "K", draws)
    assert list(course.labels(1, 4)["warmup_stage"]) == [1, 3, 3]
    assert list(Course.of(course.labels(0, 5)).labels(0, 5)["warmup_phase"]) == list("aabbb")
    assert course.labels(0, 0)["warmup_stage"].dtype == np.int32


def test_going_on_asks_for_the_same(tmp_path):
    sample(tmp_path / "run", name="hmc", num_warmup=5, save_warmup=True)
    with pytest.raises(ValueError, match="save_warmup is not there any more"):
        sample(tmp_path / "run", name="hmc", num_warmup=5)
    longer = shoal.resume(tmp_path / "run", model(), add_samples=5, progress_bar=False)
    assert longer.num_draws == DRAWS + 5
    assert longer.warmup_draws["x"].shape == (16, 5, 3)


def test_a_name_that_is_taken():
    taken = shoal.Model(params={"warmup_phase": shoal.real()}, log_density=lambda p: -(p["warmup_phase"] ** 2))
    with pytest.raises(ValueError, match=r"has something called 'warmup_phase'.*Choose another name"):
        sample(target=taken, save_warmup=True)


# What outlives the process


def warmup_opened_plainly(out, expected):
    """What xarray sees of a warmup without Shoal: draws that count, or nothing; returns how many are whole."""
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups that were being made
        tree = xarray.open_datatree(out, engine="zarr")
    whole = []
    for group, right in (("posterior", expected.warmup_draws), ("sample_stats", expected.warmup_sample_stats)):
        for name, seen in tree.get(f"warmup_{group}", {}).items():
            there, count = np.asarray(seen.values, float), right[name].shape[1]
            theirs = np.full_like(there, np.nan)
            theirs[:, :count] = right[name]
            here = ~np.isnan(there)
            np.testing.assert_array_equal(there[here], theirs[here])
            missing = (here != ~np.isnan(theirs)).reshape(len(there), there.shape[1], -1).any((0, 2))
            whole.append(int(np.argmax(missing)) if missing.any() else count)
    return min(whole, default=0)


@pytest.mark.parametrize(("name", "chunks", "stored"), [("nuts", 2, 0.0), ("nuts", 2, 1e9), ("auto", 9, 0.0)])
def test_a_warmup_goes_on(tmp_path, killed, monkeypatch, half_scouts, name, chunks, stored):
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", stored)
    monkeypatch.setattr("shoal.results.zarr_draws.PATIENCE", stored)
    expected, out = kept(name), tmp_path / "run"
    killed("warmup", chunks, out=out, **RUNS[name], save_warmup=True)
    with pytest.raises(ValueError, match="has not come to the end of its warmup"):
        shoal.load(out)
    assert (status_of(out).phase, status_of(out).draws) == ("warmup", 0)
    count = len(expected.warmup_coords["warmup_stage"])
    assert warmup_opened_plainly(out, expected) < count
    assert (warmup_opened_plainly(out, expected) > 0) == (name == "auto" or not stored)
    same_kept(sample(out, **RUNS[name], save_warmup=True), expected)
    same_kept(shoal.load(out), expected)


@pytest.mark.parametrize(("name", "chunks"), [("hmc", 3), ("few", 7)])
def test_damage_in_a_warmup_is_made_good(tmp_path, killed, name, chunks):
    expected, out = kept(name), tmp_path / "run"
    killed("warmup", chunks, out=out, **RUNS[name], save_warmup=True)
    flip(out / "warmup_posterior" / "y" / "c" / "0" / "0")
    result = sample(out, **RUNS[name], save_warmup=True)
    same_kept(result, expected)
    assert "Draws of the warmup on disk are damaged" in next(note.words for note in result.notes)


def test_a_damaged_checkpoint_of_a_warmup(tmp_path, killed):
    expected, out = kept("hmc"), tmp_path / "run"
    killed("warmup", 3, out=out, **RUNS["hmc"], save_warmup=True)
    last = sorted((out / "checkpoints").glob("warmup-*"))[-1]
    flip(last)
    result = sample(out, **RUNS["hmc"], save_warmup=True)
    same_kept(result, expected)
    assert last.name in next(note.words for note in result.notes)


def test_a_stage_whose_record_is_lost_is_kept_anew(tmp_path, killed):
    expected, out = kept("few"), tmp_path / "run"
    killed("warmup", 7, out=out, **RUNS["few"], save_warmup=True)
    records = sorted((out / "checkpoints").glob("stage-*"))
    # What is on disk of the lost stage is not what is played again.
    import zarr

    zarr.open_group(str(out))["warmup_posterior/y"][:, 30:] = 99.0
    for record in records[1:]:
        record.unlink()
    same_kept(sample(out, **RUNS["few"], save_warmup=True), expected)


def test_damage_after_a_warmup(tmp_path, killed):
    expected, out = kept("hmc"), tmp_path / "run"
    killed("sampling", 2, out=out, **RUNS["hmc"], save_warmup=True)
    cut(out / "zarr.json")
    same_kept(sample(out, **RUNS["hmc"], save_warmup=True), expected)
    flip(out / "warmup_posterior" / "y" / "c" / "0" / "0")
    with pytest.raises(ValueError, match=r"draws of 'y' in .* are damaged .* warmup that has ended"):
        shoal.load(out).warmup_draws["y"]
    same(shoal.load(out), expected)


def told_of_damage(result):
    return [(note.where, note.blocking) for note in result.findings if note.kind == "damaged"]


@pytest.mark.parametrize("ended", [True, False])
def test_damaged_labels_of_a_warmup(tmp_path, killed, ended):
    """Draws that are whole are given all the same."""
    asked, out = {**RUNS["hmc"], "save_warmup": True}, tmp_path / "run"
    if ended:
        sample(out, **asked)
    else:
        killed("sampling", 2, out=out, **asked)
    cut(out / "warmup_posterior" / "warmup_phase" / "c" / "0")
    for result in (shoal.load(out), sample(out, **asked), shoal.load(out)):
        assert told_of_damage(result) == [("warmup_coords", False)]
        assert all(not getattr(result, part) for part in PARTS)
    np.testing.assert_array_equal(result.draws["x"], sample(**asked).draws["x"])


def test_damaged_draws_of_a_warmup_are_told(tmp_path):
    asked, out = {**RUNS["hmc"], "save_warmup": True}, tmp_path / "run"
    assert not told_of_damage(sample(out, **asked))
    (out / "warmup_posterior" / "y" / "c" / "0" / "0").unlink()
    longer = {**asked, "draws": DRAWS + 2}
    for result in (sample(out, **asked), sample(out, **longer), sample(out, **longer)):
        assert told_of_damage(result) == [("warmup_draws", False)]
    np.testing.assert_array_equal(result.draws["x"], sample(**longer).draws["x"])


@pytest.mark.parametrize("name", ["hmc", "few"])
def test_a_kill_at_any_write_of_a_warmup(tmp_path, dying, name):
    """Between the record of a stage and its draws, too."""
    asked = {**RUNS[name], "draws": 3, "save_warmup": True}
    expected, died, there = sample(**asked), 0, 0
    for number in range(1, 400, 8 * STRIDE):
        out = tmp_path / "run"
        dying(number)
        try:
            sample(out, **asked)
        except Killed:
            died += 1
            dying(1 + number // STRIDE % 7)
            try:
                sample(out, **asked)
            except Killed:
                there += (out / "zarr.json").exists() and warmup_opened_plainly(out, expected) > 0
            dying(0)
            same_kept(sample(out, **asked), expected)
            shutil.rmtree(out)
            continue
        break
    assert died > 1
    assert there
