"""Proposals without a chance that are tried again with finer steps: the law, what it costs, when `auto` does it."""

import contextlib

import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from exact import Exact, nothing, with_x64, worst_z
from shoal.diagnostics import necks
from shoal.dynamics.metrics import Diagonal
from shoal.kernels import JitteredHMC, retried
from shoal.kernels.retried import Trajectories, turned
from shoal.mesh import Placement
from shoal.program import Program
from shoal.randomness import root_key
from shoal.report.warmup import words as report_words
from shoal.run import advance, begin, enter, sweeps_as_array
from shoal.target import Target

CHAINS, DRAWS, RETRIES = 16_384, 6, 2


def funnel_log_density(x, data):
    scale, rest = x[0], x[1:]
    return -0.5 * scale**2 - rest.size * scale - 0.5 * jnp.sum((rest * jnp.exp(-scale)) ** 2)


def draw_funnel(rng: np.random.Generator, n: int) -> np.ndarray:
    scale = rng.normal(size=(n, 1))
    return np.concatenate([scale, np.exp(scale) * rng.normal(size=(n, 3))], axis=1)


def shape(x: np.ndarray) -> np.ndarray:
    return x[:, 1:] * np.exp(-x[:, :1])


FUNNEL = Exact(
    # The first coordinate is the log of the scale of the other three.
    target=lambda dtype: Target(funnel_log_density, nothing, None, 4),
    draw=draw_funnel,
    functions={
        "scale": (lambda x: x[:, 0], 0.0),
        "scale squared": (lambda x: x[:, 0] ** 2, 1.0),
        "neck": (lambda x: x[:, 0] < -1.0, 0.15865525393145707),
        "deep": (lambda x: x[:, 0] < -2.0, 0.022750131948179195),
        "mouth": (lambda x: x[:, 0] > 1.0, 0.15865525393145707),
        "shape": (shape, 0.0),
        "shape squared": (lambda x: shape(x) ** 2, 1.0),
        "shape in the neck": (lambda x: shape(x) ** 2 * x[:, :1], 0.0),
    },
)


def steps_taken(transition, target):
    return {"num_steps": transition.info.num_steps}


def from_exact_draws(kernel: JitteredHMC, dtype: type = np.float32, draws: int = DRAWS, finer: float | None = 4.0):
    """Positions after some draws, and the statistics of the draws, `[draw, chain]`."""
    with with_x64(dtype):
        start = FUNNEL.draw(np.random.default_rng(5), CHAINS).astype(dtype)
        number = lambda value: jnp.asarray(value, dtype)
        tuning = JitteredHMC.Tuning(
            *(number(value) for value in (1.3, 3.0, 0.2)),
            Diagonal(jnp.asarray([1.0, 0.9, 1.1, 1.2], dtype)),
            kernel.integrator.as_arrays(dtype),
            None if finer is None else number(finer),
        )
        placement = Placement.of(CHAINS, 2048)
        program = Program(FUNNEL.target(dtype), kernel, keep=steps_taken)
        run = enter(program, begin(program, placement, root_key(11), start, tuning), placement, draws)
        run, kept = advance(program, run, sweeps_as_array(draws), placement, draws)
        return np.asarray(run.ensemble.position), {name: np.asarray(leaf) for name, leaf in kept.items()}


@pytest.mark.parametrize(
    ("dtype", "max_steps"),
    [(np.float32, 1000), (np.float32, 20), pytest.param(np.float64, 1000, marks=pytest.mark.slow)],
)
def test_exact_draws_stay_exact(dtype, max_steps):
    """Chance alone fails once in 1.8 million checks (|z| > 5), of which there are 14."""
    x, told = from_exact_draws(JitteredHMC(max_steps=max_steps, retries=RETRIES), dtype)
    z, where, _ = worst_z(FUNNEL, x)
    assert z < 5, f"{where} off by {z:.1f} standard errors"
    levels = told["num_steps"] / told["num_steps"].min(axis=1, keepdims=True)
    assert np.mean(levels > 1) > 0.05
    assert np.mean(levels > 6 if max_steps == 1000 else levels > 2) > 0.005


def test_two_draws_in_double_stay_exact():
    """Chance alone fails once in 1.8 million checks (|z| > 5), of which there are 14."""
    x, told = from_exact_draws(JitteredHMC(retries=RETRIES), np.float64, draws=2)
    assert x.dtype == np.float64
    assert worst_z(FUNNEL, x)[0] < 5
    assert (told["num_steps"] > told["num_steps"].min(axis=1, keepdims=True)).any()


class Impatient(JitteredHMC):
    """Tries again what had some chance: of that as well the law must not know."""


def impatient(monkeypatch):
    monkeypatch.setattr(retried, "MOST_ERROR", 0.2)


def test_no_bound_of_a_chance_changes_the_law(monkeypatch):
    impatient(monkeypatch)
    x, told = from_exact_draws(Impatient(retries=RETRIES))
    z, where, _ = worst_z(FUNNEL, x)
    assert z < 5, f"{where} off by {z:.1f} standard errors"
    assert np.mean(told["num_steps"] > told["num_steps"].min(axis=1, keepdims=True)) > 0.4


class Unseen(JitteredHMC):
    """Does not look whether coarser steps are hopeless from the proposal, too."""


class Unturned(JitteredHMC):
    """Looks from the proposal onwards, not back."""


class OneSided(JitteredHMC):
    """A trajectory that loses energy counts as none without a chance, however much; what it gains may be little."""


def unseen(monkeypatch):
    levels = np.arange(1, RETRIES + 1)
    order = Trajectories(levels, np.zeros(RETRIES, bool), np.ones(RETRIES, bool))
    monkeypatch.setattr(Trajectories, "of", classmethod(lambda cls, retries: order))


def unturned(monkeypatch):
    monkeypatch.setattr(retried, "turned", lambda proposal: (turned(proposal)[0], -turned(proposal)[1]))


def one_sided(monkeypatch):
    impatient(monkeypatch)
    monkeypatch.setattr(retried, "hopeless", lambda error: error > retried.MOST_ERROR)


@pytest.mark.parametrize(
    ("mutant", "mutate"), [(Unseen, unseen), (Unturned, unturned), (OneSided, one_sided)], ids=lambda it: it.__name__
)
def test_mutant_is_caught(monkeypatch, mutant, mutate):
    """Each is compiled anew, being a class of its own."""
    mutate(monkeypatch)
    x, _ = from_exact_draws(mutant(retries=RETRIES))
    z, where, _ = worst_z(FUNNEL, x)
    assert z > 5, f"{where} off by only {z:.1f} standard errors"


def test_what_is_tried_and_in_which_order():
    order = Trajectories.of(2)
    assert order.level.tolist() == [1, 0, 2, 0, 1]
    assert order.back.tolist() == [False, True, False, True, True]
    assert order.last.tolist() == [False, True, False, False, True]


def test_a_proposal_has_no_chance_where_the_finding_says_so():
    assert retried.HOPELESS == necks.HOPELESS
    assert float(jnp.exp(-retried.MOST_ERROR)) == pytest.approx(necks.HOPELESS)


def test_what_a_chain_needs_and_what_is_computed_beside_it():
    """One trajectory, or that, a finer one and one back, or these, a still finer one and two back; the first one back
    is left out where it is in vain for all that are computed together, here 64."""
    _, told = from_exact_draws(JitteredHMC(retries=RETRIES), draws=3)
    steps = told["num_steps"]
    levels = steps / steps.min(axis=1, keepdims=True)
    assert {1, 1 + 4 + 1, 1 + 4 + 1 + 16 + 1 + 4} <= set(np.unique(levels)) <= {1, 6, 26, 27}
    _, plain = from_exact_draws(JitteredHMC(retries=RETRIES), draws=3, finer=None)
    np.testing.assert_array_equal(plain["num_steps"], np.broadcast_to(steps.min(1, keepdims=True), steps.shape))


def test_draws_that_are_not_hopeless_are_those_without_retries():
    tried, told = from_exact_draws(JitteredHMC(retries=RETRIES), draws=1)
    plain, _ = from_exact_draws(JitteredHMC(), draws=1)
    once = told["num_steps"][0] == told["num_steps"][0].min()
    np.testing.assert_allclose(tried[once], plain[once], rtol=1e-4, atol=1e-4)
    assert not np.allclose(tried[~once], plain[~once], atol=1e-2)


# ----------------------------------------------------------------------------------------------------------- and `auto`

CENTRED = {"num_samples": 40, "seed": 1, "progress_bar": False}


@pytest.fixture(scope="module")
def centred():
    return shoal.examples.load("eight_schools_centered")


@pytest.fixture(scope="module")
def result(centred):
    return shoal.sample(centred, **CENTRED)


def test_auto_tries_again_where_the_race_has_seen_a_neck(result):
    assert result.warmup["necks"]
    assert all(set(tail) == {"coordinate", "lowest"} for tail in result.warmup["necks"])
    assert float(result.tuning["finer"]) == 4.0
    steps = np.asarray(result.sample_stats["n_steps"])
    assert np.mean(steps > 5 * steps.min(axis=0)) > 0.003
    # Chains one by one: what is in vain for one is left out.
    levels = set(np.unique(steps / steps.min(axis=0)))
    assert {1, 1 + 4 + 1, 1 + 4 + 16 + 1 + 4} <= levels
    assert 1 + 4 + 1 + 16 + 1 + 4 not in levels
    assert "tried again" in report_words(result.warmup)
    assert "tried again" not in report_words(result.warmup | {"necks": []})


def test_auto_tries_nothing_again_where_it_has_seen_none():
    result = shoal.sample(shoal.examples.load("eight_schools"), **CENTRED)
    assert result.warmup["necks"] == []
    assert float(result.tuning["finer"]) == 1.0
    steps = np.asarray(result.sample_stats["n_steps"])
    np.testing.assert_array_equal(steps, np.broadcast_to(steps[:1], steps.shape))


def test_auto_always_or_never():
    model = shoal.examples.load("eight_schools")
    always = shoal.sample(model, sampler=shoal.Auto(retry="always"), **CENTRED)
    assert float(always.tuning["finer"]) == 4.0
    never = shoal.Auto(retry="never")
    assert never.kernel() == never.warmup_kernel()
    assert never.kernel().even
    assert not shoal.Auto().kernel().even
    assert shoal.Auto().in_step() == never
    assert shoal.Auto(retry="always").in_step() == shoal.Auto(retry="always")
    with pytest.raises(ValueError, match=r"retries=-1"):
        JitteredHMC(retries=-1)
    with pytest.raises(ValueError, match=r"retry='often'.*expected one of 'necks', 'always', 'never'"):
        shoal.Auto(retry="often")


def test_a_tuning_that_is_given_and_what_is_asked(centred, result):
    """Of a run with a neck, and of one without; `always` and `never` do not ask the tuning."""
    quick = CENTRED | {"num_samples": 5}

    def tried(retry: str, finer: float) -> bool:
        tuning = dict(result.tuning) | {"finer": np.float32(finer)}
        made = shoal.sample(centred, sampler=shoal.Auto(retry=retry), tuning=tuning, **quick)
        steps = np.asarray(made.sample_stats["n_steps"])
        return bool((steps != steps[:1]).any())

    assert [tried("necks", 4.0), tried("necks", 1.2), tried("always", 1.0), tried("never", 4.0)] == [1, 0, 1, 0]


def test_devices_change_no_draw_of_a_neck(centred):
    """Chains one by one: no bit depends on which others have no chance, nor on where they are."""
    short = CENTRED | {"num_samples": 10, "sampler": shoal.Auto(retry="always"), "num_chains": 64, "tile": 32}
    one, two = (shoal.sample(centred, mesh={"chains": devices}, **short) for devices in (1, 2))
    np.testing.assert_array_equal(one.draws["theta"], two.draws["theta"])


def test_a_run_with_a_neck_goes_on(centred, result, tmp_path, monkeypatch):
    class Killed(BaseException):
        """The process dies."""

    def dying(told):
        if told.phase == "sampling":
            raise Killed

    options = CENTRED | {"out": tmp_path / "run"}
    monkeypatch.setattr("shoal.run.CHUNK_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("shoal.sampling.progress", lambda wanted: contextlib.nullcontext(dying))
        with pytest.raises(Killed):
            shoal.sample(centred, **options)
    gone_on = shoal.sample(centred, **options)
    np.testing.assert_array_equal(np.asarray(gone_on.draws["theta"]), np.asarray(result.draws["theta"]))
    assert gone_on.tuning.keys() == result.tuning.keys()
    assert float(gone_on.tuning["finer"]) == 4.0
