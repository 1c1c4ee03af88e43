"""The sampler `auto`: burn-in, metrics from all chains, and a race for what samples this posterior best."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike

from shoal import kernels
from shoal.adaptation import Adaptation
from shoal.kernels.base import AnyKernel
from shoal.kernels.jittered_hmc import JitteredHMCTuning
from shoal.kernels.nuts import NUTSTuning
from shoal.samplers.base import Sampler, check_one_of, check_positive, check_whole
from shoal.samplers.staged import Staged, Warmed, as_record, given_up, unsettled
from shoal.warmup.few import few_chains
from shoal.warmup.narrow import narrow
from shoal.warmup.phases import (
    MOST_SCOUTS,
    SCOUTS,
    burn_in,
    burn_in_kernel,
    scouted,
    settle,
    settling_adaptation,
    settling_kernel,
)
from shoal.warmup.race import Race, race
from shoal.warmup.stages import Stages
from shoal.warmup.trail import FEW_CHAINS
from shoal.warmup.whitening import simplest, unit

# How often a proposal without a chance is tried again, and how many times as fine the steps become each time.
RETRIES, FINER = 3, 4.0
SEEN, ALWAYS, NEVER = "necks", "always", "never"


class Auto(Staged):
    """Finds the bulk, the metric, the splitting and the trajectory length by itself.

    With fewer than 16 chains it is NUTS with a metric learned from all of them, without a race: few chains cannot
    tell in little time what is faster.

    Attributes:
        target_accept: harmonic mean of the acceptance probabilities to aim at, in (0, 1).
        race_share: of the gradients of a run to 4,000 effective draws, what the race may take, in (0, 1).
        max_steps: the most leapfrog steps of a trajectory.
        retry: when proposals without a chance are tried again with finer steps: where the race has seen "necks" of the
            posterior, "always" or "never".

    Raises:
        ValueError: a setting out of its range.
    """

    name: ClassVar[str] = "auto"
    burns_in: ClassVar[bool] = True
    target_accept: float = 0.8
    race_share: float = 0.14
    max_steps: int = 1000
    retry: str = SEEN

    def __check_init__(self) -> None:
        check_positive("Auto", "target_accept", self.target_accept, below=1.0)
        check_positive("Auto", "race_share", self.race_share, below=1.0)
        check_whole("Auto", "max_steps", self.max_steps)
        check_one_of("Auto", "retry", self.retry, (SEEN, ALWAYS, NEVER))

    def in_step(self) -> Sampler:
        return dataclasses.replace(self, retry=NEVER) if self.retry == SEEN else self

    def for_chains(self, num_chains: int) -> Sampler:
        return self if num_chains >= FEW_CHAINS else AutoFewChains(self.target_accept, self.max_steps)

    def kernel(self) -> kernels.JitteredHMC:
        return settling_kernel(self.max_steps, retries=0 if self.retry == NEVER else RETRIES)

    def first_kernel(self, dim: int) -> AnyKernel:
        return burn_in_kernel() if dim > 1 else self.kernel()

    def num_scouts(self, dim: int) -> int:
        return min(max(SCOUTS, dim), MOST_SCOUTS)

    def adaptation(self) -> Adaptation:
        return settling_adaptation(self.target_accept)

    def tuning(self, dim: int, dtype: DTypeLike) -> JitteredHMCTuning:
        first = self.kernel().tuning(dim, dtype)
        return dataclasses.replace(first, metric=unit(dim).metric(dtype), finer=jnp.asarray(1.0, dtype))

    def expected(self, dim: int, dtype: DTypeLike) -> JitteredHMCTuning:
        return dataclasses.replace(self.tuning(dim, dtype), finer=None)

    def frozen(self, tuning: JitteredHMCTuning) -> JitteredHMCTuning:
        assert tuning.finer is not None
        finer = jnp.maximum(tuning.finer, FINER) if self.retry == ALWAYS else tuning.finer
        if self.retry == NEVER or jnp.rint(finer) < 2:
            finer = None
        return dataclasses.replace(tuning, finer=finer)

    def warm_up(self, stages: Stages, dim: int, dtype: DTypeLike) -> Warmed:
        kernel = self.kernel()
        stages.scout(self.num_scouts(dim))
        stages.prepare(kernel, self.adaptation(), self.expected(dim, dtype))
        burnt = burn_in(stages, dim, dtype)
        stages.burnt_in = burnt.draws > 0
        ahead = scouted(stages, burnt, kernel, self.target_accept, dtype)
        usual = FINER if self.retry == ALWAYS else 1.0
        stages.foresee(ahead.setting._replace(finer=usual).tuning(dtype))
        assert ahead.look is not None
        elsewhere = stages.gather(ahead.look.behind & ~ahead.look.lost)
        settled = settle(stages, ahead, kernel, self.target_accept, dtype)
        stages.burnt_in = True
        ended = race(stages, settled, kernel, self.target_accept, self.race_share, dtype)
        seen = [] if self.retry == NEVER or ended.trail is None else narrow(ended.trail)
        setting = ended.setting._replace(finer=FINER if seen else usual)
        raced = {"phase": "race", "draws": ended.draws, "gradients": ended.gradients}
        record = {
            "phases": [as_record(burnt), as_record(ahead), as_record(settled), raced],
            "race": _entries(ended),
            "reach": ended.reach,
            "necks": [{"coordinate": tail.coordinate, "lowest": tail.lowest} for tail in seen],
        }
        return Warmed(setting.tuning(dtype), record, given_up(elsewhere) + unsettled(settled))


class AutoFewChains(Staged):
    """What `Auto` is for fewer than 16 chains: NUTS with a pooled metric.

    Attributes:
        target_accept: as for `Auto`.
        max_steps: the most leapfrog steps of a trajectory, rounded down to a power of two.
    """

    name: ClassVar[str] = "auto"
    target_accept: float = 0.8
    max_steps: int = 1000

    def kernel(self) -> kernels.NUTS:
        return kernels.NUTS(max_tree_depth=self.max_steps.bit_length())

    def first_kernel(self, dim: int) -> kernels.NUTS:
        return dataclasses.replace(self.kernel(), draws_per_sweep=1)

    def adaptation(self) -> Adaptation:
        return settling_adaptation(self.target_accept)

    def tuning(self, dim: int, dtype: DTypeLike) -> NUTSTuning:
        return NUTSTuning(jnp.asarray(0.1, dtype), unit(dim).metric(dtype))

    def expected(self, dim: int, dtype: DTypeLike) -> None:
        return None

    def frozen(self, tuning: NUTSTuning) -> NUTSTuning:
        return eqx.tree_at(lambda t: t.metric, tuning, simplest(tuning.metric))

    def warm_up(self, stages: Stages, dim: int, dtype: DTypeLike) -> Warmed:
        settled, tuning = few_chains(
            stages, self.first_kernel(dim), settling_adaptation(self.target_accept), self.tuning(dim, dtype), dtype
        )
        return Warmed(tuning, {"phases": [as_record(settled)]}, unsettled(settled))


def _entries(ended: Race) -> list[dict[str, Any]]:
    return [entry.as_dict() | {"won": entry is ended.winner} for entry in ended.entries]
