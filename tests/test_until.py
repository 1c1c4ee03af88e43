"""Runs that end by themselves: what is folded, the rule, and what becomes of it in a run that is killed or goes on.

Seeds are fixed. Measured over 400 runs of 128 chains and 7 stationary normal quantities: of 1,272 looks at which the
precision was reached, drift kept the run from ending at 3 and Stein's identities at 6, each a delay of one look.
"""

import contextlib
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import shoal
import simulated
from shoal import deciding
from shoal.diagnostics.enough import Looks, Rule, next_look
from shoal.diagnostics.estimates import rhat_nested
from shoal.diagnostics.precision import precision
from shoal.ensemble import Ensemble, Info, Transition
from shoal.statistics import ChainMeans
from shoal.statistics.chain_means import stretches_for
from shoal.target import Target
from simulated import ar1

GROUPS = 16
DIM = 3
TARGET = Target(lambda x, data: -0.5 * jnp.sum(x * x), lambda x, data: {"x": x, "one": x[:1] * 0 + 5}, None, DIM)


# ------------------------------------------------------------------------------------------------- what is folded


def folded(fold: ChainMeans, z: np.ndarray):
    """The memory after draws `[chain, draw, DIM]`, float32, of the standard normal."""

    def at(x):
        return Ensemble(x, -0.5 * jnp.sum(x * x, axis=1), -x)

    def step(memory, x):
        here, nothing = at(x), jnp.zeros(len(x))
        info = Info(nothing, nothing, nothing > 0, nothing, nothing.astype(int), nothing.astype(int), x, x)
        return fold.update(memory, Transition(here, here, info), TARGET), None

    x = jnp.asarray(z, jnp.float32).swapaxes(0, 1)
    memory = fold.init(at(x[0]), TARGET)
    return jax.tree.map(np.asarray, jax.jit(lambda m, x: jax.lax.scan(step, m, x)[0])(memory, x))


def quantities(z: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """What is folded, in double precision: `[chain, draw, quantity]`."""
    lp = -0.5 * (z**2).sum(axis=2, keepdims=True)
    values = np.concatenate([z, np.full_like(lp, 5.0)], axis=2) - centre[:4]
    return np.concatenate([values, values**2, lp - centre[4], -z, (z - centre[5:]) * z], axis=2)


@pytest.mark.parametrize("draws", [1, 7, 300])
@pytest.mark.parametrize("chains", [64, 6])
def test_folds_agree_with_numpy(chains, draws):
    z = ar1(np.random.default_rng(chains), chains, draws, (DIM,)).astype(np.float32).astype(float)
    ids = np.arange(chains) % 2
    fold = ChainMeans(("x", "one"), np.zeros(2 * DIM + 2, np.float32), stretches_for(chains, 15))
    values = quantities(z, np.zeros(2 * DIM + 2))
    stretches = None
    if chains < 64:
        size = 2 ** max(0, math.ceil(math.log2(draws / 64)))
        stretches = values[:, : draws // size * size].reshape(chains, -1, size, values.shape[2]).mean(axis=2)
        assert fold.stretches == 64
    expected = precision(values.mean(axis=1), values.var(axis=1), draws, ids, stretches)
    mine = fold.precision(folded(fold, z), ids)
    for name in ("mean", "sd", "mcse"):
        np.testing.assert_allclose(getattr(mine, name), getattr(expected, name), rtol=2e-4, atol=2e-5, err_msg=name)
    assert mine.freedom == expected.freedom or draws < 4


def test_the_centre_is_where_the_chains_begin():
    z = 100 + ar1(np.random.default_rng(0), 64, 40, (DIM,))
    fold = ChainMeans(("x", "one"), np.zeros(2 * DIM + 2, np.float32))
    at = jnp.asarray(z[:, 0], jnp.float32)
    begun = fold.init(Ensemble(at, -0.5 * jnp.sum(at**2, axis=1), -at), TARGET)
    centred = fold.centred(jax.tree.map(np.asarray, begun), np.asarray(at))
    middle = z[:, 0].mean(axis=0)
    lp = -0.5 * (z[:, 0] ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(centred.centre, [*middle, 5.0, lp, *middle], rtol=1e-5)
    # Squares about it have the digits that squares about zero have lost in float32.
    mine = centred.precision(folded(centred, z), np.arange(64) % 2)
    exact = quantities(z, centred.centre.astype(float))[..., DIM + 1 : 2 * DIM + 1]
    np.testing.assert_allclose(mine.mean[DIM + 1 : 2 * DIM + 1], exact.mean(axis=(0, 1)), rtol=1e-4)
    assert (mine.sd[[DIM, 2 * DIM + 1]] == 0).all(), "a constant is one"


def simulated_precision(z: np.ndarray, ids: np.ndarray):
    """Of draws `[chain, draw, quantity]`; few chains in stretches as a run has them."""
    chains, draws = z.shape[:2]
    most, stretches = stretches_for(chains, 15), None
    if most:
        size = 2 ** max(0, math.ceil(math.log2(draws / most)))
        stretches = z[:, : draws // size * size].reshape(chains, -1, size, z.shape[2]).mean(axis=2)
    return precision(z.mean(axis=1), z.var(axis=1), draws, ids, stretches)


@pytest.mark.parametrize(("chains", "draws"), [(256, 200), (64, 400), (16, 1000), (4, 3000), (1, 8000)])
def test_errors_are_as_large_as_they_are(chains, draws):
    """The mean of (mean / mcse)² over many quantities is t's freedom / (freedom - 2); its z-score is within 4."""
    z = ar1(np.random.default_rng(chains), chains, draws, (1500,), rho=0.8)
    found = simulated_precision(z, np.arange(chains))
    ratio = (found.mean / found.mcse) ** 2
    expected = found.freedom / (found.freedom - 2)
    error = ratio.std() / np.sqrt(len(ratio))
    # Stretches leave some correlation out, and are as good as cut free: 3% are let pass beside chance.
    assert abs(ratio.mean() - expected) < 4 * error + 0.03, (ratio.mean(), expected, error)
    assert abs(np.median(found.ess) / (chains * draws * 0.2 / 1.8) - 1) < 0.1


def test_errors_by_single_stretches_would_be_too_small(monkeypatch):
    """The mutant: stretches of four draws, which are neither joined nor corrected for what they leave out."""

    def single(stretches):
        spread = ((stretches - stretches.mean(axis=(0, 1))) ** 2).sum(axis=(0, 1)) / (stretches[..., 0].size - 1)
        return spread / stretches.shape[1], 2.0 * stretches.shape[1]

    z = ar1(np.random.default_rng(4), 4, 256, (1500,), rho=0.8)
    squared = lambda found: ((found.mean / found.mcse) ** 2).mean()
    right = squared(simulated_precision(z, np.arange(4)))
    monkeypatch.setattr("shoal.diagnostics.precision._lugsail", single)
    assert squared(simulated_precision(z, np.arange(4))) > 2
    assert right < 1.5


def test_stretches_of_many_quantities_are_fewer():
    assert [stretches_for(chains, 100) for chains in (1, 4, 5, 16, 63, 64, 1000)] == [256, 64, 64, 16, 8, 0, 0]
    assert [stretches_for(chains, 4000) for chains in (1, 4, 16)] == [128, 32, 8]
    assert [stretches_for(chains, 10**6) for chains in (1, 4, 16)] == [64, 16, 8]


def test_nested_r_hat_is_that_of_all_draws():
    z = ar1(np.random.default_rng(1), 64, 50, (DIM,))
    ids = np.repeat(np.arange(16), 4)
    found = precision(z.mean(axis=1), z.var(axis=1), 50, ids)
    np.testing.assert_allclose(found.r_hat, rhat_nested(z, ids, split_draws=False), rtol=1e-12)


# ------------------------------------------------------------------------------------------------------- the rule


def test_looks_double_and_halve():
    looks = [next_look(0, 1)]
    while looks[-1] < 1000:
        looks.append(next_look(looks[-1], 1))
    assert looks[:14] == [4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40]
    assert all(2 * half == look for half, look in zip(looks, looks[4:], strict=False))
    assert all(next_look(done, 1) > done for done in range(3000))
    of_sweeps = [next_look(done, 20) for done in (0, 20, 40, 60, 80)]
    assert of_sweeps == [20, 40, 60, 80, 100]
    assert [next_look(done, 100) for done in (0, 100, 400, 1000, 1100)] == [100, 200, 500, 1100, 1300]


def rule(chains=128, groups=GROUPS, **asked) -> Rule:
    ids = np.repeat(np.arange(groups), chains // groups)
    names = [f"x[{number}]" for number in range(DIM)]
    return Rule(shoal.Until(**asked), names, ["x"] * DIM, names, ids, np.dtype(np.float32))


def ending(z, gradient=None, of: Rule | None = None):
    """The look at which draws of a standard normal end, None where they do not, and the last words."""
    of = of or rule()
    gradient = -z if gradient is None else gradient
    lp = -0.5 * (z**2).sum(axis=2, keepdims=True)
    everything = np.concatenate([z, z**2, lp, gradient, -z * gradient], axis=2)
    looks, words, draws = Looks(), "", next_look(0, 1)
    while draws <= z.shape[1]:
        now = simulated_precision(everything[:, :draws], of.superchain)
        words = of.lacks(now, draws, looks.earlier, np.zeros(2 * DIM + 1)).words
        looks.add(draws, now)
        looks = Looks.restored(looks.arrays)  # as by a checkpoint
        if not words:
            return draws, ""
        draws = next_look(draws, 1)
    return None, words


def normal(seed=0, chains=128, draws=512, rho=0.5):
    return ar1(np.random.default_rng(seed), chains, draws, (DIM,), rho)


def test_draws_of_the_target_end_soon():
    """1,000 effective draws take 23.4 draws of each chain at an autocorrelation time of 3."""
    ends = [ending(normal(seed))[0] for seed in range(20)]
    assert max(ends) <= 40
    assert 23 <= np.median(ends) <= 32
    assert min(ends) >= 20
    soon = [ending(normal(seed, rho=-0.3), of=rule(ess=300))[0] for seed in range(5)]
    assert min(soon) == 8, "not before there is a look at half as many"


def moving(z):
    z += 3 * np.exp(-np.arange(z.shape[1]) / 40)[None, :, None]


def apart(z):
    z[..., 0] += np.random.default_rng(1).normal(0, 0.35, 64).repeat(16)[:, None]


def shifted(z):
    z += 0.3


def widened(z):
    z *= 1.2


WRONG = {
    "_drift": (moving, "is still moving"),
    "_agreement": (apart, "nested R-hat"),
    "_stein": (shifted, "the mean of the gradient along"),
}


@pytest.mark.parametrize("check", WRONG)
def test_each_check_keeps_a_run_from_ending(monkeypatch, check):
    """And without the check, the mutant, it would end; other checks pass over what this one is for."""
    change, words = WRONG[check]
    others = [name for name in WRONG if name != check]
    for other in others:
        monkeypatch.setattr(Rule, other, lambda *given: "")
    # With 128 chains in 16 superchains nested R-hat says nothing that the number of effective draws does not.
    chains, groups = (1024, 64) if check == "_agreement" else (128, GROUPS)
    z, of = normal(chains=chains, draws=64), rule(chains, groups)
    change(z)
    end, said = ending(z, of=of)
    assert end is None
    assert words in said
    monkeypatch.setattr(Rule, check, lambda *given: "")
    assert ending(z, of=of)[0] is not None, "the mutant"


def test_a_wrong_scale_and_a_flat_direction_do_not_end():
    wide = normal(draws=128)
    widened(wide)
    assert "times the gradient along" in ending(wide)[1]
    flat = -normal(draws=128)
    flat[..., 1] = 0.0
    end, said = ending(normal(draws=128), gradient=flat)
    assert end is None
    assert "along x[1] is 0, with an error of" in said


def test_precision_is_what_was_asked_for():
    z = normal(draws=512)
    four_thousand, _ = ending(z, of=rule(ess=4000))
    assert four_thousand in (96, 112, 128), "94 draws are as many"
    assert ending(z, of=rule(ess=None, rel_mcse=1 / math.sqrt(4000)))[0] == four_thousand
    assert ending(z, of=rule(ess=None, mcse={"x": 0.01}))[0] in (224, 256, 320), "234: the error is sqrt(3 / (128 n))"
    end, words = ending(z, of=rule(ess=1e6))
    assert end is None
    assert "of 1,000,000 effective draws" in words
    few = ending(normal(chains=1024, rho=0.9, draws=64), of=rule(chains=1024, groups=64, ess=100))
    assert few[0] is None
    assert ", 5 for each chain" in few[1]


def test_constants_are_no_quantities():
    z = normal()
    z[..., 2] = 0.0
    gradient = -z.copy()
    of = rule()
    alone = Rule(of.until, of.labels, of.variables, of.coordinates[:2], of.superchain, of.dtype)
    lp = -0.5 * (z**2).sum(axis=2, keepdims=True)
    everything = np.concatenate([z, z**2, lp, gradient[..., :2], -(z * gradient)[..., :2]], axis=2)
    now = simulated_precision(everything, of.superchain)
    assert alone._precision(now, np.zeros(7)) == ""
    nothing = simulated_precision(everything * 0, of.superchain)
    assert alone._precision(nothing, np.zeros(7)) == "no quantity takes more than one value"


@pytest.mark.parametrize("chains", [4, 16])
def test_few_chains_end_when_they_are_precise(chains):
    """1,000 effective draws of the mean, whose autocorrelation time is 3, take 3,000."""
    of = rule(chains=chains, groups=4)
    ends = [ending(normal(seed, chains, 4096), of=of)[0] for seed in range(5)]
    assert all(end is not None and 2000 / chains <= end <= 6200 / chains for end in ends), ends


# --------------------------------------------------------------------------------------------------------- in runs


def described():
    a = numpyro.sample("a", dist.Normal(jnp.zeros(2), 1).to_event(1))
    tau = numpyro.sample("tau", dist.Exponential(1.0))
    numpyro.deterministic("ratio", a / (1 + tau))


MODEL = shoal.from_numpyro(described)
BY_HAND = {"num_chains": 64, "sampler": shoal.HMC(step_size=0.6, num_steps=4), "num_warmup": 60, "progress_bar": False}


class Killed(BaseException):
    """Ends a run without its leave."""


def sample(out=None, **changes):
    return shoal.sample(MODEL, out=out, **{**BY_HAND, **changes})


@pytest.fixture(scope="module")
def whole():
    return sample()


def same(mine, theirs):
    assert mine.num_draws == theirs.num_draws
    for name, values in theirs.draws.items():
        np.testing.assert_array_equal(mine.draws[name], values)
    assert mine.findings == theirs.findings


def test_a_run_ends_by_itself(whole):
    assert whole.converged
    assert not whole.interrupted
    assert whole.num_draws == next_look(whole.num_draws - 1, 1) < 200
    assert whole.settings["until"] == {"ess": 1000.0, "max_samples": 10000}
    assert not [finding for finding in whole.findings if finding.blocking]
    longer = sample(num_samples=whole.num_draws)
    same(longer, whole)
    stricter = sample(until=shoal.Until(ess=4 * whole.worst_ess))
    assert stricter.num_draws > whole.num_draws


def test_what_was_asked_for_holds(whole):
    asked = shoal.Until(ess=2000, mcse={"ratio": 0.004, "tau": 0.01}, quantiles=True)
    result = sample(until=asked)
    table = result.table
    assert result.num_draws > whole.num_draws
    assert (table["ratio"]["mcse_mean"] <= 0.005).all()
    assert (table["tau"]["mcse_mean"] <= 0.0125).all()
    assert min(table[name]["ess_tail"].min() for name in ("a", "tau")) >= 2000


@pytest.mark.parametrize("told", [1, 3, 5, 7])
@pytest.mark.parametrize("keep", [None, "moments"])
def test_a_killed_run_ends_where_the_other_did(tmp_path, monkeypatch, told, keep, whole):
    monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.0)
    monkeypatch.setattr("shoal.results.zarr_draws.STORED_EVERY", 0.0)
    seen = []

    def show(chunk):
        seen.append(chunk)
        if len([one for one in seen if one.phase == "sampling"]) == 5 * told:
            raise Killed

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(show))
        sample(tmp_path / "run", keep=keep)
    assert seen[-1].total is None
    result = shoal.resume(tmp_path / "run", MODEL, progress_bar=False)
    assert result.num_draws == whole.num_draws
    assert result.converged
    if keep is None:
        same(result, whole)


def test_a_finished_run_is_made_longer_or_is_enough(tmp_path, whole):
    first = sample(tmp_path / "run")
    same(first, whole)
    same(sample(tmp_path / "run"), whole)
    same(shoal.resume(tmp_path / "run", MODEL, progress_bar=False), whole)
    longer = shoal.resume(tmp_path / "run", MODEL, until=shoal.Until(ess=20_000), progress_bar=False)
    same(longer, sample(until=shoal.Until(ess=20_000)))
    assert shoal.resume(tmp_path / "run", MODEL, progress_bar=False).num_draws == longer.num_draws
    looser = shoal.resume(tmp_path / "run", MODEL, until=shoal.Until(ess=500), progress_bar=False)
    assert looser.num_draws == longer.num_draws
    more = shoal.resume(tmp_path / "run", MODEL, add_samples=10, progress_bar=False)
    assert more.num_draws == longer.num_draws + 10
    assert "until" not in more.settings
    again = shoal.resume(tmp_path / "run", MODEL, progress_bar=False)
    assert again.num_draws == more.num_draws
    # What the precision rests on was not folded in those ten draws.
    onward = shoal.resume(tmp_path / "run", MODEL, until=shoal.Until(ess=1000), progress_bar=False)
    assert onward.num_draws > more.num_draws
    assert onward.converged


def test_the_most_draws_end_a_run(tmp_path):
    result = sample(tmp_path / "run", until=shoal.Until(ess=1e6, max_samples=20))
    assert result.num_draws == 20
    assert not result.interrupted
    note = next(finding for finding in result.findings if finding.kind == "imprecise")
    assert not note.blocking
    assert "ended after 20 draws of each chain" in note.words
    assert "of 1,000,000 effective draws" in note.words
    same(shoal.load(tmp_path / "run"), result)


def test_thinned_draws_end_at_multiples():
    result = sample(thinning=5, until=shoal.Until(ess=3000))
    assert 5 * result.num_draws == next_look(5 * result.num_draws - 1, 5)
    capped = sample(thinning=3, until=shoal.Until(ess=1e6, max_samples=20))
    assert capped.num_draws == 6


def test_no_more_draws_are_made_where_they_mend_nothing(monkeypatch):
    """One in fifty transitions meets a wall, and diverges: for ever. (At a wall Stein's identity does not hold.)"""
    monkeypatch.setattr(Rule, "_stein", lambda *given: "")
    wall = shoal.Model(
        params={"a": shoal.real(2)},
        log_density=lambda p: -0.5 * jnp.sum(p["a"] ** 2) - 1e4 * (p["a"][0] > 2.2),
    )
    result = shoal.sample(wall, **BY_HAND)
    assert not result.converged
    assert result.num_draws < 200
    assert {finding.kind for finding in result.findings if finding.blocking} <= {"divergences", "neck"}
    note = next(finding for finding in result.findings if finding.kind == "imprecise")
    assert "more draws would not mend" in note.words


def test_unknown_names_and_numbers_are_refused(tmp_path):
    for bad in (
        {"ess": 0},
        {"ess": -3},
        {"ess": True},
        {"ess": "many"},
        {"ess": 10**400},
        {"rel_mcse": 0},
        {"rel_mcse": math.nan},
        {"mcse": {"a": -1}},
        {"mcse": 0.1},
        {"quantiles": 3},
        {"max_samples": 0},
        {"max_samples": 1.5},
        {"max_seconds": 0},
        {"ess": None},
        {"ess": None, "mcse": {"a": 1.0}, "quantiles": True},
    ):
        with pytest.raises(ValueError, match=r"^Until\("):
            shoal.Until(**bad)
    with pytest.raises(ValueError, match=r"both given.*max_samples"):
        sample(num_samples=5, until=shoal.Until())
    with pytest.raises(ValueError, match=r"got 'nobody', expected names.*'ratio'"):
        sample(until=shoal.Until(mcse={"nobody": 1}))
    with pytest.raises(ValueError, match=r"thinning=50 with Until\(max_samples=20\)"):
        sample(thinning=50, until=shoal.Until(max_samples=20))
    with pytest.raises(ValueError, match=r"the draws of 'a' are not kept"):
        sample(keep=["tau"], until=shoal.Until(quantiles=True))
    with pytest.raises(ValueError, match=r"until: got int"):
        sample(until=1000)
    sample(tmp_path / "run", num_samples=5)
    with pytest.raises(ValueError, match="give one of them"):
        shoal.resume(tmp_path / "run", MODEL, num_samples=5, until=shoal.Until())


def ratios():
    c = numpyro.sample("c", dist.Normal(0, 1))
    d = numpyro.sample("d", dist.Normal(0, 1))
    numpyro.deterministic("u", 10 * c)
    numpyro.deterministic("v", 0.1 * d)


def test_means_of_one_quantity_are_not_taken_for_those_of_another(tmp_path):
    model = shoal.from_numpyro(ratios)
    first = shoal.sample(model, out=tmp_path / "run", until=shoal.Until(ess=200, mcse={"v": 0.05}), **BY_HAND)
    asked = shoal.Until(ess=200, mcse={"u": 0.1})
    result = shoal.resume(tmp_path / "run", model, until=asked, progress_bar=False)
    assert result.num_draws > 2 * first.num_draws
    assert result.table["u"]["mcse_mean"] < 0.11
    assert list(shoal.Until(mcse={"b": 1, "a": 2}).mcse) == ["a", "b"]


def test_what_does_not_hold_at_the_end_is_in_doubt():
    """A kernel that is biased, or here a wall: draws are precise, and Stein's identities do not hold."""
    wall = shoal.Model(
        params={"a": shoal.real(2)}, log_density=lambda p: -0.5 * jnp.sum(p["a"] ** 2) - 1e4 * (p["a"][0] > 1.5)
    )
    result = shoal.sample(wall, **{**BY_HAND, "sampler": "chees"}, until=shoal.Until(max_samples=200))
    doubt = next(finding for finding in result.findings if finding.kind == "stein")
    assert doubt.blocking
    assert "an edge there" in doubt.words
    assert not result.converged


def test_time_that_is_asked_for_is_kept():
    asked = shoal.Until(ess=1e7, max_samples=10**6, max_seconds=2.0)
    result = sample(until=asked, keep="moments")
    assert result.interrupted
    assert {"ended", "imprecise"} <= {finding.kind for finding in result.findings}


def test_few_effective_draws_of_few_chains_are_those_that_are_reported():
    """Stretches may be too short to know an error by, where few effective draws are asked for."""
    slow = shoal.Model(params={"x": shoal.real(2)}, log_density=lambda p: -0.5 * jnp.sum(p["x"] ** 2))
    asked = {**BY_HAND, "num_chains": 4, "num_superchains": 4, "sampler": shoal.HMC(step_size=0.3, num_steps=1)}
    result = shoal.sample(slow, until=shoal.Until(ess=100), **asked)
    table = result.table["x"]
    assert ((table["sd"] / table["mcse_mean"]) ** 2 >= 100).all()


def test_divergences_must_be_known_to_be_few_enough():
    shares = lambda *each: np.repeat(np.array(each, float), 16)
    result = simulated.result(64, 100)
    for counts, expected in ((shares(0, 0, 0, 0), (0, 0)), (shares(8, 8, 8, 8), (0.05, 0.12))):
        diverging = np.arange(100) < counts[:, None]
        result.sample_stats["diverging"] = diverging
        least, most = deciding._diverging(result)
        assert least <= diverging.mean() <= most
        assert least >= expected[0]
        assert most <= expected[1]


def test_the_same_call_leaves_a_run_of_so_many_draws_as_it_is(tmp_path):
    first = sample(tmp_path / "run", num_samples=30)
    again = sample(tmp_path / "run")
    assert again.num_draws == first.num_draws == 30


def test_what_was_asked_for_survives_json():
    asked = shoal.Until(ess=None, rel_mcse=0.1, mcse={"a": 0.5}, quantiles=True, max_samples=77)
    assert pickle.loads(pickle.dumps(asked)) == asked
    assert hash(asked) == hash(shoal.Until.from_dict(asked.as_dict()))
    assert shoal.Until.from_dict(asked.as_dict()) == asked
    assert shoal.Until.from_dict(shoal.Until().as_dict()) == shoal.Until()
    assert asked.least_ess == pytest.approx(100)
