"""Necks that a race has seen, and how long the race looks."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

import shoal
from shoal.adaptation import Fixed
from shoal.dynamics.integrators import TWO_LEAPFROGS
from shoal.kernels import JitteredHMC
from shoal.mesh import Placement
from shoal.randomness import root_key
from shoal.warmup.narrow import narrow
from shoal.warmup.phases import Phase, settling_adaptation, settling_kernel
from shoal.warmup.race import LONGEST, MOST_DRAWS, TOLD, race
from shoal.warmup.setting import Setting, corrected
from shoal.warmup.stages import Stages
from shoal.warmup.trail import Trail
from shoal.warmup.whitening import unit
from simulated import ar1

CHAINS = 128


def trail(position: np.ndarray, failed: np.ndarray) -> Trail:
    every = np.ones(failed.shape)
    return Trail(position, position, every, np.where(failed, 0.0, 0.9), every, every)


def of_normal(rng, dim: int, draws: int = 40) -> np.ndarray:
    return rng.normal(size=(draws, CHAINS, dim))


def in_tail(position: np.ndarray, chains: int, of_each: int = 1, coordinate: int = 2, highest: bool = False):
    """Draws of so many chains among the lowest hundredth of a coordinate."""
    row = position[..., coordinate] * (-1.0 if highest else 1.0)
    failed = np.zeros(row.shape, bool)
    inside = row <= np.quantile(row, 0.01)
    for chain in np.flatnonzero(inside.sum(0) >= of_each)[:chains]:
        failed[np.flatnonzero(inside[:, chain])[:of_each], chain] = True
    assert failed.any(0).sum() == chains
    return failed


def scattered(rng, shape: tuple[int, int], chains: int) -> np.ndarray:
    failed = np.zeros(shape, bool)
    failed[rng.integers(shape[0], size=chains), rng.choice(shape[1], chains, replace=False)] = True
    return failed


@pytest.mark.parametrize("highest", [False, True])
def test_hopeless_proposals_of_a_few_chains_from_one_tail_are_a_neck(rng, highest):
    position = of_normal(rng, 5)
    failed = in_tail(position, 3, highest=highest)
    assert narrow(trail(position, failed))
    assert narrow(trail(position, failed | scattered(rng, failed.shape, 10)))
    assert not narrow(trail(position, failed | scattered(rng, failed.shape, 30)))


def test_one_stuck_chain_is_no_neck(rng):
    position = of_normal(rng, 5)
    position[:20, 7, 2] = -10.0
    failed = np.zeros(position.shape[:2], bool)
    failed[:20, 7] = True
    assert not narrow(trail(position, failed))
    assert not narrow(trail(position, np.zeros_like(failed)))
    assert not narrow(trail(position, failed | scattered(rng, failed.shape, 1)))


def test_one_chain_says_nothing_of_one_coordinate(rng):
    position = of_normal(rng, 1)
    failed = in_tail(position, 1, of_each=2, coordinate=0)
    assert not narrow(trail(position, failed | scattered(rng, failed.shape, 1)))


def test_a_coordinate_that_does_not_move_has_no_tail(rng):
    position = of_normal(rng, 5)
    position[..., 1] = 3.0
    assert not narrow(trail(position, scattered(rng, position.shape[:2], 4)))


def test_a_tail_of_few_draws_is_more_than_a_hundredth():
    """Of 64 draws it is one: two chains, one hopeless proposal each; 400 trails, false alarm of 1e-3."""
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        position = rng.normal(size=(4, 16, 2))
        alarms += bool(narrow(trail(position, scattered(rng, (4, 16), 2))))
    assert alarms < 400 * 0.1 + 3.1 * np.sqrt(400 * 0.1 * 0.9)


def test_two_chains_say_something_of_few_coordinates_only(rng):
    few, many = of_normal(rng, 5), of_normal(rng, 1000)
    assert narrow(trail(few, in_tail(few, 2)))
    assert not narrow(trail(many, in_tail(many, 2)))


def test_many_hopeless_proposals_of_which_a_neck_is_one_part(rng):
    """The rule of the finding: a fifth of the proposals from the tail."""
    position = of_normal(rng, 5, draws=20)
    part = in_tail(position, 12)
    assert narrow(trail(position, part | scattered(rng, part.shape, 30)))
    assert not narrow(trail(position, in_tail(position, 6) | scattered(rng, part.shape, 30)))


def test_chance_is_called_a_neck_as_seldom_as_it_says():
    """Hopeless proposals anywhere, in 100 coordinates: at most one trail in ten; 400 trails, false alarm of 1e-3."""
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        position = of_normal(rng, 100, draws=10)
        alarms += bool(narrow(trail(position, scattered(rng, position.shape[:2], 2 + seed % 5))))
    assert alarms < 400 * 0.1 + 3.1 * np.sqrt(400 * 0.1 * 0.9)


def test_a_neck_of_many_coordinates_is_one(rng):
    position = of_normal(rng, 1, draws=96) + 0.01 * of_normal(rng, 12, draws=96)
    assert len(narrow(trail(position, in_tail(position, 13)))) == 12


def test_three_necks_at_once_are_seen(rng):
    """No tail has half of what is hopeless."""
    position = of_normal(rng, 5, draws=96)
    failed = np.zeros(position.shape[:2], bool)
    for coordinate in range(3):
        failed |= in_tail(position, 40, coordinate=coordinate)
        position[:, 30 * coordinate : 30 * coordinate + 4, coordinate] -= 6.0
        failed[:, 30 * coordinate : 30 * coordinate + 4] |= rng.random((96, 4)) < 0.8
    assert narrow(trail(position, failed))


# ------------------------------------------------------------------------------------------------------ the race looks


def own(step_size: float, trajectory: float = 4.0) -> Setting:
    return Setting("unit", unit(2), TWO_LEAPFROGS, step_size, trajectory, 0.2)


def test_what_rests_makes_the_draws_of_a_fixed_tuning():
    """Without learning a stage keeps its tuning, to the rounding of a logarithm."""
    model = shoal.examples.load("eight_schools")
    start = np.random.default_rng(0).normal(size=(32, model.target(np.float32).dim)).astype(np.float32)
    tuning = own(0.3)._replace(whitening=unit(start.shape[1])).tuning(np.float32)
    kernel, quiet = JitteredHMC(integrator=TWO_LEAPFROGS), lambda stages, acceptance: None

    def played(adaptation, learning: bool):
        stages = Stages(
            model.target(np.float32),
            Placement.of(len(start), 32, jax.devices()[:1]),
            root_key(4),
            start,
            1000,
            quiet,
        )
        return stages.play(kernel, adaptation, tuning, 4, learning=learning)

    resting, left = played(settling_adaptation(0.8), False)
    fixed, _ = played(Fixed(), True)
    assert float(left.step_size) == pytest.approx(0.3, rel=1e-6)
    np.testing.assert_allclose(resting.position, fixed.position, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(resting.step_size, fixed.step_size, rtol=1e-6)
    learning, _ = played(settling_adaptation(0.8), True)
    assert np.abs(learning.step_size / fixed.step_size - 1).max() > 0.01


class Slow:
    """Chains that are as slow with every setting."""

    num_chains, exhausted = CHAINS, False

    def __init__(self, rho: float, seed: int, dim: int = 2) -> None:
        self.rho, self.rng = rho, np.random.default_rng(seed)
        self.here = self.rng.normal(size=(CHAINS, dim))
        self.draws = self.gradients = 0
        self.looks: list[tuple[int, bool]] = []

    def play(self, kernel, adaptation, tuning, draws, learning=True):
        rows = ar1(self.rng, CHAINS, draws + 1, (self.here.shape[1],), self.rho)
        rows += self.rho ** np.arange(draws + 1)[:, None] * (self.here - rows[:, 0])[:, None]
        self.here = rows[:, -1]
        self.draws, self.gradients = self.draws + draws, self.gradients + draws * CHAINS * 4
        self.looks.append((draws, learning))
        return trail(np.swapaxes(rows[:, 1:], 0, 1), np.zeros((draws, CHAINS), bool)), tuning


def raced(stages: Slow, settled: bool = True):
    seen, _ = stages.play(None, None, None, 10)
    choice = SimpleNamespace(prices={"unit": 1.5}, best="unit", found={"unit": unit(2)})
    look = SimpleNamespace(trail=seen.late(), whole=seen, choice=choice)
    stages.looks.clear()
    stages.draws = stages.gradients = 0
    phase = Phase("settling", look, own(1.0), settled, 10, 0)
    return race(stages, phase, settling_kernel(1000), 0.8, 0.14, np.float32)


def test_the_first_candidate_is_looked_at_until_it_is_told():
    slow, quick, between = Slow(0.99, 0), Slow(0.2, 0), Slow(0.75, 0)
    ended = raced(slow)
    own_looks = [draws for draws, learning in slow.looks if not learning]
    assert own_looks == [10, 20, 40, 80]
    assert sum(own_looks) + 4 >= MOST_DRAWS
    assert ended.entries[0].ess_per_draw < 0.02  # 0.005; after the stage of settling alone it looked like 0.15
    raced(quick)
    assert quick.looks == []
    told = raced(between)  # 0.14 effective draws a draw
    assert [draws for draws, learning in between.looks if not learning] == [10, 20]
    assert told.entries[0].ess_per_draw * 34 > TOLD


def test_looks_at_many_coordinates_are_of_the_same_chains(monkeypatch):
    """As few as fit for the longest trail."""
    monkeypatch.setattr("shoal.warmup.trail.MOST_NUMBERS", LONGEST * 2 * 50)
    ended = raced(Slow(0.99, 0))
    assert ended.trail.position.shape == (154, 50, 2)


def test_a_stuck_chain_shortens_the_steps_of_the_first_once():
    class Stuck(Slow):
        def play(self, *args, **kwargs):
            made, tuning = super().play(*args, **kwargs)
            made.acceptance[:, 5] = 0.0
            made.step_size[:] = 0.7 * (1.0 if tuning is None else float(tuning.step_size))
            return made, tuning

    ended = raced(Stuck(0.99, 0))
    once = corrected(settling_kernel(1000), own(1.0), ended.trail, 0.8).step_size
    assert 0.7 < once < 0.9
    assert ended.entries[0].setting.step_size == once


def test_candidates_that_are_no_better_hardly_ever_win_for_being_looked_at_briefly():
    ended = [raced(Slow(0.99, seed)) for seed in range(8)]
    assert min(len(one.entries) for one in ended) > 1
    assert all(entry.ahead is not None for one in ended for entry in one.entries[1:])
    assert sum(one.winner is not one.entries[0] for one in ended) <= 3


def test_a_setting_that_has_no_draws_of_its_own_gets_some():
    slow = Slow(0.99, 0)
    ended = raced(slow, settled=False)
    assert slow.looks[0] == (16, True)
    assert ended.trail is not None
    quick = Slow(0.2, 0)
    assert raced(quick, settled=False).trail is None  # it would not repay them
    assert quick.looks == []
    tired = Slow(0.99, 0)
    tired.exhausted = True
    assert raced(tired, settled=False).trail is None
    assert tired.looks == []
