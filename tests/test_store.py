"""Draws on disk: what is written comes back, also when the writer died, also without Shoal."""

import os

import numpy as np
import pytest

from shoal.diagnostics.findings import Finding
from shoal.results.archive import Archive
from shoal.results.draws import Header, MemoryDraws
from shoal.results.result import Timing
from shoal.results.store import check_new, load, save
from shoal.results.zarr_draws import ZarrDraws
from simulated import ar1, result, sample_stats

pytest.importorskip("zarr", reason="Zarr is not installed")

HEADER = Header(
    superchain=np.repeat(np.arange(4), 2),
    parameters=("tau", "beta"),
    dims={"beta": ("feature",)},
    coords={"feature": ["a", "b", "c"]},
    settings={"model": "toy"},
    versions={"shoal": "0.1.0"},
)


def chunks(seed: int, sizes: list[int], dtype: type = np.float32):
    rng = np.random.default_rng(seed)
    for size in sizes:
        z = ar1(rng, 8, size, (4,)).astype(dtype)
        values = {"tau": z[..., 0], "beta": z[..., 1:], "label": (z[..., 0] > 0).astype(np.int64)}
        stats = sample_stats(z.sum(axis=2), dtype)
        stats["diverging"] = z[..., 0] > 2
        yield values, stats


def same(a, b) -> None:
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].shape == b[name].shape, name
        assert np.ascontiguousarray(a[name]).tobytes() == np.ascontiguousarray(b[name]).tobytes(), name


@pytest.mark.parametrize("sizes", [[3, 1, 9, 2], [10, 10, 10], [25, 4], [0, 7, 0]])
def test_chunks_that_waited_are_written_file_by_file(tmp_path, monkeypatch, sizes):
    """Zarr copies all that it is given: no more than a file at once."""
    import zarr

    monkeypatch.setattr("shoal.results.zarr_draws.FILE_BYTES", 8 * 3 * 4 * 4)  # of "beta": four draws
    most, given = [], zarr.Array.__setitem__

    def write(self, where, value):
        if self.basename == "beta":
            most.append(np.shape(value)[1])
        given(self, where, value)

    monkeypatch.setattr(zarr.Array, "__setitem__", write)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    draws, same_draws = ZarrDraws(tmp_path / "run", 40, HEADER), MemoryDraws(40, HEADER)
    for values, stats in chunks(5, sizes):
        draws.append(values, stats, Archive({}, {"whole": True}))
        same_draws.append(values, stats)
    assert not most, "the chunks do not wait"
    draws.flush()
    assert max(most) <= 4
    assert zarr.open_group(tmp_path / "run", mode="r")["posterior/beta"].chunks[1] == 4
    same({name: draws.draws[name] for name in draws.draws}, same_draws.draws)
    same({name: draws.sample_stats[name] for name in draws.sample_stats}, same_draws.sample_stats)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_saved_comes_back(tmp_path, dtype):
    note = Finding("start", "tau", float("nan"), "A start was redrawn.", "", blocking=False, chains=(3,))
    made = result(dtype=dtype, notes=(note,), tuning={"step_size": np.asarray(0.1, dtype), "k": np.arange(5)})
    made.save(tmp_path / "run")
    back = load(tmp_path / "run")
    same(made.draws, back.draws)
    same(made.sample_stats, back.sample_stats)
    same(made.tuning, {name: back.tuning[name] for name in made.tuning})
    np.testing.assert_array_equal(made.superchain, back.superchain)
    for field in ("parameters", "dims", "timing", "gradients", "settings", "versions", "interrupted"):
        assert getattr(made, field) == getattr(back, field), field
    assert list(back.coords["feature"]) == list(made.coords["feature"])
    assert str(back.notes) == str(made.notes)
    assert str(back.findings) == str(made.findings)
    assert back.summary().equals(made.summary())
    assert back.to_datatree()["posterior"].equals(made.to_datatree()["posterior"])
    assert repr(back) == repr(made)


def test_a_loaded_result_can_be_saved_again(tmp_path):
    result(8, 20).save(tmp_path / "one")
    load(tmp_path / "one").save(tmp_path / "two")
    same(load(tmp_path / "one").draws, load(tmp_path / "two").draws)


def test_saving_in_blocks_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("shoal.results.store.CHUNK_BYTES", 8 * 3 * 4 * 7)
    made = result(8, 20)
    save(made, tmp_path / "run")
    same(made.draws, load(tmp_path / "run").draws)


def test_findings_are_read_not_made_again(tmp_path, monkeypatch):
    made = result(superchain=np.repeat(np.arange(2), 32))
    made.save(tmp_path / "run")
    monkeypatch.setattr("shoal.results.result.judge", lambda *args: pytest.fail("judged again"))
    assert load(tmp_path / "run").findings == made.findings
    assert not load(tmp_path / "run").converged


@pytest.mark.parametrize("sizes", [[10, 10, 10], [10, 10, 3], [4, 7], [30, 5], [1]])
def test_memory_and_disk_hold_the_same(tmp_path, sizes):
    memory, disk = MemoryDraws(30, HEADER), ZarrDraws(tmp_path / "run", 30, HEADER)
    for values, stats in chunks(0, sizes):
        memory.append(values, stats)
        disk.append(values, stats)
        assert memory.committed == disk.committed
        same(memory.draws, disk.draws)
    made = result(8, 5, draws=disk.draws, sample_stats=disk.sample_stats, superchain=HEADER.superchain)
    disk.finish(made)
    back = load(tmp_path / "run")
    assert back.num_draws == sum(sizes)
    same(memory.draws, back.draws)
    same(memory.sample_stats, back.sample_stats)


def test_chunks_must_fit(tmp_path):
    values, stats = next(chunks(0, [5]))
    for sink in (MemoryDraws(30, HEADER), ZarrDraws(tmp_path / "run", 30, HEADER)):
        with pytest.raises(ValueError, match="leading shapes"):
            sink.append(values, {**stats, "lp": stats["lp"][:, :4]})
        with pytest.raises(ValueError, match="8 chains"):
            sink.append({name: value[:6] for name, value in values.items()}, {})


class Interrupting:
    """An array that Ctrl-C comes to while it is read."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape = array.shape

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["tau", "label", "lp", "diverging"])
def test_ctrl_c_in_the_middle_of_a_chunk(tmp_path, name):
    """It is not counted, a reader sees whole chunks, and the chunk can come again."""
    memory, disk = MemoryDraws(15, HEADER), ZarrDraws(tmp_path / "run", 15, HEADER)
    first, second = chunks(1, [10, 10])
    half = [{key: Interrupting(value) if key == name else value for key, value in part.items()} for part in second]
    for sink in (memory, disk):
        sink.append(*first)
        with pytest.raises(KeyboardInterrupt):
            sink.append(*half)
        assert sink.committed == 10
        same(first[0], sink.draws)
        same(first[1], sink.sample_stats)
    back = load(tmp_path / "run")
    assert back.num_draws == 10
    same(first[0], back.draws)
    same(first[1], back.sample_stats)
    for sink in (memory, disk):
        sink.append(*second)
    same(memory.draws, disk.draws)
    same(memory.draws, load(tmp_path / "run").draws)
    same(memory.sample_stats, load(tmp_path / "run").sample_stats)


def test_an_unfinished_run_is_cut_to_what_was_committed(tmp_path):
    """As after a kill in the middle of the third chunk: some arrays have it, others do not."""
    path = tmp_path / "run"
    disk = ZarrDraws(path, 40, HEADER)
    memory = MemoryDraws(40, HEADER)
    first, second, third = chunks(1, [10, 10, 10])
    for values, stats in (first, second):
        disk.append(values, stats)
        memory.append(values, stats)
    disk._arrays["posterior"]["tau"][:, 20:30] = third[0]["tau"]
    back = load(path)
    assert back.interrupted
    assert back.num_draws == 20
    assert np.isnan(back.timing.sampling)
    same(memory.draws, back.draws)
    same(memory.sample_stats, back.sample_stats)
    assert back.judged is None
    assert not back.converged


def test_xarray_reads_missing_draws_as_missing(tmp_path):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    disk = ZarrDraws(tmp_path / "run", 40, HEADER)
    for values, stats in chunks(2, [10, 10]):
        disk.append(values, stats)
    tree = xarray.open_datatree(tmp_path / "run", engine="zarr", consolidated=False)
    for group, names in (
        ("posterior", ("tau", "beta", "label")),
        ("sample_stats", ("n_steps", "diverging", "lp")),
    ):
        for name in names:
            values = tree[group][name].values
            assert values.shape[:2] == (8, 40)
            assert np.isfinite(values[:, :20]).all()
            assert np.isnan(values[:, 20:]).all()
    assert tree.attrs["draws_committed"] == 20


def test_xarray_and_arviz_read_a_finished_run_without_shoal(tmp_path):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    made = result()
    made.save(tmp_path / "run")
    tree = xarray.open_datatree(tmp_path / "run", engine="zarr", consolidated=False)
    for name, values in made.draws.items():
        np.testing.assert_array_equal(tree["posterior"][name].values, values)
    assert tree["sample_stats"]["diverging"].dtype == bool
    assert tree["sample_stats"]["n_steps"].dtype == np.int32
    assert tree["posterior"]["beta"].dims == ("chain", "draw", "feature")
    np.testing.assert_array_equal(tree["posterior"]["superchain"], made.superchain)
    assert "superchain" in tree["sample_stats"].coords
    np.testing.assert_array_equal(tree["tuning"]["metric.scale"], made.tuning["metric.scale"])
    arviz = pytest.importorskip("arviz", reason="ArviZ is not installed")
    assert set(arviz.summary(tree).index) == set(made.summary().index)
    assert "beta[Größe]" in arviz.summary(tree).index


def test_names_with_a_slash_have_plain_ones_on_disk(tmp_path):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    z = ar1(np.random.default_rng(0), 8, 20, (3,)).astype(np.float32)
    draws = {"a": z[..., 0], "a/x": z, "a/b/y": z, "a.x": z[..., 1], "a/x_": z[..., 2]}
    dims, coords = {"a/x": ("a/row",), "a.x": ()}, {"a/row": ["i", "j", "k"]}
    made = result(8, 20, draws=draws, parameters=tuple(draws), dims=dims, coords=coords)
    made.save(tmp_path / "run")
    back = load(tmp_path / "run")
    same(made.draws, back.draws)
    assert back.dims == dims
    assert back.coords == coords
    assert back.labels("a/x") == made.labels("a/x") == ["a/x[i]", "a/x[j]", "a/x[k]"]
    tree = xarray.open_datatree(tmp_path / "run", engine="zarr", consolidated=False)
    assert set(tree["posterior"].children) == set()
    assert tree["posterior"]["a_x"].dims == ("chain", "draw", "a.row")
    assert tree["posterior"]["a_x"].attrs["name"] == "a/x"
    assert tree["posterior"]["a.b.y"].dims == ("chain", "draw", "a.b.y_dim_0")
    np.testing.assert_array_equal(tree["posterior"]["a.x"], z[..., 1])
    assert set(made.to_datatree()["posterior"].data_vars) == set(tree["posterior"].data_vars)


def test_a_run_stopped_before_its_first_draw(tmp_path):
    disk = ZarrDraws(tmp_path / "run", 40, HEADER)
    unfinished = load(tmp_path / "run")
    assert unfinished.num_draws == 0
    assert not unfinished.converged
    disk.finish(result(8, 5, draws=disk.draws, sample_stats=disk.sample_stats, superchain=HEADER.superchain))
    assert dict(load(tmp_path / "run").draws) == {}
    assert "not converged" in repr(load(tmp_path / "run"))


def test_numbers_that_are_not_finite_and_odd_settings(tmp_path):
    draws = {
        "x": np.array([[np.nan, np.inf, -0.0, 5e-324]] * 4),
        "flag": np.array([[True, False, True, True]] * 4),
    }
    draws["tiny"] = np.full((4, 4), np.iinfo(np.int8).min, np.int8)
    draws["large"] = np.full((4, 4), np.iinfo(np.uint16).max, np.uint16)
    settings = {"a": np.float32(0.5), "b": (1, 2), "c": np.arange(3), "d": float("inf"), "e": None}
    made = result(
        4,
        4,
        draws=draws,
        sample_stats={},
        superchain=np.arange(4),
        settings=settings,
        timing=Timing(1, float("nan"), 2),
    )
    made.save(tmp_path / "run")
    back = load(tmp_path / "run")
    same(made.draws, back.draws)
    assert back.settings == {"a": 0.5, "b": [1, 2], "c": [0, 1, 2], "d": "inf", "e": None}
    assert np.isnan(back.timing.warmup)


def test_draws_are_read_on_access(tmp_path):
    result(8, 20).save(tmp_path / "run")
    back = load(tmp_path / "run")
    assert back.shape("beta") == (3,)
    assert len(back.draws) == 2
    assert "tau (8, 20)" in repr(back.draws)
    with pytest.raises(KeyError):
        back.draws["gamma"]


def test_a_place_for_a_new_run(tmp_path):
    (tmp_path / "empty").mkdir()
    for good in (tmp_path / "empty", tmp_path / "new", tmp_path / "a" / "b" / "c"):
        assert check_new(good) == good
        assert check_new(str(good)) == good
    assert sorted(place.name for place in tmp_path.iterdir()) == ["empty"]


def test_places_that_are_taken(tmp_path):
    result(8, 20).save(tmp_path / "run")
    with pytest.raises(ValueError, match=r"already holds a run.*delete this one.*shoal.load"):
        check_new(tmp_path / "run")
    with pytest.raises(ValueError, match="already holds a run"):
        result(8, 20).save(tmp_path / "run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file, and a run is a directory"):
        check_new(tmp_path / "file")
    with pytest.raises(ValueError, match="not empty and does not hold a run"):
        check_new(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be written \(.+\)"):
        check_new(tmp_path / "file" / "run")


def test_unwritable_places(tmp_path, monkeypatch):
    """Root may write everywhere: the refusal of the system is simulated."""

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(ValueError, match=r"cannot be written \(Permission denied\).*Give a directory"):
        check_new(tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match="cannot be written"):
        check_new(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_loading_what_is_not_a_run(tmp_path):
    import zarr

    with pytest.raises(ValueError, match="does not exist: give the directory"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="does not hold a run"):
        load(tmp_path)
    zarr.open_group(str(tmp_path / "other"), mode="w", zarr_format=3)
    with pytest.raises(ValueError, match="not one that Shoal wrote"):
        load(tmp_path / "other")
    result(8, 20).save(tmp_path / "run")
    zarr.open_group(str(tmp_path / "run"), mode="r+").attrs["format_version"] = 99
    with pytest.raises(ValueError, match=r"format 99.*install a newer Shoal"):
        load(tmp_path / "run")


def test_without_zarr_the_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ModuleNotFoundError, match=r"'zarr', which is not installed: pip install"):
        ZarrDraws(tmp_path / "run", 10, HEADER)
