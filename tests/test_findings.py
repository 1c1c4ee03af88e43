"""The judge: what it calls converged, what it catches, and in which words.

Rates are those of fixed seeds. Measured over more of them, with 128 chains in 16 superchains and 20
quantities, normal, Cauchy and log-normal alike: no false alarm in 540 runs with 6,700 to 17,000 effective
draws, 7 in 180 with 2,800. At 17,000, in 60 runs each, these are found always: one superchain off by half a
standard deviation, a shift of 0.2 between the halves, a frozen chain, and one or half of the superchains in
another mode. One superchain off by a quarter is found in half of the runs.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import shoal
from shoal.diagnostics.findings import Finding
from shoal.diagnostics.mixing import APART, DRIFT, half_drift, superchains_apart
from shoal.diagnostics.verdict import judge
from simulated import ar1, sample_stats

CHAINS, GROUPS = 128, 16
IDS = np.repeat(np.arange(GROUPS), CHAINS // GROUPS)
TAILS = {
    "normal": lambda z: z,
    "cauchy": lambda z: np.tan(np.pi * (stats.norm.cdf(z) - 0.5)),
    "log-normal": lambda z: np.exp(3 * z),
}


def run(seed: int, change=None, draws: int = 400, tail: str = "normal", **stats_) -> tuple[Finding, ...]:
    z = ar1(np.random.default_rng(seed), CHAINS, draws, (5,))
    if change is not None:
        change(z)
    lp = -0.5 * (z**2).sum(axis=2)
    values = {
        "tau": TAILS[tail](z[..., 0]).astype(np.float32),
        "beta": TAILS[tail](z[..., 1:]).astype(np.float32),
    }
    return judge(values, {**sample_stats(lp), **stats_}, IDS)


def but_heavy_tails(found) -> list[Finding]:
    """All others: two of these kinds of draws have tails of which no mean is to be trusted, and are told so."""
    return [finding for finding in found if finding.kind != "heavy_tail"]


def shift_superchain(z):
    z[IDS == 3, :, 0] += 0.5


def shift_half(z):
    z[:, z.shape[1] // 2 :, 0] += 0.2


def drift(z):
    z[..., 0] += np.exp(-5 * np.linspace(0, 1, z.shape[1]))


def freeze(z):
    z[5] = z[5, :1]


def one_mode_in_sixteen(z):
    z[IDS == 0, :, 0] += 4


def two_modes(z):
    z[IDS < 8, :, 0] += 4


def spread(z):
    z[IDS == 3, :, 0] *= 2


@pytest.mark.parametrize("tail", TAILS)
def test_stationary_chains_are_converged(tail):
    found = [finding for seed in range(5) for finding in run(seed, tail=tail)]
    assert but_heavy_tails(found) == []
    assert bool(found) is (tail != "normal")


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (shift_superchain, {"superchain", "r_hat"}),
        (shift_half, {"drift"}),
        (drift, {"drift"}),
        (one_mode_in_sixteen, {"r_hat"}),
        (two_modes, {"r_hat"}),
        (spread, {"superchain", "r_hat"}),
    ],
)
def test_trouble_in_one_quantity_is_found(change, kinds, tail):
    for seed in range(3):
        found = run(seed, change, tail=tail)
        assert any(finding.blocking and finding.kind in kinds and finding.where == "tau" for finding in found)
        assert not any(finding.where.startswith("beta") for finding in but_heavy_tails(found))


def test_frozen_chain_is_named():
    (finding,) = (finding for finding in run(0, freeze) if finding.kind == "stuck")
    assert finding.chains == (5,)
    assert finding.where == "chain 5"
    assert finding.blocking
    assert "1 of 128 chains did not move" in finding.words


def test_chain_that_moves_on_a_flat_target_is_not_stuck():
    z = ar1(np.random.default_rng(0), CHAINS, 400)
    assert judge({"x": z}, sample_stats(np.zeros(z.shape)), IDS) == ()


def test_a_few_rejections_are_not_stuck():
    z = ar1(np.random.default_rng(0), CHAINS, 16)
    z[5, 10:] = z[5, 10]
    assert not any(finding.kind == "stuck" for finding in judge({"x": z}, sample_stats(-(z**2)), IDS))


def test_chain_far_off_is_named():
    def far(z):
        z[9] += 8

    kinds = {finding.kind: finding for finding in run(0, far)}
    assert kinds["log_density"].chains == (9,)
    assert kinds["log_density"].blocking


def test_slow_chains_with_a_skewed_log_density_are_left_in_peace():
    """Two effective draws per chain of an exponential log density: the tail is wide, no chain is apart."""
    for seed in range(10):
        z = ar1(np.random.default_rng(seed), CHAINS, 200, (2,), rho=0.98)
        found = judge({"z": z}, sample_stats(-0.5 * (z**2).sum(axis=2)), IDS)
        assert not any(finding.kind == "log_density" for finding in found)


@pytest.mark.parametrize(("count", "blocking"), [(1, False), (256, False), (257, True)])
def test_divergences(count, blocking):
    diverging = np.zeros((CHAINS, 400), bool)
    diverging[3, : min(count, 30)] = True
    diverging[8, 30:count] = True
    (finding,) = run(0, diverging=diverging)
    assert finding.kind == "divergences"
    assert finding.blocking is blocking
    assert finding.number == count / diverging.size
    assert ("1 transition diverged" if count == 1 else f"{count} transitions diverged") in finding.words
    assert finding.chains == ((3,) if count == 1 else (3, 8))


def in_the_tail(z: np.ndarray, share: float, lowest: bool = True, mass: float = 0.01) -> np.ndarray:
    """Acceptance probabilities: hopeless by this share in a tail of the first quantity, one in 10,000 elsewhere."""
    rng = np.random.default_rng(1)
    x = z[..., 0] if lowest else -z[..., 0]
    rate = np.where(x <= np.quantile(x, mass), share, 1e-4)
    return np.where(rng.random(x.shape) < rate, 0.001, 0.9)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("lowest", [True, False])
def test_neck_is_found_whatever_the_tail_is_like(lowest, tail):
    acceptance = np.empty((CHAINS, 400))

    def visit(z):
        """Twenty chains go far into the tail, once, and stay for a while."""
        rng = np.random.default_rng(0)
        for chain, begin in zip(rng.choice(CHAINS, 20, replace=False), rng.integers(0, 375, 20), strict=True):
            z[chain, begin : begin + 25, 0] = (-1.0 if lowest else 1.0) * rng.uniform(3.5, 4.5, 25)
        acceptance[:] = in_the_tail(z, 0.4, lowest)

    (finding,) = but_heavy_tails(run(0, visit, tail=tail, acceptance_rate=acceptance))
    assert (finding.kind, finding.where, finding.blocking) == ("neck", "tau", True)
    assert 0.35 < finding.number < 0.45
    assert ("lowest" if lowest else "highest") in finding.words


@pytest.mark.parametrize(("chains", "draws"), [(6, 400), (6, 200), (12, 400)])
def test_neck_in_a_thinner_tail_is_found_where_its_mass_is_not_known(chains, draws):
    """Of 200 draws of every chain too few are there to tell."""
    acceptance = np.empty((CHAINS, draws))

    def visit(z):
        """So many chains go far into the tail, once, and stay: the more they are, the better its mass is known."""
        rng = np.random.default_rng(0)
        stay = 3 * draws // 10 // chains
        for chain, begin in zip(rng.permutation(CHAINS)[:chains], rng.integers(0, draws - 25, chains), strict=True):
            z[chain, begin : begin + stay, 0] = -rng.uniform(4.5, 5.5, stay)
        acceptance[:] = in_the_tail(z, 0.35, mass=0.003)

    found = run(0, visit, draws=draws, acceptance_rate=acceptance)
    if (chains, draws) != (6, 400):
        assert found == ()
        return
    (finding,) = found
    assert (finding.kind, finding.where, finding.blocking) == ("neck", "tau", True)
    assert 0.25 < finding.number < 0.45
    assert "lowest 0.3% of the draws" in finding.words


def test_hopeless_proposals_elsewhere_make_no_neck():
    z = ar1(np.random.default_rng(0), CHAINS, 400, (5,))
    assert run(0, acceptance_rate=in_the_tail(z, 0.1)) == ()
    everywhere = np.where(np.random.default_rng(2).random(z.shape[:2]) < 0.4, 0.001, 0.9)
    assert run(0, acceptance_rate=everywhere) == ()


def test_one_chain_that_is_stuck_in_a_tail_for_a_while_makes_no_neck():
    z = ar1(np.random.default_rng(0), CHAINS, 400, (5,))
    acceptance = np.full(z.shape[:2], 0.9)

    def stay(values):
        values[3, 100:300, 0], acceptance[3, 101:300] = -4.0, 0.0

    assert "neck" not in {finding.kind for finding in run(0, stay, acceptance_rate=acceptance)}


def test_tail_that_is_visited_often_is_no_neck():
    """Its mass is known: what fails there is made good elsewhere."""
    z = np.random.default_rng(0).standard_normal((CHAINS, 400, 5))
    lp = -0.5 * (z**2).sum(axis=2)
    assert judge({"tau": z[..., 0]}, {**sample_stats(lp), "acceptance_rate": in_the_tail(z, 0.6)}, IDS) == ()


def test_neck_that_a_step_size_misses_is_found():
    """Nothing else sees it: the chains agree on a funnel with most of its neck cut off."""
    weight, centre, spread, width = 0.02, -2.0, 0.7, 0.4

    def log_density(p):
        v = p["v"]
        bulk = jnp.log1p(-weight) - 0.5 * (v / width) ** 2 - jnp.log(width)
        neck = jnp.log(weight) - 0.5 * ((v - centre) / spread) ** 2 - jnp.log(spread)
        return jnp.logaddexp(bulk, neck) - 0.5 * (p["x"] ** 2).sum() * jnp.exp(-2 * v) - 4 * v

    funnel = shoal.Model(params={"v": shoal.real(), "x": shoal.real(4)}, log_density=log_density)
    x = np.random.default_rng(0).normal(scale=0.8, size=(GROUPS, 4)).repeat(CHAINS // GROUPS, axis=0)
    hmc = shoal.HMC(step_size=0.3, num_steps=4)
    result = shoal.sample(
        funnel, sampler=hmc, initial_positions={"v": np.zeros(CHAINS), "x": x}, num_samples=1000, progress_bar=False
    )
    assert [finding.kind for finding in result.findings if finding.blocking] == ["neck"]
    assert result.findings[0].where == "v"
    exact = np.sqrt((1 - weight) * width**2 + weight * (spread**2 + centre**2) - (weight * centre) ** 2)
    assert result.draws["v"].std() < 0.95 * exact


def test_too_few_draws_are_never_converged():
    for draws in (0, 1, 2, 3):
        assert any(finding.kind == "too_few" and finding.blocking for finding in run(0, draws=draws))
    for draws in (4, 5, 20):
        assert any(finding.kind == "r_hat" for finding in run(0, draws=draws))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_too_few_superchains_are_never_converged(groups):
    z = ar1(np.random.default_rng(0), 12, 2000)
    ids = np.repeat(np.arange(groups), 12 // groups)
    (finding,) = judge({"x": z}, sample_stats(-(z**2)), ids)
    assert (finding.kind, finding.number, finding.blocking) == ("too_few", groups, True)


def test_nothing_at_all_is_not_converged():
    assert any(finding.blocking for finding in judge({}, {}, np.zeros(0, int)))
    kinds = {finding.kind for finding in run(0, lambda z: z.fill(1.0))}
    assert {"constant", "stuck"} <= kinds


def test_few_effective_draws():
    z = ar1(np.random.default_rng(0), 8, 4000, rho=0.985)
    (finding,) = (f for f in judge({"x": z}, {}, np.repeat(np.arange(4), 2)) if f.kind == "ess")
    assert finding.number < 400
    assert "times as many (num_samples)" in finding.remedy


def test_missing_draws_are_counted():
    def spoil(z):
        z[0, 3, 2] = np.nan
        z[1, :2, 4] = np.inf

    # The log density of the simulation is spoilt along with them.
    found = {f.where: f for f in run(0, spoil, lp=np.random.default_rng(1).normal(size=(CHAINS, 400)))}
    assert set(found) == {"beta[3]"}
    assert found["beta[3]"].number == 2
    assert "So has 1 more of the 4 numbers of beta" in found["beta[3]"].words


def test_constants_beside_are_left_out():
    z = ar1(np.random.default_rng(0), CHAINS, 400, (2, 2)).astype(np.float32)
    z[..., 0, 0], z[..., 0, 1] = 1.0, 0.0
    rounding = np.float32(1) + np.spacing(np.float32(1)) * np.random.default_rng(1).integers(0, 4, z.shape[:2])
    assert judge({"factor": z, "diagonal": rounding.astype(np.float32)}, {}, IDS) == ()


def test_log_density_is_judged_too():
    z = ar1(np.random.default_rng(0), CHAINS, 400)
    lp = -(z**2)
    lp[IDS == 2] -= 2
    assert {finding.where for finding in judge({"x": z}, sample_stats(lp), IDS)} == {"lp"}


def test_one_finding_for_a_variable_with_labels():
    z = ar1(np.random.default_rng(0), CHAINS, 400, (30,))
    z[IDS < 4, :, 10:] += 1
    found = judge({"beta": z}, {}, IDS, {"beta": ("feature",)}, {"feature": [f"f{i}" for i in range(30)]})
    (finding,) = found
    assert finding.where.startswith("beta[f")
    assert "So do 19 more of the 30 numbers of beta." in finding.words


def test_findings_survive_json():
    finding = Finding("r_hat", "tau", float("inf"), "Words.", "Remedy.", threshold=1.01, chains=(3, 4))
    fields = json.loads(json.dumps({**finding.as_dict(), "number": "inf"}))
    assert Finding.from_dict(fields) == finding
    assert str(finding) == "Words. Remedy."


def test_blocking_findings_come_first():
    diverging = np.zeros((CHAINS, 400), bool)
    diverging[0, 0] = True
    found = [finding.blocking for finding in run(0, two_modes, diverging=diverging)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 2


def test_shifts_must_be_both_large_and_beyond_chance():
    rng = np.random.default_rng(0)
    noisy = rng.normal(0, 0.5, (2000, CHAINS))
    assert np.abs(noisy.reshape(2000, GROUPS, -1).mean(axis=2)).max() > 2 * APART
    assert superchains_apart(noisy, IDS)[0].max() == 0
    assert half_drift(rng.normal(0, 2, (2000, CHAINS))).max() == 0
    precise = rng.normal(0, 0.001, (10, CHAINS))
    precise[:, IDS == 3] += 0.8 * APART
    assert superchains_apart(precise, IDS)[0].max() == 0
    assert half_drift(precise + 0.8 * DRIFT).max() == 0
    precise[:, IDS == 3] += 0.4 * APART
    distance, farthest = superchains_apart(precise, IDS)
    np.testing.assert_allclose(distance, 1.2 * APART, atol=0.01)
    assert set(farthest) == {3}
    np.testing.assert_allclose(half_drift(rng.normal(1.2 * DRIFT, 0.01, (10, CHAINS))), 1.2 * DRIFT, atol=0.01)


def test_too_few_chains_for_a_test_of_shifts():
    assert superchains_apart(np.array([[0.0, 0.0, 9.0, 9.0]]), np.array([0, 0, 1, 1]))[0] == 0
    assert half_drift(np.full((1, 4), 5.0)) == 0
