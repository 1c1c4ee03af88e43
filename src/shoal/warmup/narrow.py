r"""Necks that the last draws of a race tell of, and steps that are short enough for them.

Where the posterior is far narrower than elsewhere, as in the neck of a funnel, a step that fits the rest is too long,
and nothing that is learned from all chains says so: few of them are there at one time. What gives a neck away is that
proposals without a chance begin in one tail of one coordinate. A few dozen draws of every chain hold too few of them
for `shoal.diagnostics.necks`, which speaks of the whole run; but that half of them or more, and of several chains, lie
in the same hundredth of the draws, hardly happens by chance.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import DTypeLike
from scipy.special import bdtrc

from shoal.diagnostics.necks import NECK, TAILS, Neck, hopeless, worst_tail
from shoal.kernels import JitteredHMC
from shoal.warmup.phases import settling_adaptation
from shoal.warmup.setting import Setting
from shoal.warmup.stages import Stages
from shoal.warmup.trail import Trail

# Of the hopeless proposals, the share that must begin in one tail.
GATHERED = 0.5
# How likely that may be by chance in any of the tails: shorter steps for nothing are dear, a neck that is missed is a
# run that has not converged.
CHANCE = 0.1
# How many times as short steps become, at most.
SHORTEST = 8.0
# Halved until so few proposals are hopeless, a quarter of what the least neck has, in two looks of so many draws:
# chains go down a neck slowly, and in the run they will be deeper.
FEW, LOOK, LOOKS = NECK * min(TAILS) / 4, 96, 2
# So few in the race's draws may be chance: the first looks are at the steps as they are.
DOUBTFUL = NECK * max(TAILS) / 4
# Of more than 128 chains a look has as many proposals, but no fewer draws than a chain needs to go anywhere.
PROPOSALS, LEAST_LOOK = 128 * LOOK, 32
# Where the shortest steps leave more than this share of the hopeless proposals, shortening was in vain.
HELPS = 0.5


class Tail(NamedTuple):
    """One hundredth of the draws.

    Attributes:
        coordinate: its number.
        lowest: whether it is that of the lowest draws.
    """

    coordinate: int
    lowest: bool


def narrow(trail: Trail) -> list[Tail]:
    """The tails that hopeless proposals come from: so many as make a neck of a run, or most of them.

    Of most of them every chain counts once, and it takes two: one that is stuck makes many.
    """
    failed = hopeless(trail.acceptance)
    found = set(_gathered(trail, failed))
    if worst := _neck_of_a_run(trail, failed):
        found.add(Tail(worst.quantity, worst.lowest))
    return sorted(found)


def still_narrow(trail: Trail, tails: list[Tail]) -> bool:
    """Whether hopeless proposals, too many of them, make a neck of a run still, or most come from any of these tails.

    One chain is enough for that: what it is stuck in has been seen before.
    """
    failed = hopeless(trail.acceptance)
    if failed.sum() < 2 or failed.mean() < FEW:
        return False
    if _neck_of_a_run(trail, failed):
        return True
    inside = np.zeros(failed.shape, bool)
    for coordinate, lowest in tails:
        row = trail.position[..., coordinate]
        low, high = np.quantile(row, (TAILS[0], 1.0 - TAILS[0]))
        inside |= row <= low if lowest else row >= high
    there, with_some = ((failed & part).any(axis=0).sum() for part in (inside, True))
    return bool(inside[failed].mean() >= GATHERED and bdtrc(there - 1, with_some, inside.mean()) < CHANCE)


def _neck_of_a_run(trail: Trail, failed: np.ndarray) -> Neck | None:
    """The worst tail, by the rule of the finding."""
    worst = worst_tail({"position": np.swapaxes(trail.position, 0, 1)}, failed.T)
    return worst[1] if worst else None


def _gathered(trail: Trail, failed: np.ndarray) -> Iterator[Tail]:
    """Tails from which most hopeless proposals come, of two chains or more, more than by chance in any tail."""
    with_some = int(failed.any(axis=0).sum())
    if with_some < 2:
        return
    low, high = np.quantile(trail.position, (TAILS[0], 1.0 - TAILS[0]), axis=(0, 1))
    at, chain = trail.position[failed], np.nonzero(failed)[1]
    for lowest, inside, tail in (
        (True, at <= low, trail.position <= low),
        (False, at >= high, trail.position >= high),
    ):
        for coordinate in np.flatnonzero(inside.mean(axis=0) >= GATHERED):
            there = np.unique(chain[inside[:, coordinate]]).size
            # Of few draws a tail is more than a hundredth; of a coordinate that hardly moves it may be all.
            chance = bdtrc(there - 1, with_some, tail[..., coordinate].mean())
            if there > 1 and 2 * inside.shape[1] * chance < CHANCE:
                yield Tail(int(coordinate), lowest)


class Shortened(NamedTuple):
    """What a look for necks has led to.

    Attributes:
        setting: to sample with.
        times: how many times as short its steps are.
        draws: of every chain.
        gradients: of all chains.
    """

    setting: Setting
    times: float
    draws: int
    gradients: int


def _failing(trail: Trail) -> float:
    return float(hopeless(trail.acceptance).mean())


def shortened(
    stages: Stages, setting: Setting, trail: Trail | None, kernel: JitteredHMC, target_accept: float, dtype: DTypeLike
) -> Shortened:
    """The setting, with steps so short that two looks one after the other see no neck, or hardly a hopeless proposal.

    Args:
        stages: the chains.
        setting: whose steps may be too long for a neck.
        trail: its draws; None where nothing is known of it, and nothing changes.
        kernel: of the draws; no trajectory has more steps than it allows.
        target_accept: of the compiled adaptation, which rests.
        dtype: of the run.
    """
    begun, first, stages.phase = (stages.draws, stages.gradients), setting, "necks"
    resting = settling_adaptation(target_accept)
    draws = int(np.clip(PROPOSALS // stages.num_chains, LEAST_LOOK, LOOK))
    tails = [] if trail is None else narrow(trail)
    looks = 0 if tails else LOOKS
    before = after = _failing(trail) if trail is not None else 0.0
    times, seen = 1.0 if before < DOUBTFUL else 2.0, None
    while looks < LOOKS and not stages.exhausted:
        shorter = first._replace(step_size=first.step_size / times)
        steps = shorter.trajectory / shorter.step_size / (1.0 - kernel.step_jitter)
        if times > 1.0 and (steps > kernel.max_steps or times > SHORTEST):
            break
        setting = shorter
        look = stages.play(kernel, resting, setting.tuning(dtype), draws, learning=False)[0].thinned(LOOKS * LOOK)
        seen = look if seen is None else seen.joined(look)
        after = _failing(seen)
        if times == 1.0:
            # What is seen of the steps themselves tells more than the race, which had few draws.
            before = max(before, after)
        if still_narrow(seen, tails):
            times, seen, looks = 2.0 * times, None, 0
        else:
            looks += 1
    if looks == 0 and after > HELPS * before:
        setting = first
    times = first.step_size / setting.step_size
    return Shortened(setting, times, stages.draws - begun[0], stages.gradients - begun[1])
