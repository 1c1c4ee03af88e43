"""Runs that keep moments, quantiles and some draws, or next to nothing: the same numbers, bits and verdict."""

import contextlib
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("zarr")

import shoal
from shoal.allocator import give_back
from shoal.cli.sample import kept
from shoal.diagnostics.estimates import ess_replicated
from shoal.diagnostics.unkept import nothing_kept
from shoal.report.overview import divergences, overview
from shoal.report.page import page
from shoal.request import checked, keeping
from shoal.results.archive import Archive
from shoal.results.draws import Header
from shoal.results.folded_draws import ZarrFolds
from shoal.results.folds import Folds
from shoal.results.moments import Moments
from shoal.results.result import Result
from shoal.results.sketch import Sketch
from shoal.results.stored_draws import StoredDraws
from shoal.watching.status import status_of

BY_HAND = shoal.HMC(step_size=0.4, num_steps=4)


# Quantiles


@pytest.mark.parametrize(("chains", "draws"), [(5000, 70), (96, 3000), (3, 1000)])
def test_quantiles_have_the_ranks_that_are_promised(rng, chains, draws):
    values = rng.normal(size=(draws, chains, 4)).astype(np.float32)
    values[..., 1] = np.round(values[..., 1])
    values[..., 2] = np.sort(values[..., 2].ravel()).reshape(draws, chains)  # each draw beyond all before
    values[..., 3] = np.exp(5 * values[..., 3])
    sketch, wanted = Sketch(chains, 4, values.dtype), np.linspace(0.0005, 0.9995, 301)
    assert np.isnan(sketch.quantiles([0.5])).all()
    for row in values:
        sketch.update(row)
    found = sketch.quantiles(wanted.tolist())
    off, lean = [], []
    for number in range(4):
        ordered = np.sort(values[..., number], axis=None)
        below, most = (np.searchsorted(ordered, found[:, number], side) / ordered.size for side in ("left", "right"))
        off.append(np.maximum(np.maximum(wanted - most, below - wanted), 0).max())
        lean.append(np.mean((below + most) / 2 - wanted))
    assert max(off) <= sketch.rank_error < 0.005
    # Errors of one level go either way by turns, and do not add up.
    assert abs(np.mean([lean[0], lean[3]])) < 0.2 * sketch.rank_error


def test_few_draws_have_their_own_quantiles(rng):
    values = rng.normal(size=(5, 9, 2))
    sketch = Sketch(9, 2, values.dtype)
    for row in values:
        sketch.update(row)
    assert sketch.rank_error == 0
    exact = np.quantile(values.reshape(45, 2), [0.1, 0.5], axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(sketch.quantiles([0.1, 0.5]), exact)


# Folds

GROUPS = np.arange(64) // 4


def some_draws(rng, chains=64, draws=1000):
    """Independent draws of a healthy run, as a chunk."""
    values = {"x": rng.normal(size=(chains, draws, 3)).astype(np.float32), "n": rng.poisson(3.0, (chains, draws))}
    stats = {name: rng.random((chains, draws)).astype(np.float32) for name in ("lp", "acceptance_rate")}
    return values, {**stats, "diverging": np.zeros((chains, draws), bool)}


def folded(values, stats, *cuts):
    folds, draws = Folds.of(values, stats, GROUPS), stats["lp"].shape[1]
    part = lambda group, at: {name: array[:, at] for name, array in group.items()}
    for begin, end in zip((0, *cuts), (*cuts, draws), strict=True):
        folds.update(part(values, slice(begin, end)), part(stats, slice(begin, end)))
    return folds


def same(mine, theirs):
    assert mine.facts == theirs.facts
    assert list(mine.arrays) == list(theirs.arrays)
    for name, array in mine.arrays.items():
        np.testing.assert_array_equal(array, theirs.arrays[name], err_msg=name)


@pytest.fixture
def few_are_kept(monkeypatch):
    """Of every chain, beside the sums."""
    monkeypatch.setattr("shoal.results.folds.MANY", 130)


def test_where_chunks_end_changes_no_bit(rng, few_are_kept):
    values, stats = some_draws(rng)
    values["x"][3, 55, 1] = np.nan
    whole = folded(values, stats)
    same(folded(values, stats, 1, 2, 130, 131, 261, 999), whole)
    restored = Folds.restored(whole.facts, whole.arrays)
    same(restored, whole)
    for folds in (restored, whole):
        folds.update(values, stats)
    same(restored, whole)
    assert restored.count == 2000


def test_sums_are_those_of_all_draws(rng, few_are_kept):
    values, stats = some_draws(rng)
    values["x"] += np.float32(1e4)  # a mean that would eat the digits of plain sums
    stats["diverging"][2, [0, 7]] = True
    values["x"][4, 990:] = values["x"][4, 990:991]
    values["n"][4, 980:], stats["lp"][4, 985:] = 1, 0.5
    values["x"][5, 7, 2], values["x"][5, 9, 2] = np.inf, np.nan
    moments = Moments(folded(values, stats, 100))
    finite = np.arange(64) != 5
    for name in ("x", "n"):
        means, variances = moments.chain_means(name)[finite], moments.chain_variances(name)[finite]
        np.testing.assert_allclose(means, values[name][finite].mean(1, dtype=float), rtol=1e-12)
        np.testing.assert_allclose(variances, values[name][finite].var(1, ddof=1, dtype=float), rtol=1e-9)
    assert not np.isfinite(moments.columns("x")["mean"][2])
    counts = moments.counts
    np.testing.assert_array_equal(counts.missing["x"], [0, 0, 2])
    assert counts.moved[4] == 990
    assert set(counts.moved[[0, 1, 2, 3]]) == {999}
    assert moments.divergences[2] == moments.divergences.sum() == 2
    assert counts.acceptance == pytest.approx(stats["acceptance_rate"].mean(dtype=float), rel=1e-12)
    assert (counts.low["n"], counts.high["n"]) == (values["n"].min(), values["n"].max())
    # 130 draws at most, the last of each eight.
    assert moments.stride == 8
    for name in ("x", "n"):
        np.testing.assert_array_equal(moments.draws[name], values[name][:, 7::8])
        assert moments.draws[name].dtype == values[name].dtype
    np.testing.assert_array_equal(moments.sample_stats["lp"], stats["lp"][:, 7::8])
    assert np.isnan(moments.quantile("x", 0.5)).tolist() == [False, False, True]
    assert moments.quantile("n", 0.5) == np.median(values["n"])
    assert moments.quantile("x", [0.1, 0.5]).shape == (2, 3)


def judged(values, stats):
    """The findings on a run that keeps moments of these draws."""
    none, groups = StoredDraws({}, stats["lp"].shape[1]), GROUPS
    return Result(none, none, groups, moments=Moments(folded(values, stats))).findings


def one_draw(values, stats):
    values["x"][3, 6, 1] = np.nan


def stands_still(values, stats):
    for array in (*values.values(), stats["lp"]):
        array[9, 500:] = array[9, 500:501]


def moves_late(values, stats):
    """It is not stuck, though the draws that are kept do not see that."""
    stands_still(values, stats)
    values["x"][9, 505, 0] += 1


def diverge(values, stats):
    stats["diverging"][7, :400] = np.arange(400) % 8 != 7


def apart(values, stats):
    values["x"][8:12] += 2


def drifts(values, stats):
    values["x"][:, :500] += 0.7


def seldom(values, stats):
    values["rare"] = np.zeros((64, 1000))
    values["rare"][5, 17] = 1


@pytest.mark.parametrize(
    ("harm", "kinds"),
    [
        (lambda *_: None, set()),
        (one_draw, {"non_finite"}),
        (stands_still, {"stuck"}),
        (moves_late, set()),
        (diverge, {"divergences"}),
        (apart, {"r_hat"}),
        (drifts, {"r_hat", "drift"}),
        (seldom, {"ess"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_wrong_is_seen_in_whatever_draw(rng, few_are_kept, harm, kinds):
    values, stats = some_draws(rng)
    harm(values, stats)
    found = judged(values, stats)
    assert {finding.kind for finding in found if finding.blocking} - {"ess"} == kinds - {"ess"}, found
    assert ("ess" in {finding.kind for finding in found}) == ("ess" in kinds), found


# Runs


@pytest.fixture(scope="module")
def model():
    def log_density(p):
        return -0.5 * jnp.sum(p["x"] ** 2) + 4 * jnp.log(p["moments"]) - p["moments"]

    params = {"x": shoal.real(3), "moments": shoal.positive()}
    names = {"dims": {"x": ["side"]}, "coords": {"side": ["a", "b", "c"]}}
    return shoal.Model(params=params, log_density=log_density, **names)


@pytest.fixture
def short_chunks(monkeypatch):
    """Of one draw each, each with a checkpoint."""
    monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.0)
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 0.0)


def sample(model, **changes):
    asked = {"num_chains": 64, "num_samples": 300, "sampler": BY_HAND, "progress_bar": False, **changes}
    return shoal.sample(model, **asked)


@pytest.fixture(scope="module")
def every(model):
    """The run that keeps all."""
    return sample(model)


@pytest.fixture(scope="module")
def moments(model):
    return sample(model, keep="moments")


def test_a_short_run_says_what_its_draws_would(every, moments):
    assert moments.num_draws == 300
    assert not moments.draws
    assert not moments.sample_stats
    assert moments.moments.stride == 1
    assert moments.findings == every.findings
    assert moments.converged == every.converged
    columns = list(every.summary().columns)
    expected, found = every.summary(), moments.summary()
    assert list(found.index) == list(expected.index) == ["moments", "x[a]", "x[b]", "x[c]"]
    np.testing.assert_allclose(found[columns], expected, rtol=1e-6)
    for name in ("5%", "50%", "95%"):
        exact = np.quantile(every.draws["moments"], float(name[:-1]) / 100)
        assert found.loc["moments", name] == pytest.approx(exact, abs=0.02)
    assert moments.worst_ess == pytest.approx(every.worst_ess, rel=1e-6)
    assert moments.ess_per_second > 0
    assert moments.gradients == every.gradients
    assert divergences(moments) == divergences(every)
    assert overview(moments).verdict == overview(every).verdict
    assert "64 chains × 300 draws of 4 numbers in 2 variables" in repr(moments)


def test_a_long_run_tells_errors_by_all_draws(model, every, few_are_kept):
    long = sample(model, keep="moments")
    assert long.moments.stride == 4
    assert long.converged, long.findings
    told, ess = long.table["x"], ess_replicated(every.draws["x"])
    np.testing.assert_allclose(told["ess_bulk"], ess, rtol=1e-4)
    np.testing.assert_allclose(told["mcse_mean"], every.summary()["sd"].to_numpy()[1:] / np.sqrt(ess), rtol=1e-4)
    # Of the draws that are kept.
    assert (told["ess_tail"] < 1.2 * 64 * 75).all()


def test_moments_means_moments_and_a_list_names_quantities(model):
    asked = checked(model, 64, 0, 300, BY_HAND, None, "float32")
    for keep, names, folded in (
        ("moments", None, "moments"),
        (["moments"], ("moments",), None),
        ("none", (), "none"),
        ("x", ("x",), None),
    ):
        request = keeping(asked, model, 1, keep)
        assert (request.keep, request.folded) == (names, folded)
    assert kept(("moments",)) == "moments"
    assert kept(("moments", "x")) == ("moments", "x")
    assert kept(()) is None
    with pytest.raises(ValueError, match="thinning=5 with keep='moments'"):
        keeping(asked, model, 5, "moments")


def test_what_needs_draws_says_what_there_is(model, moments, tmp_path):
    for needs in (moments.to_datatree, lambda: moments.export(tmp_path / "run.nc")):
        with pytest.raises(ValueError, match=r"keeps no draws .*'moments'.* result.summary"):
            needs()
    with pytest.raises(ValueError, match="variables of this result are 'moments', 'x'"):
        moments.summary("z")


def test_a_page_shows_some_draws_and_says_so(moments):
    pytest.importorskip("matplotlib")
    written = page(moments)
    assert "of each chain all draws" in written
    assert "The worst, closer" in written


def test_saved_and_loaded(moments, tmp_path):
    moments.save(tmp_path / "saved")
    loaded = shoal.load(tmp_path / "saved")
    same(loaded.moments.folds, moments.moments.folds)
    assert loaded.summary().equals(moments.summary())
    assert loaded.findings == moments.findings
    assert loaded.num_draws == 300


# On disk


def interrupting(monkeypatch, at):
    def show(chunk):
        if chunk.phase == "sampling" and chunk.done >= at:
            raise KeyboardInterrupt

    monkeypatch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(show))


def test_a_run_that_was_stopped_and_made_longer_has_the_same_bits(model, moments, few_are_kept, tmp_path, monkeypatch):
    whole, out = sample(model, keep="moments"), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("shoal.run.CHUNK_SECONDS", 0.0)
        patch.setattr("shoal.results.zarr_draws.STORED_EVERY", 0.0)
        interrupting(patch, 10)
        cut = sample(model, keep="moments", out=out, num_samples=100)
    assert cut.interrupted
    assert 0 < cut.num_draws < 100
    assert shoal.load(out).num_draws == cut.num_draws
    assert status_of(out).draws == cut.num_draws
    longer = sample(model, keep="moments", out=out, num_samples=150)
    assert not longer.interrupted
    assert longer.num_draws == 150
    resumed = shoal.resume(out, model, add_samples=150, progress_bar=False)
    for result in (resumed, shoal.load(out), sample(model, keep="moments", out=out)):
        same(result.moments.folds, whole.moments.folds)
        assert result.summary().equals(whole.summary())
        assert result.findings == whole.findings
        assert result.num_draws == 300
    assert sorted(path.name for path in out.glob("posterior/*")) == ["chain", "draw", "side", "superchain", "zarr.json"]
    # One that is made longer from an earlier checkpoint, and ends before it is as far, has what it had.
    attributes = json.loads((out / "zarr.json").read_text())
    attributes["attributes"]["finished"] = False
    (out / "zarr.json").write_text(json.dumps(attributes))
    for chunk in (out / "checkpoints").glob("draws-*.npz"):
        chunk.unlink()
    assert shoal.load(out).num_draws == 300


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(model, moments, tmp_path, monkeypatch):
    """Here its process ends between a checkpoint and the end; a damaged one is passed over."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("shoal.run.CHUNK_SECONDS", 0.0)
        patch.setattr("shoal.results.zarr_draws.STORED_EVERY", 0.0)
        patch.setattr("shoal.results.folded_draws.ZarrFolds.finish", lambda *_: None)
        interrupting(patch, 25)
        sample(model, keep="moments", out=out)
    first, last = sorted((out / "checkpoints").glob("draws-*.npz"))
    last.write_bytes(last.read_bytes()[:-100])
    there = shoal.load(out)
    assert there.interrupted
    assert there.num_draws == int(first.stem[-10:])
    assert there.moments.variables == ("moments", "x")
    gone_on = sample(model, keep="moments", out=out)
    same(gone_on.moments.folds, moments.moments.folds)
    assert [note.kind for note in gone_on.notes] == ["recovered"]


def test_moments_that_are_damaged_are_noticed_and_written_again(model, moments, tmp_path):
    out = tmp_path / "run"
    sample(model, keep="moments", out=out)
    file = out / "moments.npz"
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)
    with pytest.raises(ValueError, match=r"moments of the run .* damaged .* shoal.resume"):
        shoal.load(out)
    same(sample(model, keep="moments", out=out).moments.folds, moments.moments.folds)
    same(shoal.load(out).moments.folds, moments.moments.folds)


def test_a_failure_while_folding_leaves_no_half_draw(model, monkeypatch, short_chunks, tmp_path):
    keep = Folds._keep

    def fail(self, *rest):
        if self.count == 12:
            raise MemoryError("no room")
        keep(self, *rest)

    for out in (None, tmp_path / "run"):
        with monkeypatch.context() as patch:
            patch.setattr(Folds, "_keep", fail)
            result = sample(model, keep="moments", out=out, num_samples=20)
        assert result.num_draws == 11
        assert result.moments is None
        assert not result.converged
        assert "failed" in {note.kind for note in result.notes}
    assert sample(model, keep="moments", out=tmp_path / "run", num_samples=20).num_draws == 20


def test_a_run_that_is_looked_at(model, tmp_path):
    """All that it has done is there when it stands still, and what was seen does not change any more."""
    for out in (None, tmp_path / "run"):
        run = shoal.start(model, num_chains=64, num_samples=10**8, sampler=BY_HAND, keep="moments", out=out)
        while run.progress().phase != "sampling":
            time.sleep(0.01)
        run.pause()
        seen, done = run.inspect(), run.progress().done
        before = seen.moments.chain_means("x").copy()
        assert seen.num_draws == done == seen.moments.count
        assert seen.interrupted
        run.go_on()
        while run.progress().done == done:
            time.sleep(0.01)
        run.stop()
        assert run.wait().num_draws > seen.num_draws
        np.testing.assert_array_equal(seen.moments.chain_means("x"), before)


def test_a_run_that_ends_within_a_sweep_can_go_on_from_before_it(rng, tmp_path):
    values, stats = some_draws(rng, draws=10)
    draws = ZarrFolds(tmp_path / "run", 10, Header(GROUPS))
    (tmp_path / "run" / "checkpoints").mkdir()
    for begin, end, whole in ((0, 8, True), (8, 10, False)):
        part = [{name: array[:, begin:end] for name, array in group.items()} for group in (values, stats)]
        draws.append(*part, Archive({}, {"whole": whole}))
    draws.checkpoint()
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(names) == ["draws-0000000000-0000000008.npz", "draws-0000000000-0000000010-cut.npz"]


# Next to nothing


def test_next_to_nothing_is_kept(model, every, tmp_path):
    for out in (None, tmp_path / "run"):
        result = sample(model, keep="none", out=out)
        assert not result.draws
        assert not result.moments.draws
        assert result.num_draws == 300
        assert result.converged, result.findings
        assert "unkept" in {finding.kind for finding in result.findings}
        assert result.gradients == every.gradients
        assert overview(result).verdict.endswith("effective draws of the mean of every coordinate.")
    rows = [f"unconstrained[{label}]" for label in ("x[a]", "x[b]", "x[c]", "moments")]
    for seen in (result, shoal.load(tmp_path / "run")):
        table = seen.summary()
        assert list(table.index) == rows
        free = np.log(every.draws["moments"].astype(float))
        assert table.loc[rows[3], "mean"] == pytest.approx(free.mean(), abs=1e-4)
        assert table.loc[rows[3], "sd"] == pytest.approx(free.std(), rel=1e-2)
        ess = ess_replicated(every.draws["x"])
        np.testing.assert_allclose(table["ess_bulk"][:3], ess, rtol=1e-3)
        assert seen.worst_ess == table["ess_bulk"].min()
        assert table["ess_tail"].isna().all()


def test_next_to_nothing_does_not_say_too_much():
    names, one, many = ["a", "b"], np.ones(2), np.full(2, 1e4)
    assert [finding.blocking for finding in nothing_kept(names, one, one, many)] == [False]
    for sd, r_hat, ess in (
        (np.zeros(2), one, many),
        (np.array([1.0, np.nan]), one, many),
        (one, np.array([1.0, 1.5]), many),
        (one, one, np.array([1e4, 10.0])),
        (one, one, np.array([np.nan, 1e4])),
    ):
        assert [finding.blocking for finding in nothing_kept(names, sd, r_hat, ess)] == [True, False]


def test_before_its_end_next_to_nothing_is_known(model, tmp_path, monkeypatch, short_chunks):
    with monkeypatch.context() as patch:
        patch.setattr("shoal.results.folded_draws.ZarrFolds.finish", lambda *_: None)
        interrupting(patch, 9)
        sample(model, keep="none", out=tmp_path / "run")
    there = shoal.load(tmp_path / "run")
    assert not there.converged
    assert [note.kind for note in there.notes] == ["unkept"]
    with pytest.raises(ValueError, match="at its end only"):
        there.summary()
    assert "not converged" in repr(there)


def test_memory_is_given_back_where_there_is_a_way():
    give_back()


def test_results_that_keep_draws_have_no_moments(every):
    assert every.moments is None
    assert every.variables == ("moments", "x")


@pytest.mark.parametrize(("shift", "fades", "said"), [(0.0, 1.0, False), (50.0, 2.0, True), (20.0, 2.0, True)])
def test_a_beginning_that_no_kept_draw_has_seen(rng, few_are_kept, shift, fades, said):
    """It dies out before the first draw that is kept, and is in the mean and the squares of all."""
    values, stats = some_draws(rng)
    early = shift * np.exp(-np.arange(1000) / fades)
    values["x"] = (values["x"] + early[None, :, None]).astype(np.float32)
    moments = Moments(folded(values, stats))
    assert moments.stride == 8
    found = [finding for finding in judged(values, stats) if finding.kind == "drift"]
    assert bool(found) == said
    assert all(finding.blocking and finding.where.startswith("x[") for finding in found)


def test_rounding_is_that_of_each_quantity(rng):
    """A constant that was computed in single precision is one beside whole numbers, too."""
    values, stats = some_draws(rng)
    values["c"] = np.where(np.arange(64) % 3 == 0, np.float32(1), np.nextafter(np.float32(1), np.float32(2)))[:, None]
    values["c"] = np.broadcast_to(values["c"], values["n"].shape[:2]).astype(np.float32)
    moments = Moments(folded(values, stats))
    assert moments.draws["c"].dtype == np.float32
    assert not [finding for finding in judged(values, stats) if finding.where == "c"]


def test_room_where_every_chain_has_its_own_start(rng):
    values = {"x": np.zeros((4096, 0, 61), np.float32)}
    stats = {"lp": np.zeros((4096, 0), np.float32), "diverging": np.zeros((4096, 0), bool)}
    for starts, most in ((16, 2**24), (4096, 2**26)):
        some = Folds.of(values, stats, np.arange(4096) % starts).some
        assert 16 <= len(some) < 512
        assert some.nbytes <= 1.1 * most
