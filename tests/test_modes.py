"""Modes without mass: those are found, and nothing else is."""

import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.diagnostics.findings import Finding
from shoal.starts import Starts
from shoal.warmup.modes import outweighed

DIM, DRAWS, CHAINS = 8, 10, 32


def two_modes(rng, below: int, lower: float, wider: float, dim: int = DIM):
    """Exact draws of two normal laws, and their log densities; the first chains are in the lower one.

    Args:
        rng: of the draws.
        below: chains in the lower mode.
        lower: by how much its peak is below the other's.
        wider: its standard deviations.
        dim: of the target.
    """
    normal = rng.normal(size=(DRAWS, CHAINS, dim))
    width, height = np.ones(CHAINS), np.zeros(CHAINS)
    width[:below], height[:below] = wider, -lower
    position = normal * width[:, None] + np.where(np.arange(CHAINS) < below, 100.0, 0.0)[:, None]
    return position, height - 0.5 * np.square(normal).sum(2)


def found(*args, **kwargs) -> int:
    """How many chains are given up, which are those of the lower mode or none."""
    below = kwargs.pop("below", 20)
    given_up = outweighed(*two_modes(np.random.default_rng(3), below, *args, **kwargs))
    assert not given_up.any() or np.array_equal(np.flatnonzero(given_up), np.arange(below))
    return int(given_up.sum())


@pytest.mark.parametrize("below", [1, 20, 28])
def test_the_lower_of_two_modes_is_outweighed_by_a_few_chains(below):
    assert found(40.0, 2.5, below=below) == below


def test_what_counts_is_mass_and_not_height():
    """Two nats of every dimension are left for what has not been seen: 16 of 8 dimensions."""
    assert found(40.0, np.e**2) == 20  # 24 of 40 are left
    assert found(40.0, np.e**4) == 0  # 8 are
    assert found(12.0, 1.0) == 0
    assert found(12.0, 0.01) == 0  # narrow ones are no better
    assert found(20.0, 0.01) == 20
    # As if of 5 dimensions, where there are fewer.
    assert found(9.0, 1.0, dim=1) == 0
    assert found(13.0, 1.0, dim=1) == 20
    assert found(13.0, np.e**4, dim=1) == 0


def test_correlations_of_the_upper_mode_count(rng):
    """A thin upper mode has little mass, though its standard deviations are those of a wide one."""
    position, log_density = two_modes(np.random.default_rng(3), 20, 30.0, 1.0)
    assert outweighed(position, log_density).sum() == 20
    along = rng.normal(size=(DRAWS, 12, 1))
    position[:, 20:] = along + 0.01 * (position[:, 20:] - along)  # a hundredth as wide across in 7 directions
    assert not outweighed(position, log_density).any()


def test_chains_on_their_way_are_no_mode(rng):
    position, log_density = two_modes(np.random.default_rng(3), 20, 40.0, 1.0)
    rising = log_density.copy()
    rising[:, :20] += np.linspace(-10, 10, DRAWS)[:, None]
    assert not outweighed(position, rising).any()
    apart = log_density.copy()
    apart[:, :20] -= np.linspace(0, 100, 20)  # stuck, each where it is
    assert not outweighed(position, apart).any()
    above = log_density.copy()
    above[:, 20:] += np.linspace(0, 35, 12)
    assert not outweighed(position, above).any()


def test_chains_that_stand_still_say_nothing():
    position, log_density = two_modes(np.random.default_rng(3), 20, 40.0, 1.0)
    position[:, 20:] = position[0, 20:]
    assert not outweighed(position, log_density).any()  # an upper mode of no width
    low, high = two_modes(np.random.default_rng(3), 1, 12.0, 1.0)
    low[:, 0], high[:, 0] = low[0, 0], high[:, 0].mean()
    assert not outweighed(low, high).any()  # one that sticks somewhat below


def test_few_chains_and_draws_that_are_not_finite_say_nothing():
    position, log_density = two_modes(np.random.default_rng(3), 20, 40.0, 1.0)
    assert not outweighed(position[:, 18:22], log_density[:, 18:22]).any()
    position[3, :20] = np.inf
    assert not outweighed(position, log_density).any()


@pytest.mark.parametrize("law", ["normal", "heavy tails", "funnel", "two scales"])
def test_no_chain_of_one_mode_is_given_up(law, rng):
    """300 ensembles of exact draws, each chain standing still as far as its neighbours can tell or not at all."""
    for _ in range(300):
        sticky = rng.uniform(0.0, 1.0)
        normal = sticky**0.5 * rng.normal(size=(1, CHAINS, DIM)) + (1 - sticky) ** 0.5 * rng.normal(
            size=(DRAWS, CHAINS, DIM)
        )
        if law == "normal":
            position, log_density = normal, -0.5 * np.square(normal).sum(2)
        elif law == "heavy tails":
            position = normal / np.sqrt(rng.chisquare(2, size=(1, CHAINS, 1)) / 2)
            log_density = -0.5 * (2 + DIM) * np.log1p(np.square(position).sum(2) / 2)
        elif law == "funnel":
            scale = np.exp(1.5 * normal[..., :1])
            position = np.concatenate([3 * normal[..., :1], scale * normal[..., 1:]], 2)
            log_density = -0.5 * np.square(normal).sum(2) - 1.5 * (DIM - 1) * normal[..., 0]
        else:
            scale = np.where(np.arange(CHAINS) % 2, 1.0, 10.0)[:, None]
            position = scale * normal
            log_density = np.logaddexp(*(-0.5 * np.square(position / s).sum(2) - DIM * np.log(s) for s in (1.0, 10.0)))
        assert not outweighed(position, log_density).any()


def sampled(log_density, starts, monkeypatch):
    model = shoal.Model(params={"x": shoal.real(shape=(4,))}, log_density=log_density)
    position = np.repeat(starts, 8, axis=0).astype(np.float32)
    monkeypatch.setattr("shoal.sampling.dispersed", lambda *_: Starts(position, np.arange(128) // 8, ()))
    return shoal.sample(model, sampler="auto", num_samples=200, num_chains=128, progress_bar=False)


def told(result) -> list[Finding]:
    return [finding for finding in result.findings if finding.where == "starts"]


def test_where_most_starts_lead_to_a_mode_without_mass_the_others_lead(monkeypatch):
    """The lower mode holds e^(-40 + 4 log 3) of the mass; no scout is so far below as to be lost for that alone."""

    def log_density(p):
        low = -0.5 * jnp.square((p["x"] - 30.0) / 3.0).sum() - 40.0
        return jnp.logaddexp(-0.5 * jnp.square(p["x"]).sum(), low)

    starts = np.where(np.arange(16) < 12, 30.0, 1.0)[:, None] + np.linspace(-1, 1, 64).reshape(16, 4)
    result = sampled(log_density, starts, monkeypatch)
    assert result.converged
    x = np.asarray(result.draws["x"], float)
    assert np.abs(x).max() < 8
    assert [finding.number for finding in told(result)] == [12.0]
    assert not told(result)[0].blocking
    assert result.gradients.warmup < 20_000


@pytest.mark.parametrize(("lower", "wider"), [(0.0, 1.0), (8.8, 9.0)])
def test_modes_with_mass_are_kept_and_told(lower, wider, monkeypatch):
    """Equal masses, of equal or of very different width."""

    def log_density(p):
        low = -0.5 * jnp.square((p["x"] - 60.0) / wider).sum() - lower
        return jnp.logaddexp(-0.5 * jnp.square(p["x"]).sum(), low)

    starts = np.where(np.arange(16) < 8, 60.0, 1.0)[:, None] + np.linspace(-1, 1, 64).reshape(16, 4)
    result = sampled(log_density, starts, monkeypatch)
    x = np.asarray(result.draws["x"], float)
    assert not told(result)
    assert not result.converged
    assert 0.3 < (x[..., 0] > 25).mean() < 0.7
