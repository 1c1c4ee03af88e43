r"""Necks that the last draws of a race tell of, and steps that are short enough for them.

Where the posterior is far narrower than elsewhere, as in the neck of a funnel, a step that fits the rest is too long,
and nothing that is learned from all chains says so: few of them are there at one time. What gives a neck away is that
proposals without a chance begin in one tail of one coordinate. A few dozen draws of every chain hold too few of them
for `shoal.diagnostics.necks`, which speaks of the whole run; but that half of them or more, and of several chains, lie
in the same hundredth of the draws, hardly happens by chance.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import DTypeLike
from scipy.stats import binom

from shoal.diagnostics.necks import NECK, TAIL, hopeless, worst_tail
from shoal.kernels import JitteredHMC
from shoal.warmup.phases import settling_adaptation
from shoal.warmup.setting import Setting
from shoal.warmup.stages import Stages, Trail

# Of the hopeless proposals, the share that must begin in one tail.
GATHERED = 0.5
# How likely that may be by chance in any of the tails: shorter steps for nothing are dear, a neck that is missed is a
# run that has not converged.
CHANCE = 0.1
# How many times as short steps become, at most.
SHORTEST = 8.0
# Halved until so few proposals are hopeless, a quarter of what the least neck has, in two looks of so many draws:
# chains go down a neck slowly, and in the run they will be deeper.
FEW, LOOK, LOOKS = NECK * TAIL / 4, 96, 2
# Of more than 128 chains a look has as many proposals, but no fewer draws than a chain needs to go anywhere.
PROPOSALS, LEAST_LOOK = 128 * LOOK, 32
# Where the shortest steps leave more than this share of the hopeless proposals, shortening was in vain.
HELPS = 0.5


def narrow(trail: Trail) -> bool:
    """Whether hopeless proposals come from one tail of a coordinate: so many as make a neck of a run, or most of them.

    Of most of them every chain counts once: one that is stuck makes many.
    """
    failed = hopeless(trail.acceptance)
    if worst_tail({"position": np.swapaxes(trail.position, 0, 1)}, failed.T):
        return True
    with_some = failed.any(axis=0).sum()
    if with_some < 2:
        return False
    low, high = np.quantile(trail.position, (TAIL, 1.0 - TAIL), axis=(0, 1))
    at, chain = trail.position[failed], np.nonzero(failed)[1]
    for inside, tail in ((at <= low, trail.position <= low), (at >= high, trail.position >= high)):
        for coordinate in np.flatnonzero(inside.mean(axis=0) >= GATHERED):
            of_chains = np.unique(chain[inside[:, coordinate]]).size
            # Of few draws a tail is more than a hundredth; of a coordinate that hardly moves it may be all.
            chance = binom.sf(of_chains - 1, with_some, tail[..., coordinate].mean())
            if of_chains > 1 and 2 * inside.shape[1] * chance < CHANCE:
                return True
    return False


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


def shortened(
    stages: Stages, setting: Setting, trail: Trail | None, kernel: JitteredHMC, target_accept: float, dtype: DTypeLike
) -> Shortened:
    """The setting, with steps so short that hardly a proposal is hopeless, in two looks one after the other.

    Args:
        stages: the chains.
        setting: whose steps may be too long for a neck.
        trail: its draws; None where nothing is known of it, and nothing changes.
        kernel: of the draws; no trajectory has more steps than it allows.
        target_accept: of the compiled adaptation, which rests.
        dtype: of the run.
    """
    begun, first = (stages.draws, stages.gradients), setting
    resting = settling_adaptation(target_accept)
    draws = int(np.clip(PROPOSALS // stages.num_chains, LEAST_LOOK, LOOK))
    seen = None if trail is None or not narrow(trail) else hopeless(trail.acceptance)
    before, looks = (0.0, LOOKS) if seen is None else (float(seen.mean()), 0)
    # So few hopeless proposals may be no more than are let pass: half of such looks would be for chance.
    times = 1.0 if before < FEW else 2.0
    while looks < LOOKS and not stages.exhausted:
        shorter = first._replace(step_size=first.step_size / times)
        steps = shorter.trajectory / shorter.step_size / (1.0 - kernel.step_jitter)
        if times > 1.0 and (steps > kernel.max_steps or times > SHORTEST):
            break
        setting = shorter
        seen = hopeless(stages.play(kernel, resting, setting.tuning(dtype), draws, learning=False)[0].acceptance)
        # One chain that is stuck whatever its steps are says nothing of them.
        calm = seen.mean() < FEW or seen.any(axis=0).sum() < 2
        looks, times = (looks + 1, times) if calm else (0, 2.0 * times)
    if seen is not None and looks == 0 and seen.mean() > HELPS * before:
        setting = first
    times = first.step_size / setting.step_size
    return Shortened(setting, times, stages.draws - begun[0], stages.gradients - begun[1])
