"""Trajectory lengths by ChEES and SNAPER: one slow direction hidden among many moderate ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.adaptation import SNAPER, Chain, ChEES, StepSize
from shoal.kernels import JitteredHMC
from shoal.mesh import Placement
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import advance, begin, enter, frozen
from shoal.target import Target
from test_adaptation import correlated

DIM, CHAINS, SLOW, SWEEPS = 50, 64, 3.0, 300
AXIS = np.full(DIM, DIM**-0.5)
COVARIANCE = np.eye(DIM) + (SLOW**2 - 1.0) * np.outer(AXIS, AXIS)


def learned(criterion, num_devices: int = 1, sweeps: int = SWEEPS) -> float:
    """The length in the metric of the moderate directions, from exact draws."""
    precision = jnp.asarray(np.linalg.inv(COVARIANCE), jnp.float32)
    target = Target(correlated, lambda z, data: {}, precision, DIM)
    placement = Placement.of(CHAINS, 16, jax.devices()[:num_devices])
    kernel = JitteredHMC(max_steps=100)
    program = Program(target, kernel, Chain((StepSize(), criterion)))
    start = np.random.default_rng(0).normal(size=(CHAINS, DIM)) @ np.linalg.cholesky(COVARIANCE).T
    run = begin(program, placement, root_key(0), start.astype(np.float32), kernel.tuning(DIM, np.float32))
    run, _ = advance(program, enter(program, run, placement, sweeps), jnp.int32(sweeps), placement, sweeps)
    return float(frozen(program, run, placement).trajectory)


def test_snaper_sees_the_slow_direction_and_chees_the_bulk():
    """Without the least length. Steps are whole, which shortens the best length of a Gaussian, pi/2 of its sd."""
    assert learned(SNAPER(shortest=0.0)) == pytest.approx(np.pi / 2 * SLOW, rel=0.2)
    assert learned(ChEES(shortest=0.0)) == pytest.approx(np.pi / 2, rel=0.25)


@pytest.mark.parametrize("criterion", [ChEES, SNAPER])
def test_least_length_is_that_of_the_slow_direction(criterion):
    """It is longer than what either criterion asks for, so that on a Gaussian both end at it."""
    assert learned(criterion()) == pytest.approx(2.2 * SLOW, rel=0.1)


def test_devices_change_no_length():
    assert learned(SNAPER(), 4, 30) == learned(SNAPER(), 1, 30)


def test_criterion_is_a_setting_of_the_sampler():
    assert isinstance(shoal.ChEES(criterion="snaper").adaptation().parts[2].part, SNAPER)
    assert isinstance(shoal.ChEES().adaptation().parts[2].part, ChEES)
    with pytest.raises(ValueError, match="'chees', 'snaper'"):
        shoal.ChEES(criterion="esjd")
    result = shoal.sample(
        shoal.examples.load("eight_schools"),
        sampler=shoal.ChEES(criterion="snaper"),
        num_chains=32,
        num_warmup=60,
        num_samples=10,
        progress_bar=False,
    )
    assert result.settings["sampler.criterion"] == "snaper"
