"""What the warmup of MEADS learns, on Gaussians whose eigenvalues are known, and whether it reaches a posterior."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.adaptation.meads import Powers
from test_adaptation import DIM, SCALES, correlated, tuned
from test_references import worst_z

EQUAL = np.full((DIM, DIM), 0.9) + 0.1 * np.eye(DIM)
AXES = np.linalg.qr(np.random.default_rng(3).normal(size=(DIM, DIM)))[0]
COVARIANCES = {
    "white": np.eye(DIM),
    "scales four orders apart": np.diag(SCALES.astype(float) ** 2),
    "one wide direction": EQUAL,
    "one wide direction, in other units": SCALES.astype(float)[:, None] * EQUAL * SCALES.astype(float),
    "one stiff direction": np.eye(DIM) - 0.98 * np.outer(AXES[0], AXES[0]),
}


def published(covariance: np.ndarray, draws: int) -> tuple[float, float]:
    """Step size and damping in closed form: the metric whitens the scales, so the correlation matrix is left."""
    scales = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scales, scales)
    precision = np.linalg.inv(correlation)
    ratio = lambda matrix: np.trace(matrix @ matrix) / np.trace(matrix)
    step_size = min(1.0, 0.5 / np.sqrt(ratio(precision)))
    return step_size, max(1.0 / np.sqrt(ratio(correlation)), 1.0 / (draws * step_size))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("one wide direction,")) for name in COVARIANCES],
)
def test_published_rule_finds_step_size_and_damping(name):
    """From dispersed starts. Eigenvalues of 64 chains, averaged over the last quarter of 500 draws: 10% suffice."""
    covariance = COVARIANCES[name]
    sampler = shoal.MEADS(step_rule="gradients", num_steps=2)
    tuning, _ = tuned(correlated, jnp.asarray(np.linalg.inv(covariance), jnp.float32), sampler, draws=500)
    step_size, damping = published(covariance, 500)
    assert float(tuning.step_size) == pytest.approx(step_size, rel=0.1)
    assert float(tuning.damping) == pytest.approx(damping, rel=0.1)
    np.testing.assert_allclose(tuning.metric.scale, np.sqrt(np.diag(covariance)), rtol=0.15)


def test_acceptance_finds_longer_steps_and_the_same_damping():
    data = jnp.asarray(np.linalg.inv(EQUAL), jnp.float32)
    tuning, _ = tuned(correlated, data, shoal.MEADS(), draws=500)
    step_size, damping = published(EQUAL, 500)
    assert float(tuning.damping) == pytest.approx(damping, rel=0.1)
    # The stiffest direction has the precision 10: steps are stable below 2 / sqrt(10).
    assert 1.2 * step_size < float(tuning.step_size) < 2.0 / np.sqrt(10.0)


def test_traces_of_pairs_are_without_bias():
    """The mean over many sets of few chains, where the chains' own contribution would show tenfold."""
    chains, sets = 4, 20_000
    scales = np.array([2.0, 1.0, 0.5, 0.5, 0.1], np.float32)
    vectors = scales * np.random.default_rng(0).normal(size=(sets, chains, 5)).astype(np.float32)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(sets, 2, 5)).astype(np.float32)

    def pairs(vectors, signs):
        total = jax.tree.map(lambda leaf: leaf.sum(0), Powers.of(vectors, signs))
        return (jnp.square(total.along).sum(-1) - total.own).mean() / (chains * (chains - 1))

    values = np.asarray(jax.vmap(pairs)(jnp.asarray(vectors), jnp.asarray(signs)), np.float64)
    z = (values.mean() - np.sum(scales.astype(float) ** 4)) / (values.std() / np.sqrt(sets))
    assert abs(z) < 5


def test_gradients_too_large_to_be_squared_leave_a_step():
    """Fourth powers of gradients of 1e12 overflow in float32."""
    start = np.full((64, DIM), 1.0) + 0.1 * np.random.default_rng(0).normal(size=(64, DIM))
    sampler = shoal.MEADS(step_rule="gradients")
    precision = jnp.asarray(np.diag(np.logspace(0, 12, DIM)), jnp.float32)
    tuning, run = tuned(correlated, precision, sampler, draws=20, start=start)
    assert 0.0 < float(tuning.step_size) < 1.0
    assert np.isfinite(float(tuning.damping))
    assert np.isfinite(np.asarray(run.ensemble.position)).all()


@pytest.mark.parametrize("chains", [1, 2])
def test_one_or_two_chains_can_be_tuned(chains):
    model = shoal.Model(params={"z": shoal.real(3)}, log_density=lambda p: -0.5 * jnp.sum(p["z"] ** 2))
    result = shoal.sample(model, sampler="meads", num_chains=chains, num_warmup=100, num_samples=20, progress_bar=False)
    assert np.isfinite(result.draws["z"]).all()
    assert all(np.isfinite(value).all() and (value > 0).all() for value in result.tuning.values())


@pytest.fixture(scope="module")
def founding():
    pytest.importorskip("sklearn", reason="the founding example reads scikit-learn's data")
    model = shoal.examples.load("breast_cancer")
    return shoal.sample(model, sampler="meads", num_samples=1000, progress_bar=False)


@pytest.mark.slow
def test_breast_cancer_converges(founding):
    assert founding.converged, founding
    assert founding.worst_ess > 1500


@pytest.mark.slow
def test_breast_cancer_agrees_with_the_reference(founding, targets):
    """Chains have forgotten their starts, so their means are independent: 122 checks at five standard errors."""
    reference = json.loads((targets / "breast_cancer_reference.json").read_text())["z"]
    tau, lamb, beta = (founding.draws[name] for name in ("tau", "lamb", "beta"))
    z = np.concatenate([np.log(tau)[..., None], np.log(lamb), beta], axis=-1)
    assert worst_z(z, np.asarray(reference["mean"]), np.asarray(reference["mcse_mean"])) < 5
    assert worst_z(z**2, np.asarray(reference["mean_sq"]), np.asarray(reference["mcse_mean_sq"])) < 5


@pytest.mark.slow
def test_a_warmup_that_is_too_short_is_said():
    pytest.importorskip("sklearn")
    result = shoal.sample(
        shoal.examples.load("breast_cancer"),
        sampler=shoal.MEADS(num_steps=1),
        num_warmup=50,
        num_samples=50,
        progress_bar=False,
    )
    assert not result.converged
    assert result.findings


def test_tuning_of_another_run_is_taken():
    model = shoal.examples.load("eight_schools")
    ask = lambda **more: shoal.sample(model, sampler="meads", num_chains=32, num_samples=30, progress_bar=False, **more)
    first = ask(num_warmup=60)
    again = ask(tuning=first.tuning)
    for name in ("step_size", "damping", "metric.scale"):
        np.testing.assert_array_equal(first.tuning[name], again.tuning[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_accept": 1.0}, "between 0 and 1"),
        ({"num_steps": 0}, "at least 1"),
        ({"step_rule": "energy"}, "'acceptance', 'gradients'"),
    ],
)
def test_bad_settings_are_met_at_the_door(settings, message):
    with pytest.raises(ValueError, match=message):
        shoal.MEADS(**settings)
