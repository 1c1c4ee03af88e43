"""A run as one file that other programs read: bit by bit, in bounded memory, whole or not there."""

import builtins
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal.cli import main
from shoal.results.archive import Archive
from shoal.results.draws import Header
from shoal.results.store import load
from shoal.results.zarr_draws import ZarrDraws
from simulated import ar1, result, sample_stats

pytest.importorskip("zarr", reason="Zarr is not installed")
pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
xarray = pytest.importorskip("xarray", reason="xarray is not installed")

CHAINS, DRAWS = 8, 40
# A NaN that no computation makes: its bits say whether a number was copied or made again.
ODD_NAN = np.array([0x7FC12345], np.uint32).view(np.float32)[0]
FORMATS = ["netcdf", "arrow", "parquet"]


def drawn():
    z = ar1(np.random.default_rng(0), CHAINS, DRAWS, (6,)).astype(np.float32)
    z[3, 5, 0], z[2, 1, 0], z[0, 0, 0] = ODD_NAN, np.inf, -0.0
    return {
        "tau": z[..., 0],
        "scope/beta": z[..., 1:4],
        "scope.beta": z[..., 4],
        "table": z.reshape(CHAINS, DRAWS, 2, 3).astype(np.float64),
        "flag": z[..., 5] > 0,
        "flags": z[..., 2:4] > 0,
        "count": (100 * z[..., 5]).astype(np.int32),
        "nothing": z[..., :0],
    }


HEADER = Header(
    superchain=np.repeat(np.arange(4), 2),
    parameters=("tau", "scope/beta"),
    dims={"scope/beta": ("scope/feature",)},
    coords={"scope/feature": ["Größe", "b", "c"]},
    settings={"model": "toy", "seed": 3},
    versions={"shoal": "0.1.0"},
)


@pytest.fixture(scope="module")
def made():
    draws = drawn()
    stats = sample_stats(draws["table"].sum(axis=(2, 3)), np.float32)
    stats["diverging"] = draws["flag"]
    return result(CHAINS, DRAWS, draws=draws, sample_stats=stats, **vars(HEADER))


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    """The same on disk."""
    path = tmp_path_factory.mktemp("run") / "run"
    made.save(path)
    return path


def going(path, made, stored=12, journal=9):
    """A run under way, or one that was killed: some draws are in the arrays, some in the journal, room is for more."""
    (path / "checkpoints").mkdir(parents=True)
    disk, begin = ZarrDraws(path, DRAWS, HEADER), 0
    for count, state in ((stored, None), (journal, Archive({}, {"whole": True}))):
        part = slice(begin, begin + count)
        cut = [{name: array[:, part] for name, array in group.items()} for group in (made.draws, made.sample_stats)]
        disk.append(*cut, state)
        begin += count
    return stored + journal


@pytest.fixture(params=[None, 2000], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    if request.param:
        monkeypatch.setattr("shoal.results.netcdf.BLOCK_BYTES", request.param)


def bits(array) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def same_bits(mine, theirs, name):
    assert mine.dtype == theirs.dtype, name
    assert mine.shape == theirs.shape, name
    assert bits(mine) == bits(theirs), name


def read_table(path):
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(path)
    return pyarrow.ipc.open_file(path).read_all()


def column(table, name, draws):
    """A column as `[chain, draw]`."""
    return table[name].to_numpy().reshape(draws, CHAINS).T


def check_table(table, expected, draws=DRAWS):
    assert table.num_rows == CHAINS * draws
    np.testing.assert_array_equal(column(table, "chain", draws), np.repeat(np.arange(CHAINS)[:, None], draws, 1))
    np.testing.assert_array_equal(column(table, "draw", draws), np.repeat(np.arange(draws)[None], CHAINS, 0))
    np.testing.assert_array_equal(column(table, "superchain", draws)[:, 0], HEADER.superchain)
    names = ["chain", "draw", "superchain"]
    for name, values in expected.draws.items():
        flat = values[:, :draws].reshape(CHAINS, draws, -1)
        for label, own in zip(expected.labels(name), np.moveaxis(flat, 2, 0), strict=True):
            same_bits(column(table, label, draws), own, label)
            names.append(label)
    for name, values in expected.sample_stats.items():
        same_bits(column(table, f"{name}__", draws), values[:, :draws], name)
        names.append(f"{name}__")
    assert table.column_names == names


def check_tree(tree, expected, draws=DRAWS):
    plain = expected.to_datatree()
    for group, own in (("posterior", expected.draws), ("sample_stats", expected.sample_stats)):
        there, right = tree[group].to_dataset(), plain[group].to_dataset().isel(draw=slice(draws))
        assert list(there.data_vars) == list(right.data_vars)
        assert set(there.coords) == set(right.coords)
        assert there.attrs == right.attrs
        for (name, seen), values in zip(there.data_vars.items(), own.values(), strict=True):
            assert seen.dims == right[name].dims
            same_bits(seen.values, np.asarray(values)[:, :draws], name)
        for name, ticks in right.coords.items():
            assert there[name].dims == ticks.dims
            assert there[name].values.tolist() == ticks.values.tolist()


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.usefixtures("blocks")
def test_netcdf_has_the_same_bits(tmp_path, made, run, where):
    source = made if where == "memory" else load(run)
    file = source.export(tmp_path / "draws.nc")
    with xarray.open_datatree(file) as tree:
        check_tree(tree, made)
        assert tree["posterior"]["flag"].dtype == bool
        assert tree["posterior"]["scope_beta"].attrs == {"name": "scope/beta"}
        assert list(tree["posterior"]["scope.feature"].values) == ["Größe", "b", "c"]
        plain = made.to_datatree().attrs
        assert set(tree.attrs) == set(plain)
        assert json.loads(tree.attrs["settings"]) == HEADER.settings
        assert tree.attrs["interrupted"] == 0


@pytest.mark.parametrize("name", ["draws.arrow", "draws.feather", "draws.parquet"])
@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.usefixtures("blocks")
def test_a_table_has_the_same_bits(tmp_path, made, run, where, name):
    source = made if where == "memory" else load(run)
    table = read_table(source.export(tmp_path / name))
    check_table(table, made)
    assert "scope/beta[Größe]" in table.column_names
    assert json.loads(table.schema.metadata[b"settings"]) == HEADER.settings


def test_what_others_read(tmp_path, made):
    arviz = pytest.importorskip("arviz", reason="ArviZ is not installed")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    made.export(tmp_path / "draws.nc")
    with arviz.from_netcdf(tmp_path / "draws.nc") as tree:
        table = arviz.summary(tree, var_names=["scope_beta", "scope.beta"])
    assert set(table.index) == {"scope_beta[Größe]", "scope_beta[b]", "scope_beta[c]", "scope.beta"}
    frame = pandas.read_feather(made.export(tmp_path / "draws.feather"))
    assert frame["flag"].dtype == bool
    assert frame["count"].dtype == np.int32
    again = pandas.read_parquet(made.export(tmp_path / "draws.parquet"))
    pandas.testing.assert_frame_equal(frame, again)
    ordered = frame.sort_values(["chain", "draw"])["scope.beta"].to_numpy()
    np.testing.assert_array_equal(ordered.reshape(CHAINS, DRAWS), made.draws["scope.beta"])


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.usefixtures("blocks")
def test_a_run_under_way_or_killed(tmp_path, made, to):
    count = going(tmp_path / "run", made)
    file = load(tmp_path / "run").export(tmp_path / "file", to)
    if to == "netcdf":
        with xarray.open_datatree(file) as tree:
            check_tree(tree, made, count)
            assert tree.attrs["interrupted"] == 1
    else:
        path = file.rename(tmp_path / f"file.{to}")
        check_table(read_table(path), made, count)


@pytest.mark.parametrize(("stored", "journal"), [(0, 20), (20, 0)])
def test_draws_between(tmp_path, made, stored, journal):
    """Those of the arrays, those of the journal, and both."""
    count = going(tmp_path / "run", made, stored, journal) if journal else stored
    back = load(tmp_path / "run") if journal else load(_saved(tmp_path / "run", made, stored))
    for begin, end in ((0, count), (0, 1), (7, 13), (count - 1, count), (5, 5)):
        for name in ("flag", "table"):
            same_bits(back.draws.between(name, begin, end), made.draws[name][:, begin:end], (name, begin, end))


def _saved(path, made, count):
    cut = lambda group: {name: array[:, :count] for name, array in group.items()}
    result(CHAINS, count, draws=cut(made.draws), sample_stats=cut(made.sample_stats), **vars(HEADER)).save(path)
    return path


def test_labels_that_are_alike_stay_apart(tmp_path):
    z = ar1(np.random.default_rng(0), CHAINS, 5, (2,))
    draws = {"a[0]": z[..., 0], "a": z[..., :1], "lp__": z[..., 1], "b": z}
    made = result(CHAINS, 5, draws=draws, coords={"twice": ["x", "x"]}, dims={"b": ("twice",)})
    table = read_table(made.export(tmp_path / "draws.arrow"))
    named = ["a[0]", "a[0]_", "lp__", "b[x]", "b[x]_", "lp___"]
    assert [name for name in table.column_names if name in named] == [*named[:5], "lp___"]
    np.testing.assert_array_equal(column(table, "b[x]_", 5), z[..., 1])
    np.testing.assert_array_equal(column(table, "lp__", 5), z[..., 1])


@pytest.mark.parametrize("to", FORMATS)
def test_memory_is_bounded(tmp_path, monkeypatch, to):
    """32 MB of draws, in blocks of 1 MB."""
    monkeypatch.setattr("shoal.results.netcdf.BLOCK_BYTES", 2**20)
    monkeypatch.setattr("shoal.results.zarr_draws.FILE_BYTES", 10**6)
    draws = {"x": np.arange(32 * 2000 * 128, dtype=np.float32).reshape(32, 2000, 128)}
    assert draws["x"].nbytes > 32e6
    result(32, 2000, draws=draws, dims={}, coords={}, judged=()).save(tmp_path / "run")
    del draws
    back = load(tmp_path / "run")
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    try:
        back.export(tmp_path / "file", to)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A block, the files of 1 MB on disk that it touches, and their copies.
    assert peak < 12e6, peak
    assert pyarrow.total_allocated_bytes() - before < 4e6


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_is_whole_or_not_there(tmp_path, made, monkeypatch, to):
    place, module = tmp_path / "file", "netcdf" if to == "netcdf" else "tables"
    asked = []

    def fails(draws, name, begin, end):
        asked.append(name)
        if len(asked) > 12:
            raise OSError(28, "No space left on device")
        return draws[name][:, begin:end]

    monkeypatch.setattr(f"shoal.results.{module}.between", fails)
    with pytest.raises(OSError, match="No space left"):
        made.export(place, to)
    assert list(tmp_path.iterdir()) == []
    place.write_text("mine")
    asked.clear()
    with pytest.raises(OSError, match="No space left"):
        made.export(place, to, overwrite=True)
    assert place.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [place]


def test_no_file_is_written_over(tmp_path, made, monkeypatch):
    place = tmp_path / "draws.nc"
    place.write_text("mine")
    with pytest.raises(ValueError, match=r"is there already, and is not written over.*overwrite=True, --force"):
        made.export(place)
    assert place.read_text() == "mine"
    made.export(place, overwrite=True)
    assert place.stat().st_size > 1000
    place.unlink()

    def meanwhile(result, path):
        path.write_text("exported")
        place.write_text("somebody else's")

    monkeypatch.setitem(shoal.results.export.WRITERS, "netcdf", meanwhile)
    with pytest.raises(ValueError, match="is there already"):
        made.export(place)
    assert place.read_text() == "somebody else's"
    assert list(tmp_path.iterdir()) == [place]
    (tmp_path / "link.nc").symlink_to("nowhere")
    with pytest.raises(ValueError, match="is there already"):
        made.export(tmp_path / "link.nc")


def test_what_cannot_be_exported(tmp_path, made):
    with pytest.raises(ValueError, match=r"'draws.txt' does not say its format: give one that ends in .nc"):
        made.export(tmp_path / "draws.txt")
    with pytest.raises(ValueError, match=r"to='csv': expected one of 'netcdf', 'arrow', 'parquet'"):
        made.export(tmp_path / "draws.nc", "csv")
    with pytest.raises(ValueError, match=r"The directory '.*absent' does not exist"):
        made.export(tmp_path / "absent" / "draws.nc")
    with pytest.raises(ValueError, match="is a directory"):
        made.export(tmp_path, "arrow")
    none = result(CHAINS, 0, draws={"x": np.empty((CHAINS, 0))}, sample_stats={})
    with pytest.raises(ValueError, match="no draws yet, so there is nothing to export"):
        none.export(tmp_path / "draws.nc")
    odd = result(CHAINS, 5, draws={"x": np.ones((CHAINS, 5), np.complex64)}, sample_stats={})
    with pytest.raises(ValueError, match=r"The numbers of 'x' are of type complex64"):
        odd.export(tmp_path / "draws.arrow")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "absent"), [("netcdf", "h5netcdf"), ("netcdf", "h5py"), ("arrow", "pyarrow"), ("parquet", "pyarrow")]
)
def test_a_missing_package_is_named(tmp_path, made, monkeypatch, to, absent):
    from importlib import import_module

    def gone(name, *rest):
        if name.partition(".")[0] == absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return import_module(name, *rest)

    monkeypatch.setattr("shoal.extras.importlib.import_module", gone)
    with pytest.raises(ModuleNotFoundError, match=rf'needs the package \'{absent}\'.*pip install "shoal\[export\]"'):
        made.export(tmp_path / "file", to)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "name"), [("netcdf", "draws.nc"), ("arrow", "draws.arrow"), ("parquet", "draws.parquet")]
)
def test_the_command(tmp_path, made, capsys, to, name):
    pytest.importorskip("click", reason="the command line needs click")
    made.save(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--to", to]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(str(tmp_path / "run" / name))
    assert "40 draws of 8 chains" in said.out
    assert (tmp_path / "run" / name).is_file()
    assert load(tmp_path / "run").num_draws == DRAWS, "the run can still be read"
    assert main(["export", str(tmp_path / "run"), "--to", to]) == 2
    assert "is there already" in " ".join(capsys.readouterr().err.split())
    assert main(["export", str(tmp_path / "run"), "--to", to, "--force"]) == 0
    assert main(["export", str(tmp_path / "run"), "--to", to, "--output", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other").stat().st_size == (tmp_path / "run" / name).stat().st_size


def test_the_command_says_what_is_wrong(tmp_path, made, run, capsys, monkeypatch):
    pytest.importorskip("click", reason="the command line needs click")
    (tmp_path / "empty").mkdir()
    for arguments, words in [
        ([str(run)], "Missing option '--to'"),
        ([str(run), "--to", "csv"], "'csv' is not one of 'netcdf', 'arrow', 'parquet'"),
        ([str(tmp_path / "empty"), "--to", "arrow"], "does not hold a run"),
        ([str(run), "--to", "arrow", "--output", str(tmp_path / "no" / "x")], "does not exist"),
    ]:
        assert main(["export", *arguments]) == 2, arguments
        assert words in " ".join(capsys.readouterr().err.split())
    place = str(tmp_path / "x.arrow")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *rest: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert main(["export", str(run), "--to", "arrow", "--output", place]) == 2
    assert "cannot be written (No space left on device). Give --output" in " ".join(capsys.readouterr().err.split())
    made.save(tmp_path / "damaged")
    file = next(file for file in (tmp_path / "damaged" / "posterior" / "tau" / "c").rglob("*") if file.is_file())
    damaged = bytearray(file.read_bytes())
    damaged[3] ^= 1
    file.write_bytes(damaged)
    assert main(["export", str(tmp_path / "damaged"), "--to", "arrow", "--output", place]) == 1
    assert "are damaged" in " ".join(capsys.readouterr().err.split())
    assert not Path(place).exists()


def test_help_needs_no_heavy_package(capsys, monkeypatch):
    pytest.importorskip("click", reason="the command line needs click")
    before = builtins.__import__

    def light(name, *rest):
        assert name.partition(".")[0] not in ("pyarrow", "h5netcdf", "h5py", "xarray"), name
        return before(name, *rest)

    monkeypatch.setattr(builtins, "__import__", light)
    assert main(["export", "--help"]) == 0
    assert "--to [netcdf|arrow|parquet]" in " ".join(capsys.readouterr().out.split())
