"""Modes without mass: those are found, and nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.diagnostics.findings import Finding
from shoal.starts import Starts
from shoal.warmup.modes import outweighed

DIM, DRAWS, CHAINS = 8, 10, 32


def two_modes(rng, below: int, lower: float, wider: float, dim: int = DIM):
    """Exact draws of two normal laws, gradients and log densities; the first chains are in the lower one.

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
    return position, -normal / width[:, None], height - 0.5 * np.square(normal).sum(2)


def found(*args, **kwargs) -> int:
    """How many chains are given up, which are those of the lower mode or none."""
    below = kwargs.pop("below", 20)
    given_up = outweighed(*two_modes(np.random.default_rng(3), below, *args, **kwargs))
    assert not given_up.any() or np.array_equal(np.flatnonzero(given_up), np.arange(below))
    return int(given_up.sum())


@pytest.mark.parametrize("below", [2, 20, 28])
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
    position, gradient, log_density = two_modes(np.random.default_rng(3), 20, 30.0, 1.0)
    assert outweighed(position, gradient, log_density).sum() == 20
    across = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:, 1:]
    squeezed = np.eye(DIM) - 0.99 * across @ across.T  # a hundredth as wide in 7 directions
    position[:, 20:] = position[:, 20:] @ squeezed
    gradient[:, 20:] = gradient[:, 20:] @ np.linalg.inv(squeezed)
    assert not outweighed(position, gradient, log_density).any()


@pytest.mark.parametrize("thin", [0.01, 0.003])
def test_an_upper_mode_that_is_thin_and_bent_counts_as_thin(thin):
    """Four pairs (y, y^2 + thin z): its covariance is that of a wide mode; its gradients tell. Half the mass each."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        position, gradient, log_density = two_modes(rng, 20, 4 * np.log(1 / thin), 1.0)
        y, z = position[:, 20:, ::2].copy(), position[:, 20:, 1::2].copy()
        position[:, 20:, 1::2] = np.square(y) + thin * z
        gradient[:, 20:, 1::2] = -z / thin
        gradient[:, 20:, ::2] = -y + 2.0 * y * z / thin
        assert not outweighed(position, gradient, log_density).any()


def test_a_lower_mode_in_which_chains_have_hardly_spread_counts_as_wide():
    """A normal law a thousand times as wide in half of the directions, in the middle of which its chains still are."""
    position, gradient, log_density = two_modes(np.random.default_rng(3), 20, 30.0, 1.0)
    gradient[:, :20, ::2] = -position[:, :20, ::2] * 1e-6
    assert not outweighed(position, gradient, log_density).any()


def test_chains_on_their_way_are_no_mode():
    position, gradient, log_density = two_modes(np.random.default_rng(3), 20, 40.0, 1.0)
    rising = log_density.copy()
    rising[:, :20] += np.linspace(-10, 10, DRAWS)[:, None]
    assert not outweighed(position, gradient, rising).any()
    apart = log_density.copy()
    apart[:, :20] -= np.linspace(0, 100, 20)  # stuck, each where it is
    assert not outweighed(position, gradient, apart).any()
    above = log_density.copy()
    above[:, 20:] += np.linspace(0, 35, 12)
    assert not outweighed(position, gradient, above).any()


def test_chains_that_stand_still_say_nothing():
    position, gradient, log_density = two_modes(np.random.default_rng(3), 20, 40.0, 1.0)
    position[:, 20:] = position[0, 20:]
    assert not outweighed(position, gradient, log_density).any()  # an upper mode of no width
    position, gradient, log_density = two_modes(np.random.default_rng(3), 2, 12.0, 1.0)
    position[:, :2], log_density[:, :2] = position[0, :2], -16.0
    assert not outweighed(position, gradient, log_density).any()  # two that stick somewhat below


def test_few_chains_and_draws_say_nothing_nor_do_those_that_are_not_finite():
    position, gradient, log_density = two_modes(np.random.default_rng(3), 20, 40.0, 1.0)
    assert outweighed(position[:, 16:26], gradient[:, 16:26], log_density[:, 16:26]).sum() == 4
    for few in (slice(18, 23), slice(19, 30), slice(10, 23)):  # five, one below, three above
        assert not outweighed(position[:, few], gradient[:, few], log_density[:, few]).any()
    assert not outweighed(position[:1], gradient[:1], log_density[:1]).any()
    position[3, :20] = np.inf
    assert not outweighed(position, gradient, log_density).any()


def normal_law(normal, rng):
    return normal, lambda x: -0.5 * jnp.square(x).sum()


def heavy_tails(normal, rng):
    mixed = normal / np.sqrt(rng.chisquare(2, size=(1, CHAINS, 1)) / 2)
    return mixed, lambda x: -0.5 * (2 + DIM) * jnp.log1p(jnp.square(x).sum() / 2)


def funnel(normal, rng):
    position = np.concatenate([3 * normal[..., :1], np.exp(1.5 * normal[..., :1]) * normal[..., 1:]], 2)
    return (
        position,
        lambda x: -0.5 * jnp.square(x[0] / 3) - 0.5 * jnp.square(x[1:]).sum() * jnp.exp(-x[0]) - 0.5 * (DIM - 1) * x[0],
    )


def two_scales(normal, rng):
    scale = np.where(np.arange(CHAINS) % 2, 1.0, 10.0)[:, None]
    law = lambda x, s: -0.5 * jnp.square(x / s).sum() - DIM * jnp.log(s)
    return scale * normal, lambda x: jnp.logaddexp(law(x, 1.0), law(x, 10.0))


@pytest.mark.parametrize("law", [normal_law, heavy_tails, funnel, two_scales])
def test_no_chain_of_one_mode_is_given_up(law, rng):
    """300 ensembles of exact draws, each chain standing still as far as its neighbours can tell or not at all."""
    density = None
    for _ in range(300):
        sticky = rng.uniform(0.0, 1.0)
        kept, new = rng.normal(size=(1, CHAINS, DIM)), rng.normal(size=(DRAWS, CHAINS, DIM))
        position, log_density = law(sticky**0.5 * kept + (1 - sticky) ** 0.5 * new, rng)
        density = density or jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(log_density))))
        value, gradient = (np.asarray(part) for part in density(position.astype(np.float32)))
        assert not outweighed(position, gradient, value).any()


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


@pytest.mark.parametrize(("lower", "wider"), [pytest.param(0.0, 1.0, marks=pytest.mark.slow), (8.8, 9.0)])
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


@pytest.mark.slow
@pytest.mark.parametrize(("wide", "share"), [(3000.0, 0.01), (1e4, 1e-4)])
def test_a_mode_whose_chains_cannot_spread_in_time_is_not_given_up(wide, share):
    """From default starts: the lower mode has 0.99 and more of the mass, spread over four coordinates."""

    def log_density(p):
        x, y = p["x"], p["y"]
        at = lambda middle, sd: (
            -0.5 * jnp.square((x - middle) / 0.1).sum() - 0.5 * jnp.square(y / sd).sum() - 4 * jnp.log(sd)
        )
        return jnp.logaddexp(at(1.5, 0.1) + jnp.log(share), at(-1.5, wide) + jnp.log1p(-share))

    model = shoal.Model(params={"x": shoal.real(shape=(4,)), "y": shoal.real(shape=(4,))}, log_density=log_density)
    result = shoal.sample(model, sampler="auto", num_samples=200, num_chains=128, progress_bar=False)
    assert not result.converged
    assert (np.asarray(result.draws["x"])[..., 0] < 0).mean() > 0.2
