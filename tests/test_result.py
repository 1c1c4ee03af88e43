"""The result: its table, its verdict, ArviZ's schema, and how it reads."""

import json

import numpy as np
import pytest

from shoal.diagnostics.findings import Finding
from shoal.results.result import Gradients, Result, Timing
from simulated import ar1, result, sample_stats


def test_summary_has_a_row_for_every_number():
    made = result()
    table = made.summary()
    assert list(table.columns) == ["mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"]
    assert list(table.index) == ["tau", "beta[Radius]", "beta[Texture]", "beta[Größe]"]
    np.testing.assert_allclose(table.loc["beta[Texture]", "mean"], made.draws["beta"][..., 1].mean(dtype=float))
    assert table["r_hat"].max() < 1.01
    assert list(made.summary("tau").index) == ["tau"]
    assert list(made.summary(["beta"]).index) == ["beta[Radius]", "beta[Texture]", "beta[Größe]"]
    assert len(made.summary([])) == 0


def test_summary_of_an_unknown_variable():
    with pytest.raises(ValueError, match=r"'gamma'.*'tau', 'beta'"):
        result().summary(["tau", "gamma"])


def test_rows_are_numbered_without_coordinates():
    z = ar1(np.random.default_rng(0), 8, 20, (2, 3))
    made = result(8, 20, draws={"m": z, "s": z[..., 0, 0]}, dims={}, coords={})
    assert list(made.summary().index) == [*(f"m[{i}, {j}]" for i in range(2) for j in range(3)), "s"]


def test_converged_and_not():
    assert result().converged
    assert result().findings == ()
    assert not result(draws={}, sample_stats={}).converged
    assert not result(superchain=np.zeros(64, int)).converged
    note = Finding("start", "tau", 3.0, "Three starts were redrawn.", "", blocking=False)
    noted = result(notes=(note,))
    assert noted.findings == (note,)
    assert noted.converged


def test_findings_are_made_once(monkeypatch):
    calls = []
    monkeypatch.setattr("shoal.results.result.judge", lambda *args: calls.append(args) or ())
    made = result()
    assert made.converged
    assert made.findings == ()
    assert len(calls) == 1


def test_effective_draws_per_second_say_of_what():
    made = result(timing=Timing(100.0, 3.0, 1.0))
    assert made.worst_ess == made.summary()["ess_bulk"].min()
    assert made.ess_per_second == made.worst_ess / 4
    assert made.ess_per_second_sampling == made.worst_ess
    assert np.isnan(result(timing=Timing()).ess_per_second)
    # What is computed from parameters does not count.
    lp = np.cumsum(np.random.default_rng(0).normal(size=(64, 100)), axis=1)
    assert result(draws={**made.draws, "walk": lp}).worst_ess == made.worst_ess


def test_empty_results_can_be_looked_at():
    empty = Result(draws={}, sample_stats={}, superchain=np.repeat(np.arange(4), 2), interrupted=True)
    assert empty.num_draws == 0
    assert len(empty.summary()) == 0
    assert "not converged" in repr(empty)
    assert empty.to_datatree()["posterior"].sizes["chain"] == 8
    one = Result(draws={"x": np.ones((1, 1))}, sample_stats={}, superchain=np.zeros(1, int))
    assert "1 chain × 1 draw of 1 number in 1 variable" in repr(one)


def test_repr_is_aligned_and_tells_the_verdict():
    good = repr(result()).splitlines()
    assert good[0] == "toy, chees, float32: 64 chains × 100 draws of 4 numbers in 2 variables"
    assert good[1].startswith("  verdict    converged, with at least ")
    assert any(line == "  time       compile 3 s, warmup 2 s, sampling 0.5 s" for line in good)
    bad = repr(result(superchain=np.repeat(np.arange(2), 32), interrupted=True)).splitlines()
    assert bad[0].endswith(", interrupted")
    assert bad[1] == "  verdict    not converged"
    assert bad[2].startswith("  findings   The chains make up 2 superchains")
    assert all(len(line) <= 110 for line in bad[1:])
    assert all(line.startswith("             ") for line in bad[3:4])


def test_html_is_escaped():
    page = result(settings={"model": "<script>"})._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<table>" in page


def test_datatree_has_the_schema():
    made = result()
    tree = made.to_datatree()
    assert set(tree.children) == {"posterior", "sample_stats"}
    assert set(tree["sample_stats"].data_vars) == {
        "acceptance_rate", "diverging", "energy_error", "n_steps", "step_size", "lp"
    }  # fmt: skip
    assert tree["posterior"]["beta"].dims == ("chain", "draw", "feature")
    assert tree["posterior"]["feature"].values.tolist() == ["Radius", "Texture", "Größe"]
    for group in ("posterior", "sample_stats"):
        np.testing.assert_array_equal(tree[group]["superchain"], made.superchain)
        assert tree[group]["superchain"].dims == ("chain",)
    assert tree.attrs["inference_library"] == "shoal"
    assert tree.attrs["inference_library_version"] == "0.1.0"
    assert "created_at" in tree.attrs
    assert json.loads(tree.attrs["settings"])["model"] == "toy"
    assert tree["posterior"].sel(feature="Texture")["beta"].shape == (64, 100)


def test_arviz_reads_the_datatree():
    arviz = pytest.importorskip("arviz", reason="ArviZ is not installed")
    made = result(32, dtype=np.float64)  # of 64 chains and more the error is that of the spread of their means
    tree = made.to_datatree()
    table = arviz.summary(tree, round_to="none")
    mine = made.summary()
    assert list(table.index) == list(mine.index)
    for theirs, ours in (("mean", "mean"), ("sd", "sd"), ("mcse_mean", "mcse_mean"), ("r_hat", "r_hat")):
        np.testing.assert_allclose(table[theirs].astype(float), mine[ours], rtol=1e-8)
    np.testing.assert_allclose(
        arviz.ess(tree, method="tail", prob=(0.05, 0.95))["beta"], mine["ess_tail"][1:], rtol=1e-8
    )
    ids = tree["posterior"]["superchain"].values
    nested = arviz.rhat_nested(tree, superchain_ids=ids)
    assert float(nested["beta"].max()) < 1.01


def test_arviz_plots_the_datatree():
    arviz = pytest.importorskip("arviz", reason="ArviZ is not installed")
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    tree = result(8, 50).to_datatree()
    arviz.plot_forest(tree, backend="matplotlib")
    arviz.plot_trace_dist(tree, var_names=["tau"], backend="matplotlib")
    matplotlib.pyplot.close("all")


def test_names_of_axes_that_do_not_fit_are_not_used():
    z = ar1(np.random.default_rng(0), 8, 20, (2, 2))
    made = result(8, 20, draws={"m": z}, dims={"m": ("row",)}, coords={"row": ["a", "b"]})
    assert made.to_datatree()["posterior"]["m"].dims == ("chain", "draw", "m_dim_0", "m_dim_1")
    assert made.labels("m")[1] == "m[0, 1]"


def test_a_slash_in_a_name_becomes_what_is_free():
    z = ar1(np.random.default_rng(0), 8, 20, (5,))
    names = ("a/x", "a.x", "b/x", "b.x", "b_x")
    posterior = result(8, 20, draws={name: z[..., i] for i, name in enumerate(names)}).to_datatree()["posterior"]
    plain = {"a/x": "a_x", "a.x": "a.x", "b/x": "b_x_", "b.x": "b.x", "b_x": "b_x"}
    assert set(posterior.data_vars) == set(plain.values())
    for i, name in enumerate(names):
        np.testing.assert_array_equal(posterior[plain[name]], z[..., i])


def test_defaults_are_not_shared():
    one = Result(draws={}, sample_stats=sample_stats(np.zeros((4, 0))), superchain=np.arange(4))
    assert one.gradients == Gradients(0, 0)
    assert np.isnan(one.timing).all()
