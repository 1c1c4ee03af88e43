"""Many data sets of one model at once: each posterior as exact as a run of its own, and none that minds the others.

The oracle is the conjugate normal model: with prior N(0, 10^2) and y_i ~ N(mu, 1) known in closed form.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy.stats import norm as normal

import shoal
from shoal.compiling import forget_programs
from shoal.many.blocks import Blocks
from shoal.many.data import read_many
from shoal.many.results import ManyResults, listed

ROWS, WIDE = 5, 10.0
LOCATIONS = np.array([0.0, -30.0, 3.0, 12.0, 0.5])
SCALES = np.array([1.0, 0.01, 100.0, 1.0, 10.0])


def log_prior(params):
    return norm.logpdf(params["mu"], 0.0, WIDE)


def log_likelihood(params, rows):
    return norm.logpdf(rows["y"], params["mu"], rows["sigma"]).sum()


def conjugate(**rest):
    data = {"y": np.zeros(ROWS), "sigma": np.ones(ROWS)}
    return shoal.Model(
        params={"mu": shoal.real()},
        log_prior=log_prior,
        log_likelihood=log_likelihood,
        data=data,
        name="normal",
        **rest,
    )


def data_sets():
    rng = np.random.default_rng(7)
    return [
        {"y": rng.normal(at, scale, ROWS), "sigma": np.full(ROWS, scale)}
        for at, scale in zip(LOCATIONS, SCALES, strict=True)
    ]


def exact(data):
    """The posterior's mean and standard deviation."""
    precision = WIDE**-2 + (data["sigma"] ** -2.0).sum()
    return (data["y"] / data["sigma"] ** 2).sum() / precision, precision**-0.5


SHORT = {"num_chains": 32, "num_warmup": 300, "num_samples": 150, "num_superchains": 8, "progress_bar": False}


@pytest.fixture(scope="module")
def many():
    """Five data sets on eight devices: not all of them have a block of their own, and some rows only fill up."""
    return shoal.sample_many(conjugate(), data_sets(), seed=1, block=2, **SHORT)


def z_scores(results, sets):
    """Of the means and of the mean squares, by the Monte Carlo error of chains that are independent."""
    found = []
    for result, data in zip(results, sets, strict=True):
        mean, sd = exact(data)
        for moment, truth in ((1, 0.0), (2, 1.0)):
            chains = (((result.draws["mu"].astype(float) - mean) / sd) ** moment).mean(1)
            found.append((chains.mean() - truth) / (chains.std(ddof=1) / math.sqrt(len(chains))))
    return np.array(found)


def test_posteriors_are_exact(many):
    """Ten t values with 31 degrees of freedom: all within 5 but once in 4,500."""
    assert np.abs(z_scores(many, data_sets())).max() < 5
    assert np.array_equal(many.converged, np.ones(5, bool))


def test_posteriors_of_other_data_would_not_pass(many):
    """Of data by which the mean is one standard deviation higher."""
    share = [exact(data)[1] ** 2 * (data["sigma"] ** -2.0).sum() for data in data_sets()]
    others = [data | {"y": data["y"] + exact(data)[1] / part} for data, part in zip(data_sets(), share, strict=True)]
    assert (np.abs(z_scores(many, others))[::2] > 5).all()


def test_each_data_set_has_its_own_tuning_and_verdict(many):
    scales = np.array([result.tuning["metric.scale"][0] for result in many])
    sds = np.array([exact(data)[1] for data in data_sets()])
    # Half of the warmup of 32 chains tells a standard deviation to a few hundredths.
    assert np.allclose(scales / sds, 1, atol=0.15)
    assert len({float(result.tuning["step_size"]) for result in many}) == len(many)
    assert [result.settings["data_set"] for result in many] == list(range(5))
    assert all(result.num_chains == 32 and result.num_draws == 150 for result in many)
    assert all(0 < result.gradients.lockstep <= 1 for result in many)
    assert all(result.gradients.warmup >= 32 * 300 for result in many)


@pytest.mark.parametrize("alone", [0, 3])
def test_a_data_set_does_not_mind_the_others(many, alone):
    """Bit by bit: with others in its block, and in fewer blocks."""
    others = [{"y": np.full(ROWS, 500.0 * k), "sigma": np.full(ROWS, 10.0**-k)} for k in range(alone)]
    again = shoal.sample_many(conjugate(), [*others, data_sets()[alone]], seed=1, block=2, **SHORT)[alone]
    assert np.array_equal(again.draws["mu"], many[alone].draws["mu"])
    assert all(np.array_equal(value, many[alone].tuning[name]) for name, value in again.tuning.items())


def test_data_sets_and_seeds_have_streams_of_their_own():
    twice = [data_sets()[0]] * 2
    first = shoal.sample_many(conjugate(), twice, seed=1, block=2, **SHORT)
    assert not np.array_equal(first[0].draws["mu"], first[1].draws["mu"])
    second = shoal.sample_many(conjugate(), twice, seed=2, block=2, **SHORT)
    assert not np.array_equal(first[0].draws["mu"], second[0].draws["mu"])


def test_other_data_compile_nothing(many, compile_counter):
    with compile_counter as counter:
        shoal.sample_many(conjugate(), data_sets()[::-1], seed=3, block=2, **SHORT)
    assert counter.count == 0


def test_one_pytree_is_as_good_as_a_list(many):
    read, count = read_many(conjugate(), data_sets())
    stacked, again = read_many(conjugate(), jax.tree.map(lambda *leaves: np.stack(leaves), *data_sets()))
    assert count == again == 5
    assert all(np.array_equal(read[name], stacked[name]) for name in read)
    partial, _ = read_many(conjugate(), {"y": np.arange(10.0).reshape(2, ROWS)})
    assert np.array_equal(partial["sigma"], np.ones((2, ROWS)))
    lazily, _ = read_many(conjugate(), iter(data_sets()))
    assert np.array_equal(lazily["y"], read["y"])


def test_all_at_a_glance(many):
    table = many.summary("mu")
    assert list(table.index)[:2] == [(0, "mu"), (1, "mu")]
    assert list(table.columns) == ["mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"]
    assert np.allclose(table["mean"], [exact(data)[0] for data in data_sets()], atol=8)
    assert isinstance(many, ManyResults)
    assert (len(many), len(many[1:3]), many[-1]) == (5, 2, many[4])
    text = repr(many)
    assert "normal, chees, float32: 5 data sets, 32 chains × 150 draws of each" in text
    assert "5 of 5 converged" in text
    assert many.draws["mu"].shape == many.sample_stats["lp"].shape == (5, 32, 150)
    assert np.shares_memory(many.draws["mu"], many[2].draws["mu"])


def test_numbers_of_data_sets_in_words():
    assert [listed([3]), listed([1, 2]), listed(range(15))[-20:]] == [
        "data set 3",
        "data sets 1 and 2",
        "9, 10, 11 and 3 more",
    ]


# One data set among others that cannot be sampled


def bimodal(params, data):
    """One mode, or with `apart` two that no chain leaves."""
    return jnp.logaddexp(norm.logpdf(params["x"], data["apart"], 0.05), norm.logpdf(params["x"], -data["apart"], 0.05))


def test_one_that_is_hopeless_says_so_and_spoils_nothing():
    model = shoal.Model(params={"x": shoal.real()}, log_density=bimodal, data={"apart": np.array(0.0)})
    settings = SHORT | {"seed": 0, "block": 4}
    mixed = shoal.sample_many(model, [{"apart": apart} for apart in (0.0, 1.0, 0.0)], **settings)
    assert mixed.converged.tolist() == [True, False, True]
    assert {finding.kind for finding in mixed[1].findings if finding.blocking} == {"r_hat"}
    assert "not data set 1" in repr(mixed)
    alone = shoal.sample_many(model, [{"apart": 0.0}] * 3, **settings)
    assert all(np.array_equal(alone[i].draws["x"], mixed[i].draws["x"]) for i in (0, 2))


# At the door


def somewhere(params, data):
    return jnp.where(data["ok"] > 0, -(params["x"] ** 2), jnp.nan)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "was given no data set"),
        ({"y": np.zeros((0, ROWS))}, "was given no data set"),
        ([{}, {"y": np.zeros(ROWS + 1)}], r"datasets\[1\]: sample_many was given data\['y'\] of shape \(6,\)"),
        ([{}, {}, {"x": np.zeros(ROWS)}], r"datasets\[2\]: sample_many was given .*data\['x'\]"),
        ([{"y": np.array([0, 1, np.nan, 3, 4])}], r"datasets\[0\]: data\['y'\]\[2\] is nan"),
        ([{"y": np.array(["a"] * ROWS)}], r"datasets\[0\]: data\['y'\] is a ndarray of type <U1"),
        ({"y": np.zeros((3, ROWS)), "sigma": np.ones((2, ROWS))}, r"data\['sigma'\] \(2, 5\)"),
        ({"y": 1.0}, "must have a leading axis of data sets"),
    ],
)
def test_wrong_data_sets_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        shoal.sample_many(conjugate(), given, **SHORT)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sampler": "auto"}, "sampler='auto': its warmup ends when it has settled.*'chees'"),
        ({"sampler": "what"}, "is not known"),
        ({"num_chains": 0}, "num_chains=0"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_superchains": 100}, "is more than num_chains"),
        ({"block": 0}, "block=0"),
        ({"seed": -1}, "seed=-1"),
        ({"keep": "moments"}, "sample_many keeps draws"),
        ({"keep": ["nu"]}, "keep: got 'nu'"),
        ({"precision": "half"}, "precision='half'"),
    ],
)
def test_wrong_arguments_are_met_at_the_door(arguments, words):
    with pytest.raises(ValueError, match=words):
        shoal.sample_many(conjugate(), data_sets(), **(SHORT | arguments))


def test_models_without_data_and_what_is_no_model():
    with pytest.raises(ValueError, match=r"expected a shoal\.Model"):
        shoal.sample_many(log_prior, [1])  # pyright: ignore
    model = shoal.Model(params={"mu": shoal.real()}, log_density=log_prior)
    with pytest.raises(ValueError, match="it was built without data="):
        shoal.sample_many(model, [1.0])


def test_a_data_set_that_is_finite_nowhere_is_named():
    model = shoal.Model(params={"x": shoal.real()}, log_density=somewhere, data={"ok": np.array(1.0)})
    with pytest.raises(ValueError, match=r"datasets\[2\]: The log density cannot be sampled at 8 of 8 starting points"):
        shoal.sample_many(model, [{"ok": ok} for ok in (1.0, 2.0, -1.0)], **SHORT)


def test_starts_that_are_not_finite_are_drawn_again():
    def half(params, data):
        return jnp.where(params["x"] * data > 0, norm.logpdf(params["x"] - 3 * data), -jnp.inf)

    model = shoal.Model(params={"x": shoal.real()}, log_density=half, data=np.array(1.0))
    by_hand = SHORT | {"num_warmup": 20, "num_samples": 40, "sampler": shoal.HMC(step_size=0.3, num_steps=6)}
    results = shoal.sample_many(model, [1.0, -1.0], seed=0, **by_hand)
    assert [[finding.kind for finding in result.notes] for result in results] == [["starts redrawn"]] * 2
    assert [np.unique(np.sign(result.draws["x"])).tolist() for result in results] == [[1.0], [-1.0]]


# Other samplers, and sizes


def test_blocks_have_one_size_whatever_there_is():
    blocks = Blocks.of(64)
    assert blocks.size == 2
    assert Blocks.of(1000).size == 1
    rounds = list(Blocks(2, tuple(jax.local_devices()[:2])).rounds(5))
    assert [turn.tolist() for turn in rounds] == [[0, 1, 2, 3], [4, 4, 4, 4]]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["chees", "mams", "meads", "nuts", shoal.HMC(step_size=0.5, num_steps=5)])
def test_every_sampler_that_is_tuned_in_so_many_draws(sampler):
    """Forty t values with 31 degrees of freedom of all five samplers: all within 5.5 but once in 5,000."""

    def two(params, data):
        return norm.logpdf(params["mu"], 0.0, WIDE).sum() + norm.logpdf(data[:, None], params["mu"], 1.0).sum()

    rng = np.random.default_rng(3)
    sets = [rng.normal(at, 1, ROWS) for at in (0.0, 3.0)]
    model = shoal.Model(params={"mu": shoal.real(2)}, log_density=two, data=np.zeros(ROWS))
    results = shoal.sample_many(model, sets, sampler=sampler, seed=5, **(SHORT | {"num_samples": 400}))
    assert results.converged.all()
    for result, y in zip(results, sets, strict=True):
        mean, sd = exact({"y": y, "sigma": np.ones(ROWS)})
        for moment, truth in ((1, 0.0), (2, 1.0)):
            chains = (((result.draws["mu"].astype(float) - mean) / sd) ** moment).mean(1)
            error = chains.std(0, ddof=1) / math.sqrt(len(chains))
            assert (np.abs(chains.mean(0) - truth) / error < 5.5).all()


@pytest.mark.slow
def test_a_data_set_does_not_mind_the_others_in_a_program_with_all_optimisations():
    jax.config.update("jax_disable_most_optimizations", False)
    forget_programs()
    together = shoal.sample_many(conjugate(), data_sets(), seed=1, block=4, **SHORT)
    others = [{"y": np.full(ROWS, 500.0), "sigma": np.full(ROWS, 0.1)}] * 3
    again = shoal.sample_many(conjugate(), [*others, data_sets()[3]], seed=1, block=4, **SHORT)
    assert np.array_equal(again[3].draws["mu"], together[3].draws["mu"])
    assert np.abs(z_scores(together, data_sets())).max() < 5


@pytest.mark.slow
def test_double_is_double():
    result = shoal.sample_many(
        conjugate(), data_sets()[:2], precision="float64", **(SHORT | {"num_warmup": 50, "num_samples": 20})
    )[0]
    assert result.draws["mu"].dtype == np.float64
    assert result.settings["precision"] == "float64"


def test_quantiles_are_those_of_the_posterior(many):
    """The whole law, not its moments alone: the share of draws below quantiles, by the spread between chains."""
    for result, data in zip(many, data_sets(), strict=True):
        mean, sd = exact(data)
        for level in (0.05, 0.25, 0.75, 0.95):
            shares = (result.draws["mu"] < mean + sd * normal.ppf(level)).mean(1)
            assert abs(shares.mean() - level) < 5 * shares.std(ddof=1) / math.sqrt(len(shares))
