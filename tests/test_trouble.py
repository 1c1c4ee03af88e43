"""Findings that say where the trouble is: each is provoked, gives no alarm over healthy runs, and has a blind mutant.

False alarms over many seeds are measured by the slow test at the end; `docs/findings.md` states the rates.
"""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from shoal.diagnostics import energy, grouping, mixing, places, sticking, tails, trial, verdict
from shoal.diagnostics.estimates import ess_tail
from shoal.diagnostics.findings import Finding
from shoal.diagnostics.grouping import groups
from shoal.diagnostics.rows import row_of
from shoal.diagnostics.sticking import longest_allowed
from shoal.diagnostics.verdict import judge
from shoal.results.folds import Folds
from shoal.results.moments import Moments, SomeVariable
from simulated import ar1, metropolis, sample_stats

CHAINS, DRAWS, GROUPS = 128, 400, 16
IDS = np.repeat(np.arange(GROUPS), CHAINS // GROUPS)
SHAPES = {"many": (CHAINS, DRAWS, IDS), "four": (4, 1000, np.arange(4))}
HEALTHY = {
    "normal": lambda z: z,
    "log-normal": np.exp,
    "Student": lambda z: stats.t.ppf(stats.norm.cdf(z), 3),
    "cauchy": lambda z: np.tan(np.pi * (stats.norm.cdf(z) - 0.5)),
}


def healthy(seed: int = 0, shape: str = "many", tail: str = "normal", rho: float = 0.5):
    """Draws, statistics and superchains of a run of which nothing bad is to be said."""
    chains, draws, ids = SHAPES[shape]
    z = ar1(np.random.default_rng(seed), chains, draws, (5,), rho)
    x = HEALTHY[tail](z).astype(np.float32)
    potential = 0.5 * (z**2).sum(axis=2)
    return {"tau": x[..., 0], "theta": x[..., 1:]}, with_energy(potential, 5), ids


def diverging_where(low: np.ndarray, share: float = 0.3) -> np.ndarray:
    return low & (np.random.default_rng(1).random(low.shape) < share)


def neck(shape: str = "many"):
    """Divergences where tau is low."""
    draws, statistics, ids = healthy(shape=shape)
    edge = np.quantile(draws["tau"], 0.02)
    return draws, {**statistics, "diverging": diverging_where(draws["tau"] < edge)}, ids


def both_ends(shape: str = "many"):
    draws, statistics, ids = healthy(shape=shape)
    far = np.abs(draws["theta"][..., 2]) > 2
    return draws, {**statistics, "diverging": diverging_where(far)}, ids


def two_modes(shape: str = "many"):
    draws, statistics, ids = healthy(shape=shape)
    draws["tau"][ids >= (ids.max() + 1) * 0.75] += 6
    return draws, statistics, ids


def divided_superchains():
    draws, statistics, ids = healthy()
    draws["tau"][::3] += 6
    return draws, statistics, ids


def cauchy(shape: str = "many"):
    draws, statistics, ids = healthy(shape=shape)
    draws["tau"] = HEALTHY["cauchy"](draws["tau"]).astype(np.float32)
    return draws, statistics, ids


def slow_tails():
    """Some chains are in the upper tail for nearly half of the run, the others never."""
    draws, statistics, ids = healthy(rho=0.0)
    rng = np.random.default_rng(2)
    x = draws["tau"]
    x[x > 1.5] = rng.uniform(-0.3, 0.3, np.count_nonzero(x > 1.5))
    for chain in rng.choice(CHAINS, 15, replace=False):
        begin = rng.integers(0, DRAWS - 170)
        x[chain, begin : begin + 170] = rng.uniform(2, 3, 170)
    return draws, statistics, ids // 4


def stretch(length: int, chains: tuple[int, ...] = (5,), begin: int = 40):
    draws, statistics, ids = healthy()
    for chain in chains:
        for values in (*draws.values(), statistics["lp"]):
            values[chain, begin : begin + length] = values[chain, begin]
    return draws, statistics, ids


def random_walk():
    """theta[0] and theta[1] walk against each other: only their sum is known."""
    draws, statistics, ids = healthy()
    walk = 0.1 * np.cumsum(np.random.default_rng(3).standard_normal((CHAINS, DRAWS)), axis=1)
    draws["theta"][..., 0] += walk
    draws["theta"][..., 1] -= walk
    return draws, statistics, ids


def with_energy(potential: np.ndarray, dim: int) -> dict[str, np.ndarray]:
    kinetic = 0.5 * np.random.default_rng(4).chisquare(dim, potential.shape)
    return {**sample_stats(-potential), "energy": (potential + kinetic).astype(np.float32)}


def funnel():
    """Exact draws of tau, normal with a standard deviation of 3, and of ten more numbers of the scale exp(tau / 2)."""
    z = np.random.default_rng(5).standard_normal((CHAINS, DRAWS, 11)).astype(np.float32)
    tau = 3 * z[..., 0]
    potential = tau**2 / 18 + 0.5 * (z[..., 1:] ** 2).sum(axis=2) + 5 * tau
    return {"tau": tau, "theta": np.exp(tau / 2)[..., None] * z[..., 1:]}, with_energy(potential, 11), IDS


def student():
    """Exact draws of a Student's t in ten dimensions with 3 degrees of freedom."""
    rng = np.random.default_rng(5)
    z = rng.standard_normal((CHAINS, DRAWS, 10)) / np.sqrt(rng.chisquare(3, (CHAINS, DRAWS, 1)) / 3)
    return {"theta": z}, with_energy(6.5 * np.log1p((z**2).sum(axis=2) / 3), 10), IDS


# By name: the run, the kind, where, whether it blocks, and words of it.
FOUND = {
    "neck": (neck, "divergences", None, True, ("They begin where tau is low (median rank 1% of all draws)", "tau")),
    "both ends": (both_ends, "divergences", None, True, ("theta[2] is far out (median rank 1% from the nearer end)",)),
    "two modes": (
        two_modes, "r_hat", "tau", True,
        ("2 groups between which chains hardly go, 12 around", "and 4 around 6", "weights cannot be trusted"),
    ),
    "divided": (
        divided_superchains, "ess", "tau", True,
        ("the chains fall into 2 groups", "and 43 around 6; 16 superchains with chains in several"),
    ),
    "heavy": (cauchy, "heavy_tail", "tau", False, ("Pareto k 1.", "neither its mean nor its variance", "the median")),
    "tails": (slow_tails, "tail_ess", "tau", False, ("effective draws of one of its tails", "its mean is known")),
    "one stretch": (
        lambda: stretch(120), "sticking", "chain 5", False,
        ("Chain 5 stayed on one value for 120 draws on end, from draw 40 on; rejections", "within the 0.5%"),
    ),
    "stretches": (lambda: stretch(120, (5, 9, 11)), "sticking", "chains 5, 9 and 11", True, ("of 3 chains",)),
    "funnel": (
        funnel, "energy", "tau", False,
        ("E-BFMI is 0.0", "goes with tau (rank correlation 0.9", "less with 10 more", "what depends on tau"),
    ),
    "Student": (student, "energy", None, False, ("E-BFMI is 0.2", "the distance of theta[", "a scale mixture")),
    "walk": (
        random_walk, "improper", "theta[0]", True,
        ("spreads for as long as the run lasts", "So does 1 more", "against theta[1]", "their sum"),
    ),
}  # fmt: skip


def only(found: tuple[Finding, ...], kind: str) -> Finding:
    (finding,) = (finding for finding in found if finding.kind == kind)
    return finding


@pytest.mark.parametrize("name", FOUND)
def test_trouble_is_found_and_located(name):
    make, kind, where, blocking, words = FOUND[name]
    finding = only(judge(*make()), kind)
    assert finding.blocking is blocking
    assert where in (None, finding.where)
    for some in words:
        assert some in str(finding)


def nothing(*_, **__):
    return ()


# What a detector would be without each of its parts.
BLIND = {
    "neck": (places, "_ranks", lambda some, among: np.full(len(some), 0.5)),
    "both ends": (places, "STRETCHES", 0),
    "two modes": (grouping, "GAP", 8.0),
    "divided": (grouping, "STRAYS", -1.0),
    "heavy": (tails, "ERRORS", 50.0),
    "tails": (mixing, "tail_ess", lambda scores: np.full(len(scores), 1e4)),
    "one stretch": (sticking, "ALLOWANCE", 0.01),
    "stretches": (verdict, "MAX_LOST", 0.5),
    "funnel": (energy, "ERRORS", 1e9),
    "Student": (energy, "SURELY", 0.0001),
    "walk": (mixing, "LATE", 0.6),
}


@pytest.mark.parametrize("name", BLIND)
def test_a_blind_detector_would_show(monkeypatch, name):
    module, attribute, instead = BLIND[name]
    monkeypatch.setattr(module, attribute, instead)
    with pytest.raises((AssertionError, ValueError)):
        test_trouble_is_found_and_located(name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tail", HEALTHY)
def test_healthy_runs_give_no_alarm(shape, tail):
    seen = Counter(finding.kind for seed in range(4) for finding in judge(*healthy(seed, shape, tail)))
    # The mean of a Cauchy quantity does not exist: that is no false alarm.
    heavy = seen.pop("heavy_tail", 0)
    assert not seen
    assert (heavy > 0) is (tail == "cauchy")


# Divergences


@pytest.mark.parametrize("shape", SHAPES)
def test_divergences_anywhere_have_no_place(shape):
    draws, statistics, ids = healthy(shape=shape)
    anywhere = np.random.default_rng(0).random(statistics["lp"].shape) < 0.01
    found = only(judge(draws, {**statistics, "diverging": anywhere}, ids), "divergences")
    assert "They begin" not in found.words


def test_one_visit_of_one_chain_is_no_place(monkeypatch):
    draws, statistics, ids = healthy()
    statistics["diverging"][3, 100:130] = True
    draws["tau"][3, 100:130] = -4 + 0.01 * np.arange(30)
    assert "They begin" not in only(judge(draws, statistics, ids), "divergences").words
    # As if each draw were a witness of its own.
    monkeypatch.setattr(places, "STRETCHES", DRAWS)
    assert "They begin" in only(judge(draws, statistics, ids), "divergences").words


def test_two_places_at_most_are_named_and_the_remedy_names_them():
    draws, statistics, ids = healthy()
    corner = (draws["tau"] < -1) & (draws["theta"][..., 0] > 1) & (draws["theta"][..., 3] > 0.5)
    found = only(judge(draws, {**statistics, "diverging": corner}, ids), "divergences")
    assert "tau is low" in found.words
    assert "theta[0] is high" in found.words
    assert "theta[3]" not in str(found)
    assert found.remedy.count("tau") == found.remedy.count("theta[0]") == 1


def test_few_divergences_are_not_looked_up():
    class Unread(dict):
        def __getitem__(self, name):
            raise AssertionError("read")

    marked = np.zeros((CHAINS, DRAWS), bool)
    marked[:4, 7] = True
    assert places.places(Unread(x=0), marked) == ()


# Modes


@pytest.mark.parametrize("rho", [0.99, 0.999, 0.9999])
@pytest.mark.parametrize("shape", SHAPES)
def test_slow_chains_of_one_mode_make_no_groups(rho, shape):
    chains, draws, ids = SHAPES[shape]
    for seed in range(20):
        z = ar1(np.random.default_rng(seed), chains, draws, (), rho)
        assert groups(z, ids) is None


def test_two_of_four_slow_chains_are_near_each_other_by_chance(monkeypatch):
    found = lambda: [groups(ar1(np.random.default_rng(seed), 4, 1000, (), 0.999), np.arange(4)) for seed in range(60)]
    assert found() == [None] * 60
    monkeypatch.setattr(grouping, "MANY", 1)
    assert any(found())


def test_groups_of_different_width_and_a_stray():
    rng = np.random.default_rng(0)
    row = rng.normal(0, 10, (CHAINS, DRAWS))
    row[:32] = rng.normal(60, 0.1, (32, DRAWS))
    row[70] = 500.0
    found = groups(row, IDS)
    assert found is not None
    assert found.superchains == (12, 4)
    np.testing.assert_allclose(found.centres, [0, 60], atol=0.2)
    assert found.smaller == tuple(range(32))
    assert found.members[70] == -1
    assert 9 < found.width < 11


def test_groups_are_told_of_once():
    draws, statistics, ids = divided_superchains()
    draws["tau"][(ids < 4) & (np.arange(CHAINS) % 3 == 1)] += 6
    found = {finding.kind: finding for finding in judge(draws, statistics, ids)}
    assert "groups between" in found["r_hat"].words
    assert "groups between" not in found["ess"].words
    assert found["ess"].remedy == trial.GROUPED


def test_some_chains_that_go_from_mode_to_mode_do_not_hide_the_modes(monkeypatch):
    rng = np.random.default_rng(0)
    row = rng.standard_normal((CHAINS, DRAWS)) + np.where(IDS < 6, -4.0, 4.0)[:, None]
    for chain in (3, 17, 60, 100):
        row[chain, DRAWS // 2 + 20 * (chain % 7) :] *= -1
    row[5, DRAWS // 2 :: 2] *= -1
    found = groups(row, IDS)
    assert found is not None
    np.testing.assert_allclose(found.centres, [-4, 4], atol=0.1)
    assert found.members[5] == -1 or found.divided >= 3
    monkeypatch.setattr(grouping, "BESIDE", 1)
    assert groups(row, IDS) is None


def test_a_superchain_in_a_mode_of_its_own_names_the_groups():
    draws, statistics, ids = healthy()
    draws["tau"][ids == 3] += 8
    finding = only(judge(draws, statistics, ids), "r_hat")
    assert "15 around" in finding.words
    assert finding.chains == tuple(range(24, 32))


# Tails


@pytest.mark.parametrize("tail", ["normal", "log-normal", "cauchy", "Student"])
def test_pareto_k_is_that_of_arviz(tail):
    base = pytest.importorskip("arviz_stats.base")
    x = HEALTHY[tail](np.random.default_rng(0).standard_normal((4, 2000)))
    size = tails.tail_size(x.size, 1.0)
    ordered = np.sort(x, axis=None)
    ours = tails.pareto_k(ordered[-size:] - ordered[-size - 1])
    np.testing.assert_allclose(ours, base.array_stats.pareto_khat(x, r_eff=1.0, tail="right"), rtol=1e-10)


def test_both_tails_are_looked_at():
    draws, statistics, ids = healthy()
    for sign, end in ((1, "upper"), (-1, "lower")):
        draws["tau"] = sign * np.abs(HEALTHY["cauchy"](healthy()[0]["tau"]))
        assert f"heavy {end} tail" in only(judge(draws, statistics, ids), "heavy_tail").words


def test_tails_of_few_values_have_no_shape():
    z = ar1(np.random.default_rng(0), CHAINS, DRAWS, (2,))
    found = judge({"coin": (z[..., 0] > 1.9).astype(int), "count": np.exp(z[..., 1]).astype(int)}, {}, IDS)
    assert not {"heavy_tail", "tail_ess"} & {finding.kind for finding in found}


def test_chains_elsewhere_make_no_heavy_tail():
    draws, statistics, ids = healthy()
    draws["tau"][ids == 3] += np.float32(1e4)
    assert "heavy_tail" not in {finding.kind for finding in judge(draws, statistics, ids)}


def test_effective_draws_of_tails_are_those_of_the_summary():
    z = ar1(np.random.default_rng(0), 8, 1000, (3,), 0.9)
    np.testing.assert_allclose(mixing.mixing(z, np.arange(8) // 2).tail_ess, ess_tail(z), rtol=1e-6)
    many = ar1(np.random.default_rng(0), 256, 500, (3,), 0.9)
    np.testing.assert_allclose(mixing.mixing(many, np.arange(256) // 16).tail_ess, ess_tail(many), rtol=0.3)


# Sticking


def test_rejections_are_explained_and_longer_stretches_are_not():
    allowed = longest_allowed(CHAINS * DRAWS, 0.8)
    assert CHAINS * DRAWS * 0.8**allowed < 0.01 < CHAINS * DRAWS * 0.8 ** (allowed - 2)
    assert "sticking" not in {finding.kind for finding in judge(*stretch(allowed))}
    assert only(judge(*stretch(allowed + 1)), "sticking").chains == (5,)


def test_a_metropolis_walk_does_not_stick(monkeypatch):
    runs = [metropolis(np.random.default_rng(seed), CHAINS, DRAWS, 5, 1.1) for seed in range(3)]
    sticks = lambda: [sticking.stretches({"x": z}, -0.5 * (z**2).sum(axis=2), rate)[0] for z, rate in runs]
    assert sticks() == [(), (), ()]
    monkeypatch.setattr(sticking, "ALLOWANCE", 2.0)
    assert any(sticks())


def test_a_chain_that_moves_on_a_flat_target_does_not_stick():
    draws, statistics, ids = healthy()
    assert judge(draws, {**statistics, "lp": np.zeros((CHAINS, DRAWS), np.float32)}, ids) == ()


def test_a_chain_that_is_stuck_is_not_said_to_stick_as_well():
    draws, statistics, ids = stretch(DRAWS - 40)
    kinds = {finding.kind for finding in judge(draws, statistics, ids)}
    assert "stuck" in kinds
    assert "sticking" not in kinds


# Quantities that spread


@pytest.mark.parametrize("early", [5, 20])
def test_chains_that_spread_and_arrive_drift_and_are_not_improper(early):
    draws, statistics, ids = healthy()
    draws["tau"] *= (1 - np.exp(-np.arange(DRAWS) / (DRAWS / early))).astype(np.float32)
    found = judge(draws, statistics, ids)
    assert "improper" not in {finding.kind for finding in found}
    assert "drift" in {finding.kind for finding in found}


def test_a_walk_is_not_said_to_drift_as_well():
    assert "drift" not in {finding.kind for finding in judge(*random_walk())}


# Runs that keep moments


@pytest.mark.parametrize("name", FOUND)
def test_runs_that_keep_moments_say_the_same(name):
    make, kind, _, blocking, words = FOUND[name]
    draws, statistics, ids = make()
    folds = Folds.of(draws, statistics, ids)
    folds.update(draws, statistics)
    moments = Moments(folds)
    finding = only(judge(moments.draws, moments.sample_stats, ids, counts=moments.counts), kind)
    assert finding.blocking is blocking
    for some in words:
        assert some in str(finding)


def test_a_quantity_is_found_in_parts():
    z = np.random.default_rng(0).standard_normal((CHAINS, DRAWS, 2, 6))
    part = SomeVariable(z.reshape(CHAINS, DRAWS, 12), z.shape, z.dtype)
    for quantity in (0, 7, 11):
        for draws in (z, part):
            np.testing.assert_array_equal(row_of(draws, quantity), z.reshape(CHAINS, DRAWS, 12)[..., quantity])
    for draws in (z, part):
        with pytest.raises(IndexError):
            row_of(draws, 12)


def test_findings_about_tails_come_last_and_never_block():
    draws, statistics, ids = two_modes()
    draws["theta"] = HEALTHY["cauchy"](draws["theta"]).astype(np.float32)
    found = judge(draws, statistics, ids)
    assert [finding.kind for finding in found] == ["r_hat", "heavy_tail"]
    assert found[-1].threshold == trial.HEAVY
    assert "So have 3 more of the 4 numbers of theta" in found[-1].words


# As rare as `docs/findings.md` says


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tail", HEALTHY)
def test_false_alarms_are_as_rare_as_said(shape, tail):
    seen = Counter(finding.kind for seed in range(200) for finding in judge(*healthy(seed, shape, tail)))
    heavy = seen.pop("heavy_tail", 0)
    assert sum(seen.values()) <= 1
    assert seen.keys() <= {"r_hat"}
    # One of each variable. Of 4,000 draws the one number of tau is not always known well enough.
    assert (heavy >= (400 if shape == "many" else 380)) if tail == "cauchy" else heavy == 0


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", [0.25, 1.1])
def test_metropolis_walks_do_not_stick(shape, step):
    chains, draws, _ = SHAPES[shape]
    for seed in range(200):
        z, rate = metropolis(np.random.default_rng(seed), chains, draws, 5, step)
        assert sticking.stretches({"x": z}, -0.5 * (z**2).sum(axis=2), rate)[0] == ()


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0005, 0.01])
@pytest.mark.parametrize("numbers", [5, 60])
def test_divergences_anywhere_hardly_ever_have_a_place(shape, share, numbers):
    chains, draws, _ = SHAPES[shape]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        z = ar1(rng, chains, draws, (numbers,))
        assert places.places({"x": z}, rng.random((chains, draws)) < share) == ()


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_slow_chains_are_hardly_ever_taken_for_modes_and_walks_are_for_walks(shape):
    chains, draws, ids = SHAPES[shape]
    grouped, improper = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        slow = [ar1(rng, chains, draws, (), rho) for rho in (0.95, 0.99, 0.999, 0.9999)]
        walk = np.cumsum(rng.standard_normal((chains, draws)), axis=1)
        grouped += sum(groups(z, ids) is not None for z in (*slow, walk))
        improper += "improper" in {finding.kind for finding in judge({"walk": walk}, {}, ids)}
    assert grouped <= (0 if shape == "many" else 6)
    assert improper >= (170 if shape == "many" else 0)
