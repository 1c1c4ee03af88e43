"""R-hat, effective sample size and their errors, against ArviZ and against closed forms."""

import time

import numpy as np
import pytest

from shoal.diagnostics import estimates as diagnostics
from simulated import ar1

SHAPES = [(4, 100, 0.5), (4, 101, 0.9), (2, 4, 0.0), (3, 5, 0.0), (4, 6, -0.5), (4, 7, 0.3), (4, 8, 0.3)]
SHAPES += [
    (4, 9, 0.3),
    (4, 10, 0.2),
    (1, 50, 0.4),
    (16, 30, -0.8),
    (64, 20, 0.95),
    (5, 200, -0.95),
    (4, 500, 0.99),
]
SHAPED = {
    "normal": lambda z: z,
    "tied": lambda z: np.round(z, 1),
    "rejecting": lambda z: np.repeat(z, 2, axis=1)[:, : z.shape[1]],
    "heavy": lambda z: np.exp(5 * z),
}


def oracle(name: str, draws: np.ndarray) -> np.ndarray:
    stats = pytest.importorskip("arviz_stats.base", reason="ArviZ, the oracle, is not installed").array_stats
    axes = {"chain_axis": 0, "draw_axis": 1}
    law = {
        "r_hat": lambda x: stats.rhat(x, **axes),
        "ess_bulk": lambda x: stats.ess(x, method="bulk", **axes),
        "ess_tail": lambda x: stats.ess(x, method="tail", prob=(0.05, 0.95), **axes),
        "ess_mean": lambda x: stats.ess(x, method="mean", **axes),
        "mcse_mean": lambda x: stats.mcse(x, method="mean", **axes),
    }[name]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([law(draws[:, :, i]) for i in range(draws.shape[2])])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", SHAPED)
@pytest.mark.parametrize("name", ["r_hat", "ess_bulk", "ess_tail", "ess_mean", "mcse_mean"])
def test_equals_arviz(name, kind, dtype):
    # ArviZ ranks and averages single precision in single precision.
    tolerance = 1e-10 if dtype is np.float64 else 5e-6
    for chains, draws, rho in SHAPES:
        x = SHAPED[kind](ar1(np.random.default_rng(draws), chains, draws, (2,), rho)).astype(dtype)
        found = getattr(diagnostics, name)(x)
        expected = np.full(2, np.nan) if name == "r_hat" and chains == 1 else oracle(name, x)
        np.testing.assert_allclose(found, expected, rtol=tolerance, err_msg=f"{chains} x {draws}, rho {rho}")
        if name != "ess_mean":
            shown = diagnostics.mcse_replicated(x) if name == "mcse_mean" else found
            np.testing.assert_array_equal(diagnostics.summarise(x)[name], shown)


def test_published_nested_r_hat_equals_arviz():
    stats = pytest.importorskip("arviz_stats.base", reason="ArviZ, the oracle, is not installed").array_stats
    x = ar1(np.random.default_rng(1), 24, 31, (2,), 0.8)
    for groups in (2, 6, 24):
        ids = np.repeat(np.arange(groups), 24 // groups)
        expected = [
            stats.rhat_nested(x[:, :, i], superchain_ids=ids, method="identity", chain_axis=0, draw_axis=1)
            for i in range(2)
        ]
        np.testing.assert_allclose(diagnostics.rhat_nested(x, ids, split_draws=False), expected, rtol=1e-12)


def test_nested_r_hat_by_hand():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(6, 10))
    groups = [x[:2], x[2:4], x[4:]]
    between = np.var([group.mean() for group in groups], ddof=1)
    within = np.mean([g.mean(axis=1).var(ddof=1) + g.var(axis=1, ddof=1).mean() for g in groups])
    found = diagnostics.rhat_nested(x, np.array([7, 7, 3, 3, 9, 9]), split_draws=False)
    np.testing.assert_allclose(found, np.sqrt(1 + between / within), rtol=1e-12)
    # One draw per chain: nothing inside chains; chains alone: nothing between them.
    one = diagnostics.rhat_nested(x[:, :1], np.array([0, 0, 1, 1, 2, 2]), split_draws=False)
    means = x[:, 0].reshape(3, 2)
    np.testing.assert_allclose(one, np.sqrt(1 + means.mean(1).var(ddof=1) / means.var(axis=1, ddof=1).mean()))


def test_unequal_superchains_are_each_one():
    x = ar1(np.random.default_rng(3), 5, 40)
    ids = np.array([0, 0, 0, 1, 1])
    groups = [x[:3], x[3:]]
    between = np.var([group.mean() for group in groups], ddof=1)
    within = np.mean([g.mean(axis=1).var(ddof=1) + g.var(axis=1, ddof=1).mean() for g in groups])
    found = diagnostics.rhat_nested(x, ids, split_draws=False)
    np.testing.assert_allclose(found, np.sqrt(1 + between / within), rtol=1e-12)


def test_halves_show_a_common_drift():
    x = ar1(np.random.default_rng(4), 32, 400) + np.linspace(0, 2, 400)
    ids = np.repeat(np.arange(8), 4)
    assert diagnostics.rhat_nested(x, ids, split_draws=False) < 1.01
    assert diagnostics.rhat_nested(x, ids) > 1.1


def test_superchains_must_fit_the_chains():
    with pytest.raises(ValueError, match=r"superchain came with shape \(3,\) for 4 chains"):
        diagnostics.rhat_nested(np.zeros((4, 10)), np.arange(3))
    assert np.isnan(diagnostics.rhat_nested(ar1(np.random.default_rng(0), 4, 10), np.zeros(4, int)))


@pytest.mark.parametrize(("law", "chains"), [("ess_mean", 4), ("ess_bulk", 4), ("ess_replicated", 256)])
@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.6, 0.9])
def test_effective_draws_of_ar1(law, chains, rho):
    """ESS = S (1 - rho) / (1 + rho) for AR(1).

    Means over 40 series, whose spread is measured from them: |t| < 5 with 39 degrees of freedom, false alarms
    1.3e-5 each; 3% is allowed beside, for the bias of Geyer's truncation.
    """
    draws = 4000 if chains == 4 else 60
    x = ar1(np.random.default_rng(5), chains, draws, (40,), rho)
    # Chains of 60 draws have the exact variance of their mean, not its limit.
    lags = np.arange(1, draws)
    time_ = 1 + 2 * np.sum((1 - lags / draws) * rho**lags)
    ratio = getattr(diagnostics, law)(x) * time_ / (chains * draws)
    error = ratio.std(ddof=1) / np.sqrt(40)
    assert abs(ratio.mean() - 1) < 5 * error + 0.03


def test_error_of_the_mean_is_the_spread_of_means():
    """MCSE against the spread of 400 replicated means: |z| < 5."""
    x = ar1(np.random.default_rng(6), 128, 50, (400,), 0.8)
    spread = x.mean(axis=(0, 1)).std(ddof=1)
    for law in (diagnostics.mcse_mean, diagnostics.mcse_replicated):
        told = np.sqrt(np.mean(law(x) ** 2))
        assert abs(told / spread - 1) < 5 / np.sqrt(2 * 399) + 0.02


def test_few_chains_fall_back_to_autocorrelations():
    x = ar1(np.random.default_rng(7), 8, 200, (3,))
    np.testing.assert_array_equal(diagnostics.ess_replicated(x), diagnostics.ess_mean(x))


LAWS = ["r_hat", "ess_bulk", "ess_tail", "ess_mean", "mcse_mean", "ess_replicated", "mcse_replicated"]


@pytest.mark.parametrize("law", LAWS)
def test_what_cannot_be_told_is_nan(law):
    x = ar1(np.random.default_rng(8), 4, 50, (5,))
    x[..., 1] = 3.0
    x[2, 7, 2] = np.nan
    x[2, 7, 3] = np.inf
    found = getattr(diagnostics, law)(x)
    assert np.isnan(found).tolist() == [False, True, True, True, False]
    assert np.isnan(getattr(diagnostics, law)(x[:, :3])).all()
    assert getattr(diagnostics, law)(x[:, :0]).shape == (5,)
    assert getattr(diagnostics, law)(np.zeros((4, 50, 0))).shape == (0,)


def test_summary_of_odd_quantities():
    x = ar1(np.random.default_rng(9), 4, 50, (2, 3))
    x[..., 0, 0] = 2.5
    columns = diagnostics.summarise(x)
    assert all(column.shape == (2, 3) for column in columns.values())
    assert columns["mean"][0, 0] == 2.5
    assert columns["sd"][0, 0] == 0
    assert np.isnan(columns["r_hat"]).sum() == 1
    few = diagnostics.summarise(x[:1, :1])
    assert np.isfinite(few["mean"]).all()
    assert np.isnan(few["sd"]).all()
    assert np.isnan(diagnostics.summarise(x[:, :0])["mean"]).all()
    flags = diagnostics.summarise(x[..., 0, 1] > 0)
    assert 0 < flags["mean"] < 1
    assert flags["ess_bulk"] > 10


def test_blocks_do_not_change_anything(monkeypatch):
    x = ar1(np.random.default_rng(10), 4, 60, (7,))
    whole = diagnostics.summarise(x)
    monkeypatch.setattr("shoal.diagnostics.rows.BLOCK", 4 * 60 * 2)
    for name, column in diagnostics.summarise(x).items():
        np.testing.assert_allclose(column, whole[name], rtol=1e-12)


def test_many_chains_take_seconds():
    """1,024 chains of 200 draws of 61 numbers: 3 s on one core, where ArviZ takes 27."""
    x = ar1(np.random.default_rng(11), 1024, 200, (61,)).astype(np.float32)
    begin = time.process_time()
    columns = diagnostics.summarise(x)
    assert time.process_time() - begin < 15
    # Not below 1.01: at rank R-hat, 67 effective draws per chain are not enough. Hence superchains.
    assert columns["r_hat"].max() < 1.02
