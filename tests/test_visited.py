"""Where chains stayed in warmup, far from all draws: how much mass that leaves, and that it forbids to trust a run."""

import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.diagnostics import visited
from shoal.diagnostics.visited import FAR, LOST, LOST_DIMENSIONS, MOST_MASS, NUMBERS, Visited

LABELS = ["a", "b"]
SEED = 6
MEAN, SD, LEVEL = np.array([1.0, 0.0]), np.array([1.0, 2.0]), -1.0


def stage(draws: int = 20, chains: int = 4, far: int = 2, until: int = 10, level: float = -5.0):
    """Chains at the mean, of which the first few are far out in `b` for some draws; 3 gradients each."""
    position = np.tile(MEAN, (draws, chains, 1))
    position[:until, :far, 1] = 1.01 * FAR * SD[1]
    log_density = np.full((draws, chains), LEVEL)
    log_density[:until, :far] = level
    return position, log_density, np.full((draws, chains), 3), np.arange(chains) + 5


def said(seen: Visited, draws: int, gradients: int):
    return seen.left_behind(MEAN, SD, LEVEL, (draws, gradients), LABELS)


def test_the_bound_is_three_stays_over_what_was_spent():
    seen = Visited()
    seen.add(*stage())
    # Two chains were there for 20 draws and 60 evaluations, so one leaves after 10 draws, or 30 evaluations.
    (found,) = said(seen, 3_000, 10**9)
    assert found.blocking
    assert (found.kind, found.where, found.chains) == ("left_behind", "b", (5, 6))
    assert found.number == pytest.approx(3 * 10 / 3_000)
    assert found.threshold == MOST_MASS
    (found,) = said(seen, 10**9, 9_000)
    assert found.number == pytest.approx(3 * 30 / 9_000)
    assert said(seen, 6_001, 10**9) == () == said(seen, 10**9, 18_001)
    assert said(seen, 5_999, 10**9)
    assert said(seen, 10**9, 17_999)


def test_what_is_near_the_draws_or_far_below_is_not_held_against_anybody():
    seen = Visited()
    seen.add(*stage(far=0))
    seen.add(*stage(level=LEVEL - LOST * LOST_DIMENSIONS - 1))
    seen.add(*stage(level=-np.inf))
    assert said(seen, 1, 1) == () == Visited().left_behind(MEAN, SD, LEVEL, (1, 1), LABELS)
    # A coordinate that does not vary is no measure of how far something is.
    assert seen.left_behind(MEAN, np.zeros(2), LEVEL, (1, 1), LABELS) == ()


def test_what_is_remembered_is_bounded_and_stands_for_all():
    whole, thinned = Visited(), Visited()
    draws, chains = 400, 1_000
    assert draws * chains * 2 > 2 * NUMBERS
    position, log_density, gradients, members = stage(draws, chains, far=chains, until=200)
    thinned.add(position, log_density, gradients, members)
    for first in range(0, draws, 100):
        part = slice(first, first + 100)
        whole.add(position[part], log_density[part], gradients[part], members)
    assert thinned.arrays["position"].size <= NUMBERS < whole.arrays["position"].size
    (some,), (every,) = said(thinned, 10_000, 30_000), said(whole, 10_000, 30_000)
    assert some.number == pytest.approx(every.number, rel=0.02)


@pytest.mark.parametrize(("draws", "chains", "dim"), [(1, 1, 3 * NUMBERS), (3, 20_000, 30), (500, 16, 5_000)])
def test_a_large_stage_leaves_something(draws, chains, dim):
    seen = Visited()
    position = np.broadcast_to(np.float32(0), (draws, chains, dim))
    rows = np.zeros((draws, chains))
    seen.add(position, rows, rows, np.arange(chains))
    kept = seen.arrays["position"]
    assert len(kept) > 0
    assert kept.size <= 2 * max(dim, NUMBERS)


def far_scale(p):
    """A normal law, and one draw in fifty of one that is thirty times as wide."""
    squares = jnp.sum(p["z"] ** 2)
    narrow, wide = jnp.log(0.98) - 0.5 * squares, jnp.log(0.02 / 900) - squares / 1800
    return jnp.logaddexp(narrow, wide)


def begun_in_both(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    starts = rng.normal(size=(4, 2)) * np.array([1.0, 30.0, 1.0, 30.0])[:, None]
    return {"z": np.repeat(starts, 4, axis=0)}


def model() -> shoal.Model:
    return shoal.Model(params={"z": shoal.real(2)}, log_density=far_scale, name="far_scale")


def sampled(**more) -> shoal.Result:
    """A run of 16 chains, none of which is in the wide part when sampling begins."""
    asked = {"num_chains": 16, "initial_positions": begun_in_both(SEED), "seed": SEED, "progress_bar": False}
    return shoal.sample(model(), num_samples=100, **asked, **more)


def left(result: shoal.Result) -> shoal.Finding:
    (found,) = [finding for finding in result.findings if finding.kind == "left_behind"]
    return found


def test_a_run_that_has_left_a_wide_part_behind_is_not_certified():
    result = sampled()
    assert np.abs(result.draws["z"]).max() < FAR  # it misses a part that holds 95% of the variance
    assert not result.converged
    assert left(result).number > MOST_MASS


def test_a_warmup_that_is_forgotten_would_show(monkeypatch):
    monkeypatch.setattr(visited.Visited, "add", lambda *arguments: None)
    assert sampled().converged


def test_what_warmup_saw_is_kept_with_the_run(tmp_path):
    pytest.importorskip("zarr")
    result = sampled(out=tmp_path / "run")
    assert shoal.load(tmp_path / "run").findings == result.findings
    longer = shoal.resume(tmp_path / "run", model(), num_samples=200, progress_bar=False)
    assert left(longer).number == pytest.approx(left(result).number / 2, rel=0.3)
