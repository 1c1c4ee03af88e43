"""The warmup of a few chains, which tell little at one time: NUTS in stages, its metric learned from all of them."""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.adaptation import During
from shoal.dynamics.integrators import LEAPFROG
from shoal.kernels import NUTS
from shoal.kernels.nuts import NUTSTuning
from shoal.warmup.phases import SAME_PRICE, Phase, look, relearned
from shoal.warmup.setting import Setting
from shoal.warmup.stages import Stages

# Draws of the stages of a few chains, and of the last one, which only settles the step size.
FEW_CHAINS_DRAWS, FEW_CHAINS_LAST = (30, 30, 40, 60, 80, 120), 60


def few_chains(
    stages: Stages, kernel: NUTS, adaptation: During, tuning: NUTSTuning, dtype: DTypeLike
) -> tuple[Phase, NUTSTuning]:
    """The whole warmup of a few chains, from their starts: NUTS in stages, the metric learned anew after each."""
    begun, stages.phase = (stages.draws, stages.gradients), "settling"
    dim = stages.position.shape[1]
    setting, seen, price, settled = Setting.first(dim)._replace(integrator=LEAPFROG), None, np.inf, False
    for draws in FEW_CHAINS_DRAWS:
        trail, tuning = stages.play(kernel, adaptation, tuning, draws)
        seen = look(trail, seen, stages, worth=1.0)
        setting = relearned(seen, setting._replace(step_size=float(tuning.step_size)))
        tuning = NUTSTuning(jnp.asarray(setting.step_size, dtype), setting.whitening.metric(dtype))
        stages.foresee(tuning)
        last, price = price, seen.price
        settled = seen.still and price < SAME_PRICE * last
        if settled or stages.exhausted:
            break
    # The metric is new: its step size is found with it, and neither changes afterwards.
    _, tuning = stages.play(kernel, adaptation, tuning, FEW_CHAINS_LAST)
    return Phase("settling", seen, setting, settled, stages.draws - begun[0], stages.gradients - begun[1]), tuning
