"""Necks that a race has seen, the steps that are short enough for them, and how long the race looks."""

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
from shoal.report.warmup import words as report_words
from shoal.samplers.auto import Auto
from shoal.warmup.narrow import DOUBTFUL, FEW, LEAST_LOOK, LOOK, SHORTEST, Tail, narrow, shortened, still_narrow
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
    assert narrow(trail(position, failed | scattered(rng, failed.shape, 3)))
    assert not narrow(trail(position, failed | scattered(rng, failed.shape, 12)))


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


def test_a_neck_that_was_seen_is_still_there_where_one_chain_fails_in_it(rng):
    position = of_normal(rng, 5, draws=96)
    seen = narrow(trail(position, in_tail(position, 13)))
    assert seen == [Tail(2, True)]
    alone = in_tail(position, 1, of_each=3)
    assert narrow(trail(position, alone)) == []
    assert still_narrow(trail(position, alone), seen)
    assert still_narrow(trail(position, alone), [*seen, Tail(3, False)])
    assert not still_narrow(trail(position, alone), [Tail(2, False)])
    assert not still_narrow(trail(position, alone), [Tail(1, True)])
    assert not still_narrow(trail(position, in_tail(position, 1)), seen)  # one proposal of 12,288
    assert not still_narrow(trail(position, alone | scattered(rng, alone.shape, 4)), seen)


def test_one_hopeless_proposal_of_few_chains_is_not_too_many(rng):
    position = rng.normal(size=(96, 16, 5))
    failed = np.zeros(position.shape[:2], bool)
    failed.flat[np.argmin(position[..., 2])] = True
    assert failed.mean() > FEW
    assert not still_narrow(trail(position, failed), [Tail(2, True)])
    failed.flat[np.argsort(position[..., 2], axis=None)[1]] = True
    assert still_narrow(trail(position, failed), [Tail(2, True)])


def test_a_neck_of_many_coordinates_is_one(rng):
    position = of_normal(rng, 1, draws=96) + 0.01 * of_normal(rng, 12, draws=96)
    seen = narrow(trail(position, in_tail(position, 13)))
    assert len(seen) == 12
    assert still_narrow(trail(position, in_tail(position, 1, of_each=3)), seen)


def test_three_necks_at_once_are_seen_for_as_long_as_they_are_there(rng):
    """No tail has half of what is hopeless."""
    position = of_normal(rng, 5, draws=96)
    failed = np.zeros(position.shape[:2], bool)
    for coordinate in range(3):
        failed |= in_tail(position, 40, coordinate=coordinate)
        position[:, 30 * coordinate : 30 * coordinate + 4, coordinate] -= 6.0
        failed[:, 30 * coordinate : 30 * coordinate + 4] |= rng.random((96, 4)) < 0.8
    found = narrow(trail(position, failed))
    assert found
    assert still_narrow(trail(position, failed), found)


# ---------------------------------------------------------------------------------------- steps that are short enough


class Neck:
    """Chains of which a share of proposals is hopeless until steps are shorter than they need."""

    num_chains = CHAINS

    def __init__(
        self, needs: float, calm_before: tuple[int, ...] = (), most: int = 10_000, share: float = 2 * DOUBTFUL
    ) -> None:
        self.needs, self.calm_before, self.most, self.share = needs, calm_before, most, share
        self.draws = self.gradients = 0
        self.rng = np.random.default_rng(0)
        self.steps: list[float] = []

    @property
    def exhausted(self) -> bool:
        return self.draws >= self.most

    def play(self, kernel, adaptation, tuning, draws, learning=True):
        assert not learning
        calm = float(tuning.step_size) <= self.needs or len(self.steps) in self.calm_before
        self.steps.append(float(tuning.step_size))
        self.draws, self.gradients = self.draws + draws, self.gradients + 3 * draws
        position = self.rng.normal(size=(draws, CHAINS, 5))
        failed = np.zeros((draws, CHAINS), bool)
        if not calm:
            lowest = np.argsort(position[..., 2], axis=None)
            failed.flat[lowest[: int(self.share * failed.size)]] = True
        return trail(position, failed), tuning


def own(step_size: float, trajectory: float = 4.0) -> Setting:
    return Setting("unit", unit(2), TWO_LEAPFROGS, step_size, trajectory, 0.2)


@pytest.fixture
def seen(rng):
    """One proposal in 400 is hopeless, from one tail."""
    position = of_normal(rng, 5)
    return trail(position, in_tail(position, 13))


def test_steps_are_halved_until_two_looks_are_calm(seen):
    stages = Neck(needs=0.25)
    found = shortened(stages, own(1.0), seen, settling_kernel(1000), 0.8, np.float32)
    assert stages.steps == [0.5, 0.25, 0.25]
    assert (found.setting.step_size, found.setting.trajectory, found.times) == (0.25, 4.0, 4.0)
    assert (found.draws, found.gradients) == (3 * LOOK, 9 * LOOK)


@pytest.fixture
def barely_seen(rng):
    """One proposal in 2,560 is hopeless, from one tail: so few that it may be chance."""
    position = of_normal(rng, 5)
    return trail(position, in_tail(position, 2))


def test_of_few_hopeless_proposals_the_step_is_looked_at_as_it_is(barely_seen):
    assert narrow(barely_seen)
    calm = Neck(needs=1.0)
    found = shortened(calm, own(1.0), barely_seen, settling_kernel(1000), 0.8, np.float32)
    assert calm.steps == [1.0, 1.0]
    assert (found.setting.step_size, found.times, found.draws) == (1.0, 1.0, 2 * LOOK)
    needy = Neck(needs=0.5, calm_before=(0,), share=0.0007)
    found = shortened(needy, own(1.0), barely_seen, settling_kernel(1000), 0.8, np.float32)
    assert needy.steps == [1.0, 1.0, 0.5, 0.5]
    assert found.times == 2.0
    # A kernel that allows no shorter steps.
    stuck = Neck(needs=0.0)
    assert shortened(stuck, own(1.0), barely_seen, settling_kernel(8), 0.8, np.float32).times == 1.0
    assert stuck.steps == [1.0]


def test_what_the_steps_themselves_do_is_what_shorter_ones_are_held_against(barely_seen):
    """Failures fall eightfold, to more than half of what the race's few draws had."""

    class Falling(Neck):
        def play(self, kernel, adaptation, tuning, *args, **kwargs):
            self.share = 0.002 * float(tuning.step_size)
            return super().play(kernel, adaptation, tuning, *args, **kwargs)

    stages = Falling(needs=0.0)
    assert shortened(stages, own(1.0), barely_seen, settling_kernel(1000), 0.8, np.float32).times == SHORTEST
    assert stages.steps == [1.0, 0.5, 0.25, 0.125]


def test_one_calm_look_is_not_enough(seen):
    stages = Neck(needs=0.25, calm_before=(0,))
    assert shortened(stages, own(1.0), seen, settling_kernel(1000), 0.8, np.float32).times == 4.0
    assert stages.steps == [0.5, 0.5, 0.25, 0.25]


def test_looks_at_the_same_steps_are_taken_together(seen):
    """Two hopeless proposals are more than one in 6,700 of a look, and fewer of two."""
    stages = Neck(needs=0.0, calm_before=(0,), share=2.01 / (LOOK * CHAINS))
    assert shortened(stages, own(1.0), seen, settling_kernel(1000), 0.8, np.float32).times == 2.0
    assert stages.steps == [0.5, 0.5]


def test_steps_do_not_become_shorter_for_ever(seen):
    assert shortened(Neck(0.0), own(1.0), seen, settling_kernel(1000), 0.8, np.float32).times == SHORTEST
    assert shortened(Neck(0.0, most=LOOK), own(1.0), seen, settling_kernel(1000), 0.8, np.float32).times == 2.0
    # Trajectories of up to 40 leapfrog steps are 20 of the splitting's.
    few = shortened(Neck(0.0), own(1.0), seen, settling_kernel(40), 0.8, np.float32)
    assert few.times == 2.0
    assert few.setting.schedule(settling_kernel(40))[1].max() < 20


def test_steps_stay_what_they_were_where_shorter_ones_do_not_help(seen):
    stages, setting = Neck(0.0, share=0.002), own(1.0)
    found = shortened(stages, setting, seen, settling_kernel(1000), 0.8, np.float32)
    assert stages.steps == [0.5, 0.25, 0.125]
    assert found.setting is setting
    assert (found.times, found.draws) == (1.0, 3 * LOOK)


def test_one_chain_that_is_always_stuck_does_not_count(seen):
    class Stuck(Neck):
        def play(self, *args, **kwargs):
            made, tuning = super().play(*args, **kwargs)
            made.acceptance[:, 5] = 0.0
            return made, tuning

    assert shortened(Stuck(0.5), own(1.0), seen, settling_kernel(1000), 0.8, np.float32).times == 2.0


@pytest.mark.parametrize(("num_chains", "draws"), [(16, LOOK), (256, LOOK // 2), (16_384, LEAST_LOOK)])
def test_many_chains_need_fewer_draws_of_each(seen, num_chains, draws):
    stages = Neck(0.5)
    stages.num_chains = num_chains
    assert shortened(stages, own(1.0), seen, settling_kernel(1000), 0.8, np.float32).draws == 2 * draws


def test_nothing_is_shortened_where_no_neck_is_seen(seen):
    for nothing in (None, trail(seen.position, np.zeros(seen.acceptance.shape, bool))):
        setting = own(1.0)
        found = shortened(Neck(0.0), setting, nothing, settling_kernel(1000), 0.8, np.float32)
        assert found.setting is setting
        assert found[1:] == (1.0, 0, 0)


def test_auto_shortens_steps_on_centred_eight_schools():
    model = shoal.examples.load("eight_schools_centered")
    result = shoal.sample(model, sampler=Auto(), num_samples=20, seed=1, progress_bar=False)
    times = result.warmup["steps_shorter"]
    assert times in (2.0, 4.0, 8.0)
    assert result.warmup["phases"][-1]["phase"] == "necks"
    assert result.warmup["phases"][-1]["draws"] >= 2 * LOOK
    spent = sum(phase["gradients"] for phase in result.warmup["phases"])
    assert spent <= result.gradients.warmup <= spent + CHAINS
    assert f"{times:.2g} times shorter" in report_words(result.warmup)
    assert "times shorter" not in report_words(result.warmup | {"steps_shorter": 1.0})


# ------------------------------------------------------------------------------------------------------ the race looks


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
